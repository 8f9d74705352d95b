"""Parallel WaveGAN's generator: a WaveNet that turns noise into speech in one pass.

    mel [B, M, F] -> conv_in -> for each rate: repeat -> smooth --- condition [B, M, F * hop] ---+
                                                                                                v
    noise [B, 1, F * hop] -> first_conv -> 30 gated layers -> skips -> ReLU -> 1x1 -> ReLU -> 1x1

A layer with dilation d is WaveNet's, with its residual sum scaled so that its variance stays:

    a    = conv(x; d) + conv1x1_aux(condition)
    z    = tanh(first half of a) * sigmoid(second half)
    x    = (x + conv1x1_out(z)) / sqrt(2)
    skip = skip + conv1x1_skip(z)

With nn/wn.py it shares the gate. The stack itself differs in what matters there: WaveNet's looks
back only, takes its condition at frame rate, and is what the engines of engine/ reproduce number
by number; here a layer may look ahead, so that in a stream it lags, and `Flow.align` holds back
what is to meet its output: the residual, the condition and the skips.

Keys of the state dict are those of the published checkpoints. As in nn/wn.py, the last layer has
no residual output, which nobody would hear; the `conv1x1_out` of published ones is left out.

Source: Yamamoto et al. 2020, arXiv:1910.11480, sections 2.1 and 3.2; layers, upsampling and initial
values as in the implementation that the published checkpoints come from.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.config import ParallelWaveGANConfig
from wavewn.config.generators import Padding
from wavewn.errors import ShapeError
from wavewn.nn.flow import Flow, Rows, mel_rows
from wavewn.nn.padded import PaddedConv1d
from wavewn.nn.wn import gated_activation

HALF = math.sqrt(0.5)


class Smoothing(PaddedConv1d):
    """One filter over time for all channels: a 2-D convolution with one channel.

    Args:
        channels: Of the rows.
        rate: Repetitions of each row that it smooths; it spans two of them and a row.
        right: Rows ahead that it may see; 0 where the model is causal, None splits evenly.
        padding: What lies beyond the utterance.
    """

    def __init__(self, channels: int, rate: int, right: int | None, padding: Padding) -> None:
        super().__init__(1, 1, 2 * rate + 1, right=right, padding=padding, bias=False)
        self.in_channels = self.out_channels = channels
        taps = self.weight.shape[2]
        self.weight = nn.Parameter(torch.full((1, 1, 1, taps), 1 / taps))

    def filter(self, x: Tensor) -> Tensor:
        """See `PaddedConv1d.filter`."""
        return F.conv2d(x[:, None].to(self.weight.dtype), self.weight)[:, 0]


class Upsampling(nn.Module):
    """Repeats rows and smooths them, rate by rate.

    Args:
        channels: Of the rows.
        rates: Their product is the hop length.
        right: As in `Smoothing`.
        padding: As in `Smoothing`.
    """

    def __init__(
        self, channels: int, rates: tuple[int, ...], right: int | None, padding: Padding
    ) -> None:
        super().__init__()
        self.rates = rates
        self.up_layers = nn.ModuleDict(  # between them the published models count the repetitions
            {
                str(2 * i + 1): Smoothing(channels, rate, right, padding)
                for i, rate in enumerate(rates)
            }
        )

    def forward(self, run: Flow, x: Rows) -> Rows:
        """Give as many rows for each as the product of the rates."""
        for rate, smoothing in zip(self.rates, self.up_layers.values(), strict=True):
            x = run.conv(smoothing, x.repeat(rate))
        return x


class ConditionNetwork(nn.Module):
    """A convolution over mel frames, and upsampling.

    Whatever the padding of the other layers, this convolution sees the first and the last frame
    repeated, like the published models in synthesis.
    """

    def __init__(self, settings: ParallelWaveGANConfig, n_mels: int) -> None:
        super().__init__()
        ahead = 0 if settings.causal else settings.condition_context
        taps = settings.condition_context + 1 + ahead
        self.conv_in = PaddedConv1d(
            n_mels, n_mels, taps, right=ahead, padding="replicate", bias=False
        )
        right = 0 if settings.causal else None
        self.upsample = Upsampling(n_mels, settings.upsample_rates, right, settings.padding)

    def forward(self, run: Flow, mel: Rows) -> Rows:
        """Give a condition for each sample."""
        return self.upsample(run, run.conv(self.conv_in, mel))


class Layer(nn.Module):
    """One layer of the stack; its equations stand in the module docstring.

    Args:
        settings: Sizes.
        n_mels: Channels of the condition.
        dilation: Distance between taps.
        last: The layer has no residual output.
    """

    def __init__(
        self, settings: ParallelWaveGANConfig, n_mels: int, dilation: int, last: bool
    ) -> None:
        super().__init__()
        width, gates = settings.residual_channels, settings.gate_channels
        self.conv = PaddedConv1d(
            width,
            gates,
            settings.kernel_size,
            dilation,
            right=0 if settings.causal else None,
            padding=settings.padding,
        )
        self.conv1x1_aux = PaddedConv1d(n_mels, gates, 1, bias=False)
        self.conv1x1_out = None if last else PaddedConv1d(gates // 2, width, 1)
        self.conv1x1_skip = PaddedConv1d(gates // 2, settings.skip_channels, 1)

    def forward(
        self, run: Flow, x: Rows, condition: Rows, skip: Rows | None
    ) -> tuple[Rows, Rows, Rows]:
        """Give the next residual, the condition, and the skips up to here, as far as they go."""
        a = run.conv(self.conv, x)
        held = (a, x, condition) if skip is None else (a, x, condition, skip)
        a, x, condition, *skips = run.align(*held)
        z = run.add(a, run.conv(self.conv1x1_aux, condition))
        z = z.map(lambda rows: gated_activation(rows, dim=1), z.channels // 2)
        if self.conv1x1_out is not None:
            x = run.add(x, run.conv(self.conv1x1_out, z)).map(lambda rows: rows * HALF)
        return x, condition, run.add(*skips, run.conv(self.conv1x1_skip, z))


class ParallelWaveGAN(nn.Module):
    """The network; how it is trained and run is other rooms' business.

    Args:
        settings: Sizes.
        n_mels: Mel bands.
    """

    noise_channels = 1

    def __init__(self, settings: ParallelWaveGANConfig, n_mels: int) -> None:
        super().__init__()
        self.settings = settings
        self.n_mels = n_mels
        self.hop_length = settings.hop_length
        self.first_conv = PaddedConv1d(1, settings.residual_channels, 1)
        self.upsample_net = ConditionNetwork(settings, n_mels)
        last = len(settings.dilations) - 1
        self.conv_layers = nn.ModuleList(
            Layer(settings, n_mels, dilation, i == last)
            for i, dilation in enumerate(settings.dilations)
        )
        width = settings.skip_channels
        self.last_conv_layers = nn.ModuleDict(  # 0 and 2 are ReLU
            {"1": PaddedConv1d(width, width, 1), "3": PaddedConv1d(width, 1, 1)}
        )
        for layer in self.modules():
            if isinstance(layer, PaddedConv1d) and not isinstance(layer, Smoothing):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def flow(self, run: Flow, mel: Rows, noise: Rows) -> Rows:
        """Turn noise into one channel of audio, as the mel says."""
        z, condition = run.align(noise, self.upsample_net(run, mel))
        x = run.conv(self.first_conv, z)
        skip: Rows | None = None
        for layer in self.conv_layers:
            x, condition, skip = layer(run, x, condition, skip)
        assert skip is not None, "settings have at least one layer"
        x = skip.map(lambda rows: rows * math.sqrt(1 / len(self.conv_layers)))
        for layer in self.last_conv_layers.values():
            x = run.conv(layer, x.map(F.relu))
        return x

    def forward(self, mel: Tensor, noise: Tensor | None) -> Tensor:
        """Turn a whole mel into audio.

        Args:
            mel: [batch, bands, frames].
            noise: [batch, 1, frames * hop_length], normal.

        Returns:
            [batch, frames * hop_length].

        Raises:
            ShapeError: Noise and mel do not have these shapes, or too few frames to reflect.
        """
        frames = mel_rows(mel, self.n_mels)
        expected = (mel.shape[0], 1, frames.end * self.hop_length)
        if noise is None or noise.shape != expected:
            raise ShapeError(
                f"noise must be {list(expected)} [batch, 1, frames * hop_length], got "
                f"{None if noise is None else list(noise.shape)}"
            )
        return self.flow(Flow(), frames, Rows.of(noise)).whole[:, 0]
