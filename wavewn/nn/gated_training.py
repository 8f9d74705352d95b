"""The gated stack of nn/wn.py in one native function for training, forward and backward.

It runs where a step is one of training in bfloat16 on a CPU that multiplies it (AVX512-BF16):
`why_not_natively` says in words where it does not, and torch's operations serve there. It rounds
where autocast rounds, but adds in float32 what autocast adds in bfloat16: the skips, the residual
with its bias, gradients of condition and biases.

The gated layers are csrc/gated_training.hpp. All skips are one product: with the z of all layers
side by side,

    skip = [z_1, ..., z_L] [W_1, ..., W_L]^T + sum of biases

and so are the gradient that reaches all z and that of all W. Channels are padded with zeros to a
multiple of 16; zeros stay zeros and their gradients are cut off. Gradients have the same bits on
any number of threads as long as torch's own products do.

2026-11-22, one thread of a Zen 4: a step of shape M (tests/bench/test_training_step.py) takes
0.47 s instead of 0.70 with torch's operations; gradients are as near to float32's as theirs.
"""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import has_torch_function_unary

BLOCK = 16  # channels


@lru_cache(1)
def why_no_kernel() -> str:
    """Say why no gated stack can train natively on this machine; "" if one can."""
    if importlib.util.find_spec("wavewn._native") is None:
        return "wavewn was built without its native extension"
    from wavewn import _native

    reason: str = _native.why_no_gated_training()
    return reason


def why_not_natively(x: Tensor, channels: int) -> str:
    """Say why a call of the stack with this input takes torch's path; "" if the native one."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or has_torch_function_unary(x):
        return "the stack is traced"
    if x.device.type != "cpu":
        return f"it runs on {x.device.type}"
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return "its precision is not bfloat16 by autocast"
    if not torch.is_grad_enabled():
        return "no gradients are recorded"
    if why_no_kernel():
        return why_no_kernel()
    from wavewn import _native

    if channels > _native.MOST_GATED_CHANNELS:
        return f"{channels} channels are more than {_native.MOST_GATED_CHANNELS}"
    return ""


@dataclass(frozen=True)
class GatedShape:
    """Sizes of a stack beside those of its inputs.

    Attributes:
        hop_length: Rows of a frame of the condition.
        linear: The condition goes from the frame before to its own; there is one frame more.
        taps: Of each gate.
        dilations: One a layer.
    """

    hop_length: int
    linear: bool
    taps: int
    dilations: tuple[int, ...]


def native_stack(shape: GatedShape, batch: int, time: int, channels: int) -> Any:
    """Make what runs the kernel; it lives no longer than a call."""
    from wavewn import _native

    return _native.GatedStack(
        batch,
        time,
        channels,
        shape.taps,
        shape.hop_length,
        shape.linear,
        list(shape.dilations),
        torch.get_num_threads(),
    )


def bits(x: Tensor) -> Tensor:
    """View contiguous bfloat16 numbers as what the extension takes."""
    return x.detach().contiguous().view(torch.int16)


def padded(x: Tensor, channels: int, *dims: int) -> Tensor:
    """Fill axes up to so many channels with zeros."""
    for dim in dims:
        if x.shape[dim] < channels:
            x = F.pad(x, (0, 0) * (x.dim() - 1 - dim % x.dim()) + (0, channels - x.shape[dim]))
    return x


def in_blocks(x: Tensor, channels: int) -> Tensor:
    """[..., 2 * R] gates to the kernel's order: blocks of filter and gate, padded."""
    halves = padded(x.unflatten(-1, (2, -1)), channels, -1)
    return halves.unflatten(-1, (-1, BLOCK)).transpose(-3, -2).flatten(-3)


def from_blocks(x: Tensor, residual_channels: int) -> Tensor:
    """Undo `in_blocks`."""
    halves = x.unflatten(-1, (-1, 2, BLOCK)).transpose(-3, -2).flatten(-2)
    return halves[..., :residual_channels].flatten(-2)


class Weights(NamedTuple):
    """Those of all layers as the kernel and the product of the skips take them, padded.

    Attributes:
        gate: [layers, taps, inputs, 2 * channels], gates in blocks.
        gate_bias: [layers, 2 * channels], float32.
        residual: [layers - 1, outputs, inputs].
        residual_bias: [layers - 1, channels], float32.
        skip: [S, layers, inputs].
        skip_bias: [S], of all layers together.
    """

    gate: Tensor
    gate_bias: Tensor
    residual: Tensor
    residual_bias: Tensor
    skip: Tensor
    skip_bias: Tensor


def gather(weights: tuple[Tensor, ...], width: int, channels: int) -> Weights:
    """Put together what `GatedStack.forward` is given; `channels` are `width` padded."""
    layers = len(weights) // 4
    gates, gate_biases, outs, out_biases = (
        weights[i * layers : (i + 1) * layers] for i in range(4)
    )
    skips = outs[-1].shape[0]
    gate = in_blocks(torch.stack(gates).bfloat16().permute(0, 3, 2, 1), channels)
    residual, residual_bias = gate.new_zeros(0, channels, channels), gate.new_zeros(0, channels)
    if layers > 1:
        residual = torch.stack([out[:width] for out in outs[:-1]]).bfloat16()
        residual_bias = torch.stack([bias[:width] for bias in out_biases[:-1]])
    return Weights(
        padded(gate, channels, -2),
        in_blocks(torch.stack(gate_biases).float(), channels),
        padded(residual, channels, -1, -2),
        padded(residual_bias.float(), channels, -1),
        padded(torch.stack([out[-skips:] for out in outs], dim=1).bfloat16(), channels, -1),
        torch.stack([bias[-skips:] for bias in out_biases]).float().sum(0).bfloat16(),
    )


def scatter(
    sums: Tensor, dskips: Tensor, dgate_bias: Tensor, dskip_bias: Tensor, width: int, taps: int
) -> list[Tensor]:
    """Take the gradients of all layers apart, in the order of `GatedStack.forward`.

    Args:
        sums: [layers, gates, residual and its bias], as the kernel leaves them.
        dskips: [S, layers, channels].
        dgate_bias: [layers, 2 * R].
        dskip_bias: [S], the same for all layers.
        width: R.
        taps: Of a gate.
    """
    layers, channels = dskips.shape[1:]
    sizes = (2 * taps * channels**2, channels**2, channels)
    dgate, dresidual, dresidual_bias = sums.split(sizes, dim=1)
    # [layers, gates, taps, inputs] to torch's [layers, gates, inputs, taps]
    dgate = dgate.view(layers, 2 * channels, taps, channels).permute(0, 2, 3, 1)
    dgate = from_blocks(dgate, width).permute(0, 3, 2, 1)[:, :, :width]
    dresidual = dresidual.view(layers, channels, channels)[:-1, :width, :width]
    dskips = dskips.transpose(0, 1)[..., :width]
    douts = [torch.cat([r, s]) for r, s in zip(dresidual, dskips[:-1], strict=True)]
    dout_biases = [torch.cat([r[:width], dskip_bias]) for r in dresidual_bias[:-1]]
    return [*dgate, *dgate_bias, *douts, dskips[-1], *dout_biases, dskip_bias]


class GatedStack(torch.autograd.Function):
    """x, condition and the weights of all layers to the summed skips.

    The weights come kind by kind, each layer by layer: gates [2 * R, R, taps] and their biases,
    outs [R + S, R] ([S, R] in the last layer) and theirs. Their gradients have their dtypes.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, shape: GatedShape, x: Tensor, condition: Tensor, *weights: Tensor
    ) -> Tensor:
        """Give [batch, time, S] in bfloat16."""
        batch, time, width = x.shape
        layers, channels = len(shape.dilations), -(-width // BLOCK) * BLOCK
        stack = native_stack(shape, batch, time, channels)
        own = gather(weights, width, channels)
        rows = own.gate.new_empty(layers, batch, stack.padding + time, channels)
        rows[:, :, : stack.padding] = 0
        rows[0, :, stack.padding :] = padded(x, channels, -1)
        factors = rows.new_empty(layers, batch, time, 2 * channels)
        z = rows.new_empty(batch, time, layers, channels)
        stack.forward(
            bits(own.gate.flatten(1, 2)),
            own.gate_bias,
            bits(own.residual.transpose(1, 2)),
            own.residual_bias,
            bits(in_blocks(condition.bfloat16().unflatten(-1, (layers, -1)), channels)),
            bits(rows),
            bits(factors),
            bits(z),
        )
        ctx.save_for_backward(own.gate, own.residual, own.skip, rows, factors, z)
        ctx.shape, ctx.width = shape, width
        ctx.dtypes = [tensor.dtype for tensor in (x, condition, *weights)]
        return F.linear(z.flatten(2), own.skip.flatten(1), own.skip_bias)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dskip: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Give the gradients of `forward`'s arguments."""
        gate, residual, skip, rows, factors, z = ctx.saved_tensors
        batch, time, layers, channels = z.shape
        shape, width = ctx.shape, ctx.width
        dskip = dskip.bfloat16().flatten(0, 1)
        dz = torch.mm(dskip, skip.flatten(1)).view_as(z)
        dx = z.new_empty(batch, time, channels)
        frames = time // shape.hop_length
        dnow = z.new_zeros(batch, frames, layers, 2 * channels, dtype=torch.float32)
        dbefore = torch.zeros_like(dnow) if shape.linear else dnow[:0]
        sums = dnow.new_empty(layers, channels * (2 * shape.taps * channels + channels + 1))
        native_stack(shape, batch, time, channels).backward(
            bits(gate.transpose(2, 3).flatten(1, 2)),
            bits(residual),
            bits(rows),
            bits(factors),
            bits(dz),
            bits(dx),
            dnow,
            dbefore,
            sums,
        )
        dcondition = dnow
        if shape.linear:
            dcondition = F.pad(dnow, (0, 0, 0, 0, 1, 0))
            dcondition[:, :-1] += dbefore
        dcondition = from_blocks(dcondition, width)
        dskips = torch.mm(dskip.t(), z.flatten(0, 1).flatten(1)).unflatten(1, (layers, channels))
        dskip_bias = dskip.sum(0, dtype=torch.float32)
        gradients = [
            dx[..., :width],
            dcondition.flatten(2),
            *scatter(sums, dskips, dcondition.sum((0, 1)), dskip_bias, width, shape.taps),
        ]
        return None, *(g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))
