"""Generators that make all of the audio in one pass: what they have in common, and how one is made.

A generator is written once, as a function of rows (nn/flow.py), and then runs whole, in chunks, or
without numbers.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from torch import nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import (
    GeneratorConfig,
    HiFiGANConfig,
    MelGANConfig,
    ParallelWaveGANConfig,
    SmoothedWaveNetConfig,
    SpectralConfig,
)
from wavewn.errors import ConfigError
from wavewn.models.hifigan import HiFiGAN
from wavewn.models.melgan import MelGAN
from wavewn.models.parallel_wavegan import ParallelWaveGAN
from wavewn.models.smoothed_wavenet import SmoothedWaveNet
from wavewn.models.spectral import Spectral
from wavewn.nn.flow import Flow, Rows

M = TypeVar("M")


class Generator(Protocol):
    """An `nn.Module` that turns a mel, and noise where it is driven by noise, into audio.

    Attributes:
        settings: What it was made from.
        n_mels: Bands that it reads.
        hop_length: Samples a frame.
        noise_channels: Normal numbers a sample that drive it; 0 where none do.
    """

    settings: Any
    n_mels: int
    hop_length: int
    noise_channels: int

    def flow(self, run: Flow, mel: Rows, noise: Any) -> Rows:
        """Give the audio, one channel, that more rows determine; `noise` is Rows, or None."""

    def eval(self: M) -> M:
        """See `nn.Module.eval`."""

    def modules(self) -> Iterator[nn.Module]:
        """See `nn.Module.modules`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """See `nn.Module.parameters`."""

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """See `nn.Module.requires_grad_`."""


UPSAMPLING: dict[type, Callable[[Any, int], Generator]] = {
    HiFiGANConfig: HiFiGAN,
    MelGANConfig: MelGAN,
    ParallelWaveGANConfig: ParallelWaveGAN,
    SmoothedWaveNetConfig: SmoothedWaveNet,
}


def make_generator(settings: GeneratorConfig, mel: MelSpec) -> Generator:
    """Make the generator that these settings describe, with random weights.

    Raises:
        ConfigError: It does not go with the mel.
    """
    if isinstance(settings, SpectralConfig):
        return Spectral(settings, mel)
    if settings.hop_length != mel.hop_length:
        raise ConfigError(
            f"{settings.kind}: upsample_rates give {_short(settings.hop_length)} samples a frame, "
            f"the mel's hop_length is {mel.hop_length}; change one of them"
        )
    return UPSAMPLING[type(settings)](settings, mel.n_mels)


def _short(number: int) -> str:
    return str(number) if number < 10**9 else "over 10**9"
