"""HiFi-GAN's generator: a mel goes in, and all of its audio comes out in one pass.

    mel [B, M, F] -> conv_pre -> for each rate: LeakyReLU -> transposed convolution -> mean of K
    residual blocks; LeakyReLU -> conv_post -> tanh -> audio [B, F * hop]

The K blocks after an upsampling hear the same rows through kernels of other lengths, so each
lags differently in a stream; `Flow.add` holds back the faster ones. Keys of the state dict are
those of the published models. The model is built plain; training attaches weight norm to it
(`nn/weight_norm/`).

Source: Kong et al. 2020, arXiv:2010.05646, section 2.2. As in the published code and not in the
paper, the last LeakyReLU has torch's own slope of 0.01, and the others 0.1. The published code also
means to draw weights from normal(0, 0.01); there weight norm, attached before, undoes that, so they
are torch's own here as there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.config import HiFiGANConfig
from wavewn.config.generators import Padding
from wavewn.nn.flow import Flow, Rows, mel_rows
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

SLOPE, LAST_SLOPE = 0.1, 0.01


def activate(x: Tensor) -> Tensor:
    """LeakyReLU of every layer but the last."""
    return F.leaky_relu(x, SLOPE)


class ResBlock1(nn.Module):
    """Residual pairs of a dilated and a plain convolution.

    Args:
        channels: Width.
        kernel_size: Taps of each convolution.
        dilations: One a pair.
        right: Rows ahead that each may see; 0 where the model is causal, None splits evenly.
        padding: What lies beyond the utterance.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilations: tuple[int, ...],
        right: int | None,
        padding: Padding,
    ) -> None:
        super().__init__()
        self.convs1, self.convs2 = (
            nn.ModuleList(
                PaddedConv1d(
                    channels, channels, kernel_size, dilation, right=right, padding=padding
                )
                for dilation in chosen
            )
            for chosen in (dilations, (1,) * len(dilations))
        )

    def forward(self, run: Flow, x: Rows) -> Rows:
        """Add to `x` what each pair finds in it."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = run.conv(dilated, x.map(activate))
            y = run.conv(plain, y.map(activate))
            x = run.add(y, x)
        return x


class ResBlock2(nn.Module):
    """Residual dilated convolutions; arguments as for `ResBlock1`."""

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilations: tuple[int, ...],
        right: int | None,
        padding: Padding,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            PaddedConv1d(channels, channels, kernel_size, dilation, right=right, padding=padding)
            for dilation in dilations
        )

    def forward(self, run: Flow, x: Rows) -> Rows:
        """Add to `x` what each convolution finds in it."""
        for conv in self.convs:
            x = run.add(run.conv(conv, x.map(activate)), x)
        return x


class HiFiGAN(nn.Module):
    """The network; how it is trained and run is other rooms' business.

    Args:
        settings: Sizes.
        n_mels: Mel bands.
    """

    noise_channels = 0

    def __init__(self, settings: HiFiGANConfig, n_mels: int) -> None:
        super().__init__()
        self.settings = settings
        self.n_mels = n_mels
        self.hop_length = settings.hop_length
        right = 0 if settings.causal else None
        padding = settings.padding
        width = settings.channels
        block = ResBlock1 if settings.resblock == "1" else ResBlock2
        self.conv_pre = PaddedConv1d(n_mels, width, 7, right=right, padding=padding)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, taps in zip(settings.upsample_rates, settings.upsample_kernel_sizes, strict=True):
            crop = 0 if settings.causal else None
            self.ups.append(UpsamplingConv1d(width, width // 2, taps, rate, crop=crop))
            width //= 2
            self.resblocks.extend(
                block(width, kernel_size, dilations, right, padding)
                for kernel_size, dilations in zip(
                    settings.resblock_kernel_sizes, settings.resblock_dilations, strict=True
                )
            )
        self.conv_post = PaddedConv1d(width, 1, 7, right=right, padding=padding)

    def flow(self, run: Flow, mel: Rows, noise: Rows | None = None) -> Rows:
        """Turn mel frames into one channel of audio; no noise is needed."""
        branches = len(self.settings.resblock_kernel_sizes)
        x = run.conv(self.conv_pre, mel)
        for index, up in enumerate(self.ups):
            x = run.upsample(up, x.map(activate))
            blocks = self.resblocks[index * branches : (index + 1) * branches]
            x = run.add(*(block(run, x) for block in blocks))
            x = x.map(lambda total: total / branches)
        x = run.conv(self.conv_post, x.map(lambda rows: F.leaky_relu(rows, LAST_SLOPE)))
        return x.map(torch.tanh)

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Turn a whole mel [batch, bands, frames] into audio [batch, frames * hop_length].

        Raises:
            ShapeError: Not three axes, another number of bands, or too few frames to reflect.
        """
        return self.flow(Flow(), mel_rows(mel, self.n_mels)).whole[:, 0]
