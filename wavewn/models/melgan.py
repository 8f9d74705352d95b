"""MelGAN's generator: a mel goes in, and all of its audio comes out in one pass.

    mel [B, M, F] -> conv_pre -> for each rate: LeakyReLU -> transposed convolution -> residual
    stacks; LeakyReLU -> conv_post -> tanh -> audio [B, F * hop]

A stack adds a dilated convolution to a pointwise one of the same rows. The i-th of an upsampling
dilates by kernel_size ** i, so that together they see every row of their context once. The model is
built plain; training attaches weight norm to it (`nn/weight_norm/`).

Source: Kumar et al. 2019, arXiv:1910.06711, section 2.1 and figure 1; the kernels are twice the
rates, which is said in appendix A. Weights start as in the authors' code, from normal(0, 0.02).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.config import MelGANConfig
from wavewn.config.generators import Padding
from wavewn.nn.flow import Flow, Rows, mel_rows
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

SLOPE = 0.2
INITIAL_STD = 0.02


def activate(x: Tensor) -> Tensor:
    """LeakyReLU of every layer."""
    return F.leaky_relu(x, SLOPE)


class ResidualStack(nn.Module):
    """A dilated convolution, mixed by a pointwise one, beside a pointwise one.

    Args:
        channels: Width.
        kernel_size: Taps of the dilated convolution.
        dilation: Rows between two of them.
        right: Rows ahead that it may see; 0 where the model is causal, None splits evenly.
        padding: What lies beyond the utterance.
    """

    def __init__(
        self, channels: int, kernel_size: int, dilation: int, right: int | None, padding: Padding
    ) -> None:
        super().__init__()
        self.dilated = PaddedConv1d(
            channels, channels, kernel_size, dilation, right=right, padding=padding
        )
        self.mixed = PaddedConv1d(channels, channels, 1)
        self.skip = PaddedConv1d(channels, channels, 1)

    def forward(self, run: Flow, x: Rows) -> Rows:
        """Give rows of the same width."""
        y = run.conv(self.dilated, x.map(activate))
        return run.add(run.conv(self.mixed, y.map(activate)), run.conv(self.skip, x))


class MelGAN(nn.Module):
    """The network; how it is trained and run is other rooms' business.

    Args:
        settings: Sizes.
        n_mels: Mel bands.
    """

    noise_channels = 0

    def __init__(self, settings: MelGANConfig, n_mels: int) -> None:
        super().__init__()
        self.settings = settings
        self.n_mels = n_mels
        self.hop_length = settings.hop_length
        right = crop = 0 if settings.causal else None
        taps, padding, width = settings.kernel_size, settings.padding, settings.channels
        self.conv_pre = PaddedConv1d(n_mels, width, taps, right=right, padding=padding)
        self.ups, self.stacks = nn.ModuleList(), nn.ModuleList()
        for rate in settings.upsample_rates:
            self.ups.append(UpsamplingConv1d(width, width // 2, 2 * rate, rate, crop=crop))
            width //= 2
            taps_of_stack = settings.stack_kernel_size
            self.stacks.extend(
                ResidualStack(width, taps_of_stack, taps_of_stack**index, right, padding)
                for index in range(settings.stacks)
            )
        self.conv_post = PaddedConv1d(width, 1, taps, right=right, padding=padding)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
                nn.init.normal_(layer.weight, 0.0, INITIAL_STD)

    def flow(self, run: Flow, mel: Rows, noise: Rows | None = None) -> Rows:
        """Turn mel frames into one channel of audio; no noise is needed."""
        count = self.settings.stacks
        x = run.conv(self.conv_pre, mel)
        for index, up in enumerate(self.ups):
            x = run.upsample(up, x.map(activate))
            for stack in self.stacks[index * count : (index + 1) * count]:
                x = stack(run, x)
        return run.conv(self.conv_post, x.map(activate)).map(torch.tanh)

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Turn a whole mel [batch, bands, frames] into audio [batch, frames * hop_length].

        Raises:
            ShapeError: Not three axes, another number of bands, or too few frames to reflect.
        """
        return self.flow(Flow(), mel_rows(mel, self.n_mels)).whole[:, 0]
