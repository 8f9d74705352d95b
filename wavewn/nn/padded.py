"""Convolutions that know what they see beyond the ends of an utterance, and when.

Signals are [batch, channels, rows]. A `PaddedConv1d` gives as many rows as it gets; an
`UpsamplingConv1d` gives `stride` times as many. Each says which of its outputs a number of inputs
determines (`determined`), so that `Flow` can run it in chunks; each computes in the type of its
own weights.
"""

import torch
from torch import Tensor, nn

from wavewn.config.generators import Padding
from wavewn.errors import ConfigError
from wavewn.nn.layout import conv1d, conv_transpose1d, pad


class PaddedConv1d(nn.Conv1d):
    """Dilated convolution of as many rows out as in.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Number of taps, at least 1.
        dilation: Distance between two taps in rows.
        right: Rows after the current one that it sees; 0 makes it causal, None splits its context
            evenly.
        padding: What the rows outside the utterance hold.

    Raises:
        ConfigError: `right` is more than the context, the context cannot be split evenly, or it
            all lies ahead and is to be reflected.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        *,
        right: int | None = None,
        padding: Padding = "zeros",
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, bias=bias)
        context = (kernel_size - 1) * dilation
        if right is None and context % 2:
            raise ConfigError(
                f"{kernel_size} taps {dilation} rows apart cannot be centred; take an odd number"
            )
        self.right = context // 2 if right is None else right
        if not 0 <= self.right <= context:
            raise ConfigError(f"a convolution over {context} rows more cannot see {right} ahead")
        self.left = context - self.right
        if padding == "reflect" and self.right and not self.left:
            raise ConfigError(
                "a convolution that sees ahead only cannot pad by reflection: a stream would have "
                "forgotten what the end mirrors; take zeros or replicate"
            )
        self.padding_mode_name: Padding = padding

    @property
    def shortest(self) -> int:
        """Rows that an utterance must have for the padding to exist."""
        if self.padding_mode_name == "reflect":
            return max(self.left, self.right) + 1
        return 1 if self.padding_mode_name == "replicate" else 0

    def determined(self, rows: int, ended: bool) -> int:
        """Outputs that the first `rows` inputs determine."""
        if ended:
            return rows
        ready = self.padding_mode_name != "reflect" or rows > self.left
        return max(rows - self.right, 0) if ready else 0

    def nothing(self, x: Tensor) -> Tensor:
        """Give no rows, of the type and width of an output."""
        return x.new_zeros(x.shape[0], self.out_channels, 0, dtype=self.weight.dtype)

    def forward(self, x: Tensor, left: int | None = None, right: int | None = None) -> Tensor:  # type: ignore[override]
        """Filter a stretch.

        Args:
            x: [batch, in_channels, rows].
            left: Rows of padding before it; None is all of them: the utterance begins with it.
            right: Rows of padding after it; None likewise: the utterance ends with it.

        Returns:
            [batch, out_channels, rows that the padded stretch determines], at least one.
        """
        pads = (self.left if left is None else left, self.right if right is None else right)
        return self.filter(pad(x, *pads, self.padding_mode_name))

    def filter(self, x: Tensor) -> Tensor:
        """Filter what is padded already."""
        return conv1d(x.to(self.weight.dtype), self.weight, self.bias, self.dilation[0])


class UpsamplingConv1d(nn.ConvTranspose1d):
    """Transposed convolution of exactly `stride` rows out for each row in.

    Output row j sums input i times tap j + crop - i * stride; beyond the utterance inputs are zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Number of taps, at least `stride`.
        stride: Rows out for each row in.
        crop: Rows dropped before the first; 0 makes it causal, None centres the kernel.

    Raises:
        ConfigError: The kernel is shorter than the stride, or `crop` drops more than overlaps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        crop: int | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)
        surplus = kernel_size - stride
        if surplus < 0:
            raise ConfigError(f"a kernel of {kernel_size} taps leaves holes at stride {stride}")
        self.crop = (surplus + 1) // 2 if crop is None else crop
        if not 0 <= self.crop <= surplus:
            raise ConfigError(f"crop must lie in 0 to {surplus}, got {crop}")
        self.rate, self.taps = stride, kernel_size

    @property
    def reach(self) -> int:
        """Inputs before the current one that an output sees."""
        return (self.taps - 1) // self.rate

    def determined(self, rows: int, ended: bool) -> int:
        """Outputs that the first `rows` inputs determine."""
        return rows * self.rate if ended else max(rows * self.rate - self.crop, 0)

    def oldest_input(self, output: int) -> int:
        """Number of the first input that an output sees."""
        return max(-((self.taps - 1 - output - self.crop) // self.rate), 0)

    def nothing(self, x: Tensor) -> Tensor:
        """Give no rows, of the type and width of an output."""
        return x.new_zeros(x.shape[0], self.out_channels, 0, dtype=self.weight.dtype)

    def forward(self, x: Tensor, begin: int | None = None, rows: int | None = None) -> Tensor:  # type: ignore[override]
        """Upsample a stretch.

        Args:
            x: [batch, in_channels, rows].
            begin: First output to give, counted from the first that `x` reaches; None where the
                utterance begins with `x`.
            rows: Outputs to give; None is `stride` for each row of `x`.

        Returns:
            [batch, out_channels, rows].
        """
        begin = self.crop if begin is None else begin
        rows = x.shape[2] * self.rate if rows is None else rows
        y = conv_transpose1d(x.to(self.weight.dtype), self.weight, self.bias, self.rate)
        return y[:, :, begin : begin + rows]


class PreciseConv1d(PaddedConv1d):
    """A convolution whose float32 results do not depend on how its input was cut.

    It sums in float64 and rounds at the end: sums of another order differ after the rounding once
    in a hundred million. For what is integrated over time, where any difference would grow. It is
    a product of matrices, because ONNX Runtime has no convolution in float64.
    """

    def filter(self, x: Tensor) -> Tensor:
        """See `PaddedConv1d.filter`."""
        rows = x.shape[2] - (self.kernel_size[0] - 1) * self.dilation[0]
        with torch.autocast(x.device.type, enabled=False):
            starts = range(0, x.shape[2] - rows + 1, self.dilation[0])
            seen = torch.cat([x[:, :, start : start + rows] for start in starts], dim=1)
            y = self.weight.double().transpose(1, 2).flatten(1) @ seen.double()
            return (y if self.bias is None else y + self.bias.double()[:, None]).float()
