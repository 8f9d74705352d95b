"""Discriminators: networks that tell recorded audio from generated audio while a vocoder trains.

Each sees the audio another way: folded by a period, at a lower rate, or as a spectrogram. All give
a map of scores, high where they hear a recording, and the feature maps of their layers, which
feature matching compares. They are built plain; the training attaches weight norm by
`apply_weight_norm`, which leaves the first scale alone: that one has spectral norm from the
start, as published. Keys below `mpd` and `msd` are those of the published HiFi-GAN.

On a CPU the way a layer is written decides its time. 2026-11-22, batch 12 x 12,800 in bfloat16
on one thread of a Zen 4 (AVX-512) that others shared: a period forward and back takes 36 ms as
2-D convolutions, channels last or not, and 18 ms as 1-D ones with the phases in the batch. A
spectrogram of one channel spends 9 of its 17 ms in the first layer; eight bins taken as channels
give 2.4 times the parameters in the same time. Feature maps whose channels lie last must be
compared in that order: four times as fast. In all the light discriminators take 0.25 s a step to
learn from recordings and copies, and 0.17 s to tell the generator.

Source: Kong et al. 2020, "HiFi-GAN", section 2.3, arXiv:2010.05646 (periods, scales); Jang et al.
2021, "UnivNet", arXiv:2106.07889 (spectrograms).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from wavewn.audio.companding import pre_emphasis
from wavewn.config import DiscriminatorsConfig
from wavewn.errors import ShapeError
from wavewn.nn.spectrum import spectrum
from wavewn.nn.strided import strided_conv

SLOPE = 0.1  # of every leaky rectifier
FOLD = 8  # bins of a spectrogram that its first layer takes together
PRE_EMPHASIS = 0.97
GAIN = 20.0  # brings the pre-emphasised spectrum of speech near one


class Judgement(NamedTuple):
    """What one discriminator thinks of a batch.

    Attributes:
        scores: [batch, scores]; high means recorded.
        features: One map a layer, the first layer's first and the map of scores last; the first
            axis is the batch, or batch * period.
    """

    scores: Tensor
    features: list[Tensor]


class PhaseConv(nn.Conv2d):
    """A 2-D convolution of kernel [taps, 1], as published, that runs as a 1-D one.

    Its input is [batch * period, time / period, channels]: the phases lie in the batch. In bfloat16
    on a CPU that is up to twice as fast as [batch, channels, time / period, period].
    """

    def __init__(self, in_channels: int, out_channels: int, taps: int, stride: int = 1) -> None:
        padding = (taps // 2, 0)
        super().__init__(in_channels, out_channels, (taps, 1), (stride, 1), padding)
        self.step, self.margin = stride, taps // 2

    def forward(self, x: Tensor) -> Tensor:
        """Filter [rows, time, in_channels]."""
        return strided_conv(x, self.weight[..., 0], self.bias, self.step, self.margin)


class WaveConv(nn.Conv1d):
    """A strided, grouped convolution; its zeros keep the number of rows but for the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, taps: int, stride: int = 1, groups: int = 1
    ) -> None:
        margin = taps // 2
        super().__init__(in_channels, out_channels, taps, stride, margin, groups=groups)
        self.step, self.margin = stride, margin

    def forward(self, x: Tensor) -> Tensor:
        """Filter [batch, time, in_channels]."""
        return strided_conv(x, self.weight, self.bias, self.step, self.margin, self.groups)


class PeriodDiscriminator(nn.Module):
    """Filters along time in each of `period` phases of the audio, which share the weights."""

    def __init__(self, period: int, channels: int, max_channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(min(channels * 4**i, max_channels) for i in range(4))]
        pairs = zip(widths, widths[1:], strict=False)
        self.convs = nn.ModuleList(PhaseConv(*pair, 5, stride=3) for pair in pairs)
        self.convs.append(PhaseConv(widths[-1], widths[-1], 5))
        self.conv_post = PhaseConv(widths[-1], 1, 3)

    def forward(self, audio: Tensor) -> Judgement:
        """Judge audio [batch, samples]; its end is reflected up to a whole period."""
        batch, samples = audio.shape
        x = F.pad(audio.unsqueeze(1), (0, -samples % self.period), mode="reflect")
        x = x.reshape(batch, -1, self.period).transpose(1, 2).reshape(batch * self.period, -1, 1)
        return _judged(self.convs, self.conv_post, x, batch)


class ScaleDiscriminator(nn.Module):
    """Filters the waveform by strided, grouped convolutions with long kernels."""

    def __init__(self, channels: int, max_channels: int) -> None:
        super().__init__()
        first, second, third, wide = (min(channels * n, max_channels) for n in (4, 8, 16, 32))
        self.convs = nn.ModuleList(
            [
                WaveConv(1, first, 15),
                WaveConv(first, first, 41, 2, groups=4),
                WaveConv(first, second, 41, 2, groups=16),
                WaveConv(second, third, 41, 4, groups=16),
                WaveConv(third, wide, 41, 4, groups=16),
                WaveConv(wide, wide, 41, 1, groups=16),
                WaveConv(wide, wide, 5),
            ]
        )
        self.conv_post = WaveConv(wide, 1, 3)

    def forward(self, audio: Tensor) -> Judgement:
        """Judge audio [batch, 1, samples]."""
        return _judged(self.convs, self.conv_post, audio.transpose(1, 2), len(audio))


class ResolutionDiscriminator(nn.Module):
    """Filters one complex spectrogram in time and frequency.

    The audio is pre-emphasised first, or the high bands of speech would be too faint to count.
    Eight neighbouring bins, real and imaginary parts, are the channels of the first layer, whose
    3 x 3 kernel so sees 24 bins: a layer of one channel would cost more than all the others.
    The bin at half the sample rate is left out.

    Source: Defossez et al. 2022, "High Fidelity Neural Audio Compression", section 3.4,
        arXiv:2210.13438, for complex input; Jang et al. 2021, "UnivNet",
        arXiv:2106.07889, for several resolutions. Departs from both in its sizes.
    """

    window: Tensor

    def __init__(self, resolution: tuple[int, int, int], channels: int, max_channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length, win_length = resolution
        window = torch.hann_window(win_length)
        self.register_buffer("window", window * (GAIN / window.norm()), persistent=False)
        first, wide, wider = (min(channels * n, max_channels) for n in (2, 4, 8))
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(2 * FOLD, first, (3, 3), padding=1),
                nn.Conv2d(first, wide, (3, 3), (1, 2), padding=1),
                nn.Conv2d(wide, wider, (3, 3), (2, 2), padding=1),
                nn.Conv2d(wider, wider, (3, 3), (1, 2), padding=1),
            ]
        )
        self.conv_post = nn.Conv2d(wider, 1, (3, 3), padding=1)

    def forward(self, audio: Tensor) -> Judgement:
        """Judge audio [batch, samples], longer than half the transform."""
        x, features = self.folded(audio), []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            features.append(x.permute(0, 2, 3, 1))  # as it lies in memory: see the module
        x = self.conv_post(x)
        features.append(x.permute(0, 2, 3, 1))
        return Judgement(x.flatten(1), features)

    def folded(self, audio: Tensor) -> Tensor:
        """Return [batch, 2 * FOLD, frames, bins / FOLD] in float32, channels last in memory."""
        with torch.autocast(audio.device.type, enabled=False):
            emphasised = pre_emphasis(audio.float(), PRE_EMPHASIS)
            bins = spectrum(emphasised, self.n_fft, self.hop_length, self.window)[..., :-1]
            rows = torch.view_as_real(bins).unflatten(2, (-1, FOLD)).flatten(3)
            return rows.permute(0, 3, 1, 2)


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` for each period."""

    def __init__(self, settings: DiscriminatorsConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            PeriodDiscriminator(period, settings.channels, settings.max_channels)
            for period in settings.periods
        )

    def forward(self, audio: Tensor) -> list[Judgement]:
        """Judge audio [batch, samples], one judgement a period."""
        return [one(audio) for one in self.discriminators]


class MultiScaleDiscriminator(nn.Module):
    """One `ScaleDiscriminator` for each scale; the rate halves from one to the next."""

    def __init__(self, settings: DiscriminatorsConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ScaleDiscriminator(settings.channels, settings.max_channels)
            for _ in range(settings.scales)
        )
        for module in list(self.discriminators[:1].modules()):
            if isinstance(module, nn.Conv1d):
                spectral_norm(module)

    def forward(self, audio: Tensor) -> list[Judgement]:
        """Judge audio [batch, samples], one judgement a scale."""
        x, judgements = audio.unsqueeze(1), []
        for scale, one in enumerate(self.discriminators):
            x = F.avg_pool1d(x, 4, 2, padding=2) if scale else x
            judgements.append(one(x))
        return judgements


class MultiResolutionDiscriminator(nn.Module):
    """One `ResolutionDiscriminator` for each spectrogram."""

    def __init__(self, settings: DiscriminatorsConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ResolutionDiscriminator(resolution, settings.channels, settings.max_channels)
            for resolution in settings.resolutions
        )

    def forward(self, audio: Tensor) -> list[Judgement]:
        """Judge audio [batch, samples], one judgement a resolution."""
        return [one(audio) for one in self.discriminators]


class Discriminators(nn.Module):
    """All discriminators of a training: periods first, then scales, then spectrograms."""

    def __init__(self, settings: DiscriminatorsConfig) -> None:
        super().__init__()
        self.settings = settings
        self.mpd = MultiPeriodDiscriminator(settings)
        self.msd = MultiScaleDiscriminator(settings)
        self.mrd = MultiResolutionDiscriminator(settings)

    def forward(self, audio: Tensor) -> list[Judgement]:
        """Judge audio.

        Args:
            audio: [batch, samples].

        Returns:
            One judgement a discriminator, always in the same order.

        Raises:
            ShapeError: The audio has another number of axes.
        """
        if audio.ndim != 2:
            raise ShapeError(f"audio must be [batch, samples], got {list(audio.shape)}")
        return [*self.mpd(audio), *self.msd(audio), *self.mrd(audio)]


def _judged(convs: nn.ModuleList, conv_post: nn.Module, x: Tensor, batch: int) -> Judgement:
    """Run rows [.., time, channels] through layers; features are [.., channels, time]."""
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x.transpose(1, 2))
    x = conv_post(x)
    features.append(x.transpose(1, 2))
    return Judgement(x.reshape(batch, -1), features)
