"""Settings of the one-pass generators: a mel goes in, and all of its audio comes out at once.

`causal` makes every layer look back only; a non-causal model streams with a latency. `padding` is
what the layers see beyond the utterance's ends.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from wavewn.config.checks import check_at_least
from wavewn.errors import ConfigError

Padding = Literal["zeros", "reflect", "replicate"]


def check_padding(owner: "HiFiGANConfig | MelGANConfig | ParallelWaveGANConfig") -> None:
    """Refuse a padding that is unknown, and one that a causal model cannot have."""
    name = type(owner).__name__
    if owner.padding not in ("zeros", "reflect", "replicate"):
        raise ConfigError(
            f"{name}.padding must be zeros, reflect or replicate, got {owner.padding!r}"
        )
    if owner.causal and owner.padding == "reflect":
        raise ConfigError(
            f"{name}: a causal model cannot pad by reflection: the rows before the first would be "
            "those after it, which a stream has not heard yet; take zeros or replicate"
        )


def _check_upsampling(owner: "HiFiGANConfig | MelGANConfig") -> None:
    check_padding(owner)
    name = type(owner).__name__
    if not owner.upsample_rates:
        raise ConfigError(f"{name}.upsample_rates must name at least one rate")
    if min(owner.upsample_rates) < 2:
        raise ConfigError(f"{name}.upsample_rates must be 2 or more, got {owner.upsample_rates}")
    if owner.channels % 2 ** len(owner.upsample_rates):
        raise ConfigError(
            f"{name}.channels is {owner.channels}, but each of {len(owner.upsample_rates)} "
            "upsamplings halves it; take a multiple of "
            f"{2 ** len(owner.upsample_rates)}"
        )


@dataclass(frozen=True)
class HiFiGANConfig:
    """HiFi-GAN's generator. The defaults are V1's; `presets.py` has the others.

    Attributes:
        channels: Width before the first upsampling; each halves it.
        upsample_rates: Their product is the hop length of the mel.
        upsample_kernel_sizes: One a rate, at least as long as it.
        resblock: "1" has two convolutions a dilation, "2" one.
        resblock_kernel_sizes: One a parallel branch, odd.
        resblock_dilations: One tuple a branch.
        causal: Whether all layers look back only.
        padding: What lies beyond the ends of the utterance.

    Source: Kong et al. 2020, arXiv:2010.05646, section 2.2 and appendix A.1.
    """

    kind: Literal["hifigan"] = field(default="hifigan", kw_only=True)
    channels: int = 512
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    resblock: Literal["1", "2"] = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    causal: bool = False
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "channels")
        _check_upsampling(self)
        if self.resblock not in ("1", "2"):
            raise ConfigError(f'HiFiGANConfig.resblock must be "1" or "2", got {self.resblock!r}')
        kernels = self.upsample_kernel_sizes
        if len(kernels) != len(self.upsample_rates) or any(
            kernel < rate for kernel, rate in zip(kernels, self.upsample_rates, strict=False)
        ):
            raise ConfigError(
                "HiFiGANConfig.upsample_kernel_sizes must have one kernel for each of the rates "
                f"{self.upsample_rates}, at least as long as it, got {kernels}"
            )
        taps, dilations = self.resblock_kernel_sizes, self.resblock_dilations
        if not taps or any(k < 1 or k % 2 == 0 for k in taps):
            raise ConfigError(
                f"HiFiGANConfig.resblock_kernel_sizes must be odd numbers, got {taps}"
            )
        if len(dilations) != len(taps) or any(not d or min(d) < 1 for d in dilations):
            raise ConfigError(
                "HiFiGANConfig.resblock_dilations must have one list of dilations for each of "
                f"{len(taps)} kernels, got {dilations}"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.upsample_rates)


@dataclass(frozen=True)
class MelGANConfig:
    """MelGAN's generator.

    Attributes:
        channels: Width before the first upsampling; each halves it.
        upsample_rates: Their product is the hop length of the mel.
        stacks: Residual layers after each upsampling; the i-th dilates by kernel_size ** i.
        stack_kernel_size: Taps of these, odd.
        kernel_size: Taps of the first and the last convolution, odd.
        causal: Whether all layers look back only.
        padding: What lies beyond the ends of the utterance.

    Source: Kumar et al. 2019, arXiv:1910.06711, section 2.1.
    """

    kind: Literal["melgan"] = field(default="melgan", kw_only=True)
    channels: int = 512
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    stacks: int = 3
    stack_kernel_size: int = 3
    kernel_size: int = 7
    causal: bool = False
    padding: Padding = "reflect"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "channels", "stacks", "stack_kernel_size", "kernel_size")
        _check_upsampling(self)
        for name in ("stack_kernel_size", "kernel_size"):
            if getattr(self, name) % 2 == 0:
                raise ConfigError(f"MelGANConfig.{name} must be odd, got {getattr(self, name)}")

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.upsample_rates)


@dataclass(frozen=True)
class ParallelWaveGANConfig:
    """Parallel WaveGAN's generator: a WaveNet that turns noise into speech in one pass.

    Attributes:
        residual_channels: Width of the residual stream.
        gate_channels: Width before the gates, even.
        skip_channels: Width of the summed skip outputs.
        kernel_size: Taps of each dilated convolution.
        cycles: How often the dilations 1, 2, 4, ... repeat.
        layers_per_cycle: Layers in a cycle.
        condition_context: Mel frames that the first convolution sees on either side (before
            only, where causal).
        upsample_rates: Their product is the hop length of the mel.
        causal: Whether all layers look back only.
        padding: What lies beyond the ends of the utterance.

    Source: Yamamoto et al. 2020, arXiv:1910.11480, sections 2.1 and 3.2.
    """

    kind: Literal["parallel-wavegan"] = field(default="parallel-wavegan", kw_only=True)
    residual_channels: int = 64
    gate_channels: int = 128
    skip_channels: int = 64
    kernel_size: int = 3
    cycles: int = 3
    layers_per_cycle: int = 10
    condition_context: int = 2
    upsample_rates: tuple[int, ...] = (4, 4, 4, 4)
    causal: bool = False
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        names = ("residual_channels", "gate_channels", "skip_channels", "kernel_size", "cycles")
        check_at_least(self, 1, *names, "layers_per_cycle")
        check_at_least(self, 0, "condition_context")
        check_padding(self)
        if self.gate_channels % 2:
            raise ConfigError(
                f"ParallelWaveGANConfig.gate_channels must be even, got {self.gate_channels}"
            )
        if not self.causal and self.kernel_size % 2 == 0:
            raise ConfigError(
                "ParallelWaveGANConfig.kernel_size must be odd where the model is not causal, "
                f"got {self.kernel_size}"
            )
        if not self.upsample_rates or min(self.upsample_rates) < 1:
            raise ConfigError(
                "ParallelWaveGANConfig.upsample_rates must be whole numbers from 1 on, got "
                f"{self.upsample_rates}"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.upsample_rates)

    @property
    def dilations(self) -> tuple[int, ...]:
        """Distance between two taps of each layer, in samples."""
        return tuple(2**i for i in range(self.layers_per_cycle)) * self.cycles


@dataclass(frozen=True)
class SpectralConfig:
    """A small model at frame rate with an inverse STFT at its end (models/spectral.py).

    Attributes:
        channels: Width of the residual stream.
        hidden_channels: Width of a block's gate.
        kernel_size: Taps of each block's dilated convolution.
        dilations: One a block.
        look_ahead: Mel frames after the current one that a frame's spectra see.
        subframes: Spectra a mel frame.
        n_fft: Length of their windows: four times the hop of a sub-frame.
        levellings: How often the audio is made to have the mel that was stated; each adds some 40
            ms of latency. A training does it once.
    """

    kind: Literal["spectral"] = field(default="spectral", kw_only=True)
    channels: int = 128
    hidden_channels: int = 128
    kernel_size: int = 3
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    look_ahead: int = 4
    subframes: int = 2
    n_fft: int = 400
    levellings: int = 2

    def __post_init__(self) -> None:
        names = ("channels", "hidden_channels", "kernel_size", "subframes", "n_fft")
        check_at_least(self, 1, *names)
        check_at_least(self, 0, "look_ahead", "levellings")
        if self.levellings > 16:
            raise ConfigError(
                f"SpectralConfig.levellings is {self.levellings}: from the fifth on nothing is "
                "gained, and more than 16 are refused"
            )
        if not self.dilations or min(self.dilations) < 1:
            raise ConfigError(
                f"SpectralConfig.dilations must be numbers from 1 on, got {self.dilations}"
            )
