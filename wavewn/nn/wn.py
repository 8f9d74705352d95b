"""The gated dilated stack that carries WaveNet and its one-pass relatives.

For layer l with dilation d, row by row:

    a    = W_gate [x(t - (K-1) d), ..., x(t)] + b + condition_l(t)      a: [2R]
    z    = tanh(a[:R]) * sigmoid(a[R:])                                 z: [R]
    x    = x + W_res z + b_res                                          x: [R]
    skip = skip + W_skip z + b_skip                                     skip: [S]

The residual output of the last layer would be used by nobody, so it has none. A speaker enters
with the condition: a vector added at frame rate reaches every layer through its projection.

In training under bfloat16 autocast, on a CPU that multiplies it, all layers are one native function
(nn/gated_training.py); everywhere else they are torch's operations, below.

Source: van den Oord et al. 2016, arXiv:1609.03499, sections 2.3 to 2.5.
"""

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from wavewn.errors import ShapeError
from wavewn.nn.conv import CausalConv1d
from wavewn.nn.gated_training import GatedShape, GatedStack, why_not_natively
from wavewn.nn.upsample import add_upsampled


def gated_activation(a: Tensor, dim: int = -1) -> Tensor:
    """tanh of the first half of the channels, axis `dim`, times sigmoid of the second (equation 2).

    Halves of rows are copied first: over gaps torch's bfloat16 tanh and sigmoid are slow.
    2026-11-21, one thread of a Zen 4: 11.6 to 6.7 ms for [4, 16000, 64], and together with the
    one split in `ResidualLayer` a training step of tests/bench went from 1.08 to 0.93 CPU
    seconds. A hand-written gradient that keeps the two factors alone gained nothing on top.
    """
    if has_torch_function_unary(a):  # no numbers: engine/onepass_record.py
        found: Tensor = handle_torch_function(gated_activation, (a,), a, dim=dim)
        return found
    filtered, gate = a.chunk(2, dim=dim)
    if dim == -1:
        filtered, gate = filtered.contiguous(), gate.contiguous()
    return torch.tanh(filtered) * torch.sigmoid(gate)


class ResidualLayer(nn.Module):
    """Parameters of one layer; its equations stand in the module docstring.

    Args:
        residual_channels: R.
        skip_channels: S.
        kernel_size: Taps.
        dilation: Distance between taps.
        last: The layer has no residual output.
    """

    def __init__(
        self,
        residual_channels: int,
        skip_channels: int,
        kernel_size: int,
        dilation: int,
        last: bool,
    ) -> None:
        super().__init__()
        self.residual_channels = 0 if last else residual_channels
        self.gate = CausalConv1d(residual_channels, 2 * residual_channels, kernel_size, dilation)
        self.out = nn.Linear(residual_channels, self.residual_channels + skip_channels)

    def forward(
        self, x: Tensor, condition: Tensor, upsampling: str, history: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (x, skip): [batch, time, R] and this layer's [batch, time, S]."""
        a = add_upsampled(self.gate(x, history), condition, upsampling)
        out = self.out(gated_activation(a))
        if not self.residual_channels:
            return x, out
        # One split, not two slices: the gradient of a slice is a zero-filled tensor of full width.
        skip_channels = out.shape[-1] - self.residual_channels
        residual, skip = out.split([self.residual_channels, skip_channels], dim=-1)
        return x + residual, skip


class WN(nn.Module):
    """The stack: every layer is conditioned, and the skip outputs are summed.

    Args:
        residual_channels: R.
        skip_channels: S.
        kernel_size: Taps of each gate.
        dilations: One a layer.
        condition_channels: Channels of the condition.
    """

    def __init__(
        self,
        residual_channels: int,
        skip_channels: int,
        kernel_size: int,
        dilations: tuple[int, ...],
        condition_channels: int,
    ) -> None:
        super().__init__()
        self.condition = nn.Linear(condition_channels, len(dilations) * 2 * residual_channels)
        last = len(dilations) - 1
        self.layers = nn.ModuleList(
            ResidualLayer(residual_channels, skip_channels, kernel_size, dilation, i == last)
            for i, dilation in enumerate(dilations)
        )

    @property
    def receptive_field(self) -> int:
        """Inputs that one output sees, the current one included."""
        return 1 + sum(layer.gate.context for layer in self.layers)  # type: ignore[union-attr, misc]

    def forward(self, x: Tensor, condition: Tensor, upsampling: str) -> Tensor:
        """Run whole rows, from silence.

        Args:
            x: [batch, time, residual_channels].
            condition: [batch, 1 + frames, condition_channels] with the frame before the first, or
                [batch, time, condition_channels] where `upsampling` is "transposed".
            upsampling: As in `Condition.upsampling`.

        Returns:
            Summed skips, [batch, time, skip_channels].

        Raises:
            ShapeError: `time` is not a multiple of the frames.
        """
        rows = condition.shape[1] - (0 if upsampling == "transposed" else 1)
        if rows < 1 or x.shape[1] % rows:
            raise ShapeError(
                f"{x.shape[1]} samples cannot be conditioned on {rows} frames: expected a whole "
                f"number of samples a frame"
            )
        condition = self.condition(condition)
        layers = [layer for layer in self.layers if isinstance(layer, ResidualLayer)]
        if not why_not_natively(x, layers[0].gate.in_channels):
            return self.natively(layers, x, condition, upsampling)
        skip: Tensor | None = None
        for layer, own in zip(layers, condition.chunk(len(layers), dim=-1), strict=True):
            x, out = layer(x, own, upsampling)
            skip = out if skip is None else skip + out
        assert skip is not None
        return skip

    def natively(
        self, layers: list[ResidualLayer], x: Tensor, condition: Tensor, upsampling: str
    ) -> Tensor:
        """Give the summed skips by one function for all layers, whose gradient is another."""
        linear = upsampling == "linear"
        if upsampling == "nearest":
            condition = condition[:, 1:]
        hop_length = x.shape[1] // (condition.shape[1] - linear)
        dilations = tuple(layer.gate.spacing for layer in layers)
        shape = GatedShape(hop_length, linear, layers[0].gate.taps, dilations)
        gates, outs = [layer.gate for layer in layers], [layer.out for layer in layers]
        weights = [
            getattr(part, name)
            for parts in (gates, outs)
            for name in ("weight", "bias")
            for part in parts
        ]
        skip: Tensor = GatedStack.apply(shape, x, condition, *weights)
        return skip
