"""Layers of a one-pass model as the native kernel has them: convolutions of three kinds.

    y[r] = bias + sum over taps k of x[r * stride + k * dilation] @ weights[k]

A transposed convolution gives with each input its `rate` rows at once. A convolution of few outputs
gives as many rows at once as fill a vector (`merged`): from all the rows that these see together,
with weights of zero where one of them does not see an input.

A precise layer reads floats and sums in doubles; so does one of an odd number of inputs where the
kernel meets operands in pairs. A smoothing is one filter for all channels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.models.parallel_wavegan import Smoothing
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d

VECTOR = 16  # outputs that the kernel makes at once
PRODUCT, PRECISE, SMOOTHING = range(3)  # LayerKind in csrc/onepass.hpp
Layer = PaddedConv1d | UpsamplingConv1d


class Plain(NamedTuple):
    """A layer of the kernel.

    Attributes:
        weights: [taps, inputs, outputs] float32, oldest tap first.
        bias: [outputs] float32.
        dilation: Input rows between two taps.
        stride: Input rows between two rows of outputs.
        kind: PRODUCT, PRECISE or SMOOTHING.
    """

    weights: Tensor
    bias: Tensor
    dilation: int
    stride: int
    kind: int = 0


def stretches(layer: UpsamplingConv1d) -> int:
    """Inputs that an output of a transposed convolution sees at most."""
    return -(-layer.taps // layer.rate)


def kind_of(layer: Layer, pairs: bool) -> int:
    """Say how a layer meets its rows; `pairs` where operands are bfloat16."""
    if isinstance(layer, Smoothing):
        return SMOOTHING
    return (
        PRECISE
        if isinstance(layer, PreciseConv1d) or (pairs and layer.in_channels % 2)
        else PRODUCT
    )


def merged_rows(layer: Layer, kind: int) -> int:
    """Rows that `merged` makes at once; 1 where it would gain nothing."""
    if isinstance(layer, UpsamplingConv1d) or kind != PRODUCT or layer.dilation[0] != 1:
        return 1
    return max(VECTOR // layer.out_channels, 1)


def plain(layer: Layer, kind: int) -> Plain:
    """Give a layer as the kernel has it."""
    weight, bias = layer.weight.detach().float(), torch.zeros(layer.out_channels)
    if layer.bias is not None:
        bias = layer.bias.detach().float()
    if isinstance(layer, PaddedConv1d):
        taps = weight.flatten()[:, None, None] if kind == SMOOTHING else weight.permute(2, 1, 0)
        return Plain(taps.contiguous(), bias, layer.dilation[0], 1, kind)
    count = stretches(layer)
    whole = F.pad(weight, (0, count * layer.rate - layer.taps)).unflatten(2, (count, layer.rate))
    taps = whole.flip(2).permute(2, 0, 3, 1).flatten(2)  # from [inputs, outputs, stretch, rate]
    return Plain(taps.contiguous(), bias.repeat(layer.rate), 1, 1, kind)


def merged(layer: Layer) -> Plain:
    """Give a layer that makes `merged_rows` rows at once."""
    one, rows = plain(layer, PRODUCT), merged_rows(layer, PRODUCT)
    taps, inputs, outputs = one.weights.shape
    weights = torch.zeros(taps + rows - 1, inputs, rows, outputs)
    for row in range(rows):
        weights[row : row + taps, :, row] = one.weights
    return Plain(weights.flatten(2), one.bias.repeat(rows), 1, rows)
