"""Causal convolution written as a matrix product over rows.

Inside the stack a signal is [batch, time, channels]: rows are frames, channels innermost, as in
`StreamState`. The taps of a frame are then one row of a matrix, and a dilated convolution is one
product of [batch * time, kernel_size * in_channels] with the weight. That trains several times
faster on a CPU than a convolution over [batch, channels, time], forward and backward.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.errors import ConfigError, ShapeError


class CausalConv1d(nn.Conv1d):
    """Dilated convolution whose output at time t has seen nothing after t.

    It reads `context = (kernel_size - 1) * dilation` rows to the left of the chunk. The layer
    itself remembers nothing: whoever streams passes the past in. The weight has torch's shape
    [out_channels, in_channels, kernel_size], oldest tap first.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Number of taps, at least 1.
        dilation: Distance between two taps in rows, at least 1.

    Raises:
        ConfigError: A size is below 1.

    Source:
        van den Oord et al. 2016, "WaveNet", section 2.1, arXiv:1609.03499.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1
    ) -> None:
        sizes = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "dilation": dilation,
        }
        for name, size in sizes.items():  # before torch, whose own message names no argument
            if size < 1:
                raise ConfigError(f"CausalConv1d.{name} must be at least 1, got {size}")
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)
        self.taps = kernel_size
        self.spacing = dilation

    @property
    def context(self) -> int:
        """Rows before the current one that an output sees."""
        return (self.taps - 1) * self.spacing

    def matrix(self) -> Tensor:
        """Return the weight as [out_channels, kernel_size * in_channels], oldest tap first."""
        return self.weight.permute(0, 2, 1).flatten(1)

    def forward(self, x: Tensor, history: Tensor | None = None) -> Tensor:
        """Filter one chunk.

        Args:
            x: [batch, time, in_channels], time >= 1.
            history: [batch, context, in_channels], the rows just before `x`, oldest first. None
                means zeros: the chunk starts the utterance.

        Returns:
            [batch, time, out_channels].

        Raises:
            ShapeError: `history` does not have the shape above.
        """
        expected = (x.shape[0], self.context, self.in_channels)
        if history is not None and history.shape != expected:
            raise ShapeError(
                f"history must be {list(expected)} [batch, context, channels], got "
                f"{list(history.shape)}; was the state made for another batch size?"
            )
        if self.taps == 1:
            return F.linear(x, self.weight[:, :, 0], self.bias)
        if history is None:
            padded = F.pad(x, (0, 0, self.context, 0))
        else:
            padded = torch.cat([history, x], dim=1)
        time = x.shape[1]
        starts = [tap * self.spacing for tap in range(self.taps)]
        rows = torch.cat([padded[:, start : start + time] for start in starts], dim=-1)
        return F.linear(rows, self.matrix(), self.bias)
