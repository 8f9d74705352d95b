"""Strided convolutions as discriminators have them, over rows with channels innermost.

On a CPU a convolution is here one product of matrices: the taps that an output sees, side by side,
times the weight as it lies, [out_channels, in_channels * kernel_size]. Discriminators have wide
layers and few rows, where that costs half of torch's `conv1d` and more: it would lay the weight out
anew, forward and backward. Grouped ones run group by group as channels-last images.

2026-11-22, one thread of a Zen 4, bfloat16, forward and backward, beside `conv1d`: 44 x 10 rows of
1024 to 1024 channels, 5 taps, 82 instead of 226 ms; 8 x 152 rows of 512 to 1024, 42 instead of 52;
41 taps of 128 to 128 channels in 4 groups, 174 instead of 243, in 16 groups 79 instead of 106. Half
of that was the gradient of the weights, for which oneDNN reaches a quarter of what it multiplies
forward: 8 x 8192 rows of 128 to 128 channels, 41 taps, stride 2, 4 groups: 114 ms by
`weight_gradient` instead of 195, other grouped layers of a scale 1.2 to 2.3 times as fast.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_OUTPUTS, WIDTH = 8, 256  # of a block that a weight's gradient takes together


def strided_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, margin: int, groups: int = 1
) -> Tensor:
    """Filter rows.

    Args:
        x: [batch, time, in_channels].
        weight: [out_channels, in_channels / groups, kernel_size].
        bias: [out_channels] or None.
        stride: Rows from one output to the next.
        margin: Zeros at either end.
        groups: Into which the channels are cut.

    Returns:
        [batch, outputs, out_channels].
    """
    if x.device.type != "cpu":
        return F.conv1d(x.mT, weight, bias, stride, margin, 1, groups).mT
    if groups > 1:
        y: Tensor = _Grouped.apply(x, weight, bias, stride, margin, groups)
        return y
    taps = weight.shape[2]
    padded = F.pad(x, (0, 0, margin, margin))
    span = padded.shape[1] - taps + 1
    seen = torch.stack([padded[:, tap : tap + span : stride] for tap in range(taps)], 3)
    return F.linear(seen.flatten(2), weight.flatten(1), bias)


class _Grouped(torch.autograd.Function):
    """A convolution whose groups are as many images, channels last."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        margin: int,
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.margin, ctx.groups = stride, margin, groups
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        images, kernels = _images(x.to(dtype), groups), _kernels(weight.to(dtype), groups)
        biases = [None] * groups if bias is None else bias.to(dtype).chunk(groups)
        parts = zip(images, kernels, biases, strict=True)
        found = [F.conv2d(*part, (1, stride), (0, margin)) for part in parts]
        return torch.cat([_rows(part) for part in found], 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x, wants = x.to(gradient.dtype), ctx.needs_input_grad
        dx = dw = db = None
        if wants[0]:
            images = _images(x, ctx.groups), _images(gradient, ctx.groups)
            kernels = _kernels(weight.to(gradient.dtype), ctx.groups)
            found = [
                torch.ops.aten.convolution_backward(
                    dy, image, kernel, None, (1, ctx.stride), (0, ctx.margin), (1, 1),
                    False, (0, 0), 1, (True, False, False),
                )[0]
                for image, dy, kernel in zip(*images, kernels, strict=True)
            ]  # fmt: skip
            dx = torch.cat([_rows(part) for part in found], 2)
        if wants[1]:
            shape = weight.shape
            dw = weight_gradient(x, gradient, shape, ctx.stride, ctx.margin, ctx.groups)
        if wants[2]:
            db = gradient.float().sum((0, 1))
        return dx, dw, db, None, None, None


def weight_gradient(
    x: Tensor, gradient: Tensor, shape: torch.Size, stride: int, margin: int, groups: int
) -> Tensor:
    """Give the gradient of a grouped convolution's weight, as one product of matrices a group.

    An output sees `kernel_size` rows; `block` outputs in a row see only few rows more. Blocks of
    outputs are multiplied by all that they see: of what comes out, each output's own rows are
    added up, the rest is the price (a third more multiplications at stride 2) of matrices that are
    wide enough, and of rows that are copied once a block and not once an output.

    Args:
        x: [batch, time, in_channels].
        gradient: [batch, outputs, out_channels], of the type of `x`.
        shape: Of the weight.
        stride: Rows from one output to the next.
        margin: Zeros at either end of `x`.
        groups: Into which the channels are cut.

    Returns:
        [out_channels, in_channels / groups, kernel_size] in float32.
    """
    out, inner, taps = shape[0] // groups, shape[1], shape[2]
    batch, outputs = gradient.shape[:2]
    block = max(1, min(MOST_OUTPUTS, WIDTH // out))
    blocks, seen = -(-outputs // block), (block - 1) * stride + taps
    rows = (blocks - 1) * block * stride + seen
    padded = F.pad(x, (0, 0, margin, rows - margin - x.shape[1])).contiguous()
    width = padded.shape[2]
    strides = (inner, rows * width, block * stride * width, width, 1)
    windows = padded.as_strided((groups, batch, blocks, seen, inner), strides)
    windows = windows.reshape(groups, batch * blocks, seen * inner)
    dy = F.pad(gradient, (0, 0, 0, blocks * block - outputs))
    dy = dy.reshape(batch, blocks, block, groups, out).permute(3, 0, 1, 2, 4)
    dy = dy.reshape(groups, batch * blocks, block * out)
    product = torch.bmm(dy.mT, windows).view(groups, block, out, seen, inner)
    own = [product[:, i, :, i * stride : i * stride + taps].float() for i in range(block)]
    return torch.stack(own).sum(0).transpose(2, 3).reshape(shape)


def _images(x: Tensor, groups: int) -> list[Tensor]:
    return [part.mT.unsqueeze(2) for part in x.chunk(groups, 2)]


def _kernels(weight: Tensor, groups: int) -> tuple[Tensor, ...]:
    return weight.unsqueeze(2).contiguous(memory_format=torch.channels_last).chunk(groups)


def _rows(image: Tensor) -> Tensor:
    return image[:, :, 0].mT
