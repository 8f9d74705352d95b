"""MelSpec: what a mel spectrogram means.

Two programs that say "80-band mel at 22.05 kHz" differ in half a dozen ways that no shape shows,
and a vocoder fed with the wrong kind gives noise. So every field that changes a number stands
here, once per recipe and once per bundle, and nothing else states a sample rate.

The value of a band is, in this order:

    audio   -> peak, high-pass, pre-emphasis, gain          (`mel.prepare_audio`)
    linear   = filters @ (re^2 + im^2 + magnitude_epsilon) ** (power / 2)
    floored  = max(linear, floor)  or  linear + floor
    value    = (log(floored) - mean) / scale

and frame i of the four grids looks at the audio around

    centred   i * hop_length                    1 + samples // hop_length frames
    half-hop  i * hop_length + hop_length / 2   samples // hop_length frames
    causal    ends at (i + 1) * hop_length      samples // hop_length frames
    ahead     begins at i * hop_length          samples // hop_length frames
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from wavewn.config import check_at_least
from wavewn.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

MelScale = Literal["slaney", "htk"]
Grid = Literal["centred", "half-hop", "causal", "ahead"]
Window = Literal["hann", "root-hann"]
PadMode = Literal["reflect", "constant", "replicate"]
LogBase = Literal["e", "10"]
FloorKind = Literal["clamp", "add"]

CHOICES: dict[str, tuple[str | None, ...]] = {
    "mel_scale": get_args(MelScale),
    "norm": ("slaney", None),
    "grid": get_args(Grid),
    "pad_mode": get_args(PadMode),
    "window": get_args(Window),
    "log_base": (*get_args(LogBase), None),
    "floor_kind": get_args(FloorKind),
}
OPTIONAL = ("peak", "high_pass_hz")
PER_BAND = ("mean", "scale")


@dataclass(frozen=True)
class MelSpec:
    """The definition of a mel spectrogram; the defaults are the preset "wavewn-16k".

    Attributes:
        sample_rate: In Hz.
        n_fft: Length of the Fourier transform in samples.
        hop_length: Samples from one frame to the next.
        win_length: Length of the window, centred in `n_fft`.
        n_mels: Number of bands.
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz.
        mel_scale: "slaney" (linear below 1 kHz) or "htk".
        norm: "slaney" gives every filter the same area; None gives it the same peak.
        power: Exponent of the magnitude: 1 magnitude, 2 energy.
        grid: Where frames lie; see the module.
        pad_mode: What stands for the audio beyond its ends. "reflect" would let a causal grid
            hear the future and is refused there.
        window: "hann" is periodic. "root-hann" is the root of one that is symmetric about its
            middle, scaled so that the squares of all windows over a sample add up to 1.
        magnitude_epsilon: Added to the energy of each bin before the root.
        log_base: Base of the logarithm; None takes none.
        floor_kind: How `floor` keeps the logarithm finite.
        floor: Linear value.
        mean: Subtracted after the logarithm; one number or one per band.
        scale: Divides after `mean` was subtracted; one number or one per band.
        peak: The largest absolute sample of a file was scaled to this. None: not at all.
        high_pass_hz: Corner of the high-pass that the audio went through. None: no filter.
        pre_emphasis: Coefficient a of 1 - a / z that the audio went through; 0: no filter.
        gain: The audio was multiplied by this, last of all.

    Raises:
        ConfigError: A field, or two together, cannot be.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    hop_length: int = 200
    win_length: int = 800
    n_mels: int = 80
    f_min: float = 60.0
    f_max: float = 7000.0
    mel_scale: MelScale = "slaney"
    norm: Literal["slaney"] | None = "slaney"
    power: float = 1.0
    grid: Grid = "half-hop"
    pad_mode: PadMode = "reflect"
    window: Window = "hann"
    magnitude_epsilon: float = 0.0
    log_base: LogBase | None = "e"
    floor_kind: FloorKind = "clamp"
    floor: float = 1e-5
    mean: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    peak: float | None = None
    high_pass_hz: float | None = None
    pre_emphasis: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        self._check_types()
        sizes = ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels")
        check_at_least(self, 1, *sizes)
        check_at_least(self, 0, "f_min", "magnitude_epsilon", "floor")
        nyquist = self.sample_rate / 2
        bands = {self.n_mels}
        wrong = {
            f"win_length {self.win_length} exceeds n_fft {self.n_fft}": (
                self.win_length > self.n_fft
            ),
            f"hop_length {self.hop_length} exceeds win_length {self.win_length}, so audio between "
            "two frames would be lost": self.hop_length > self.win_length,
            f"f_max {self.f_max} Hz exceeds half the sample rate, {nyquist} Hz": (
                self.f_max > nyquist
            ),
            f"f_min {self.f_min} Hz is not below f_max {self.f_max} Hz": self.f_min >= self.f_max,
            f"power must be above 0, got {self.power}": self.power <= 0,
            "a logarithm needs a floor above 0": self.log_base is not None and self.floor <= 0,
            "a causal grid cannot reflect, that would hear the future; "
            "use pad_mode constant or replicate": (
                self.grid == "causal" and self.pad_mode == "reflect"
            ),
            f"scale must be above 0, got {self.scale}": min(_values(self.scale)) <= 0,
            f"mean and scale need one number or n_mels = {self.n_mels} of them": (
                not {len(v) for v in (self.mean, self.scale) if isinstance(v, tuple)} <= bands
            ),
            f"peak must lie in (0, 1], got {self.peak}": (
                self.peak is not None and not 0 < self.peak <= 1
            ),
            f"high_pass_hz must lie between 0 and {nyquist}, got {self.high_pass_hz}": (
                self.high_pass_hz is not None and not 0 < self.high_pass_hz < nyquist
            ),
            f"pre_emphasis must lie in [0, 1), got {self.pre_emphasis}": (
                not 0 <= self.pre_emphasis < 1
            ),
            f"gain must be above 0, got {self.gain}": self.gain <= 0,
        }
        for message, holds in wrong.items():
            if holds:
                raise ConfigError(f"MelSpec: {message}")

    def _check_types(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"MelSpec.{name} must be one of {list(allowed)}, got {value!r}")
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name in CHOICES or (value is None and entry.name in OPTIONAL):
                continue
            whole = entry.type == "int"
            numbers = _values(value) if entry.name in PER_BAND else (value,)
            for number in numbers or (math.nan,):
                right = isinstance(number, int if whole else (int, float))
                if not right or isinstance(number, bool) or not math.isfinite(number):
                    kind = "an integer" if whole else "a finite number"
                    raise ConfigError(f"MelSpec.{entry.name} must be {kind}, got {value!r}")

    @classmethod
    def preset(cls, name: str) -> MelSpec:
        """Give the definition that a family of vocoders uses, by its name.

        Raises:
            ConfigError: No preset has this name; `mel_presets.PRESETS` holds them.
        """
        from wavewn.audio.mel_presets import preset

        return preset(name)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON or YAML; tuples become lists."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelSpec:
        """Invert `to_dict`; what is missing takes its default.

        Raises:
            ConfigError: A key is unknown or a value impossible.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"MelSpec has no field {', '.join(map(repr, unknown))}; "
                f"its fields are {', '.join(sorted(known))}"
            )
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)

    def frames(self, samples: int) -> int:
        """Number of frames of so much audio."""
        return samples // self.hop_length + (self.grid == "centred")

    def convert(self, mel: Tensor, *, to: MelSpec) -> Tensor:
        """Give the mel that `to` defines of the audio whose mel by this definition is given.

        Args:
            mel: [bands, frames] or [batch, bands, frames].
            to: The definition that is wanted.

        Returns:
            float32 of the same shape; no gradient flows through it.

        Raises:
            MelError: The mel is not what this definition says, or it does not determine the
                answer; the message names each field in the way, and why. See `mel_convert.py`.
        """
        from wavewn.audio.mel_convert import convert

        return convert(mel, self, to)

    def without_chain(self) -> MelSpec:
        """Give the definition for audio that has gone through the chain already."""
        return dataclasses.replace(self, peak=None, high_pass_hz=None, pre_emphasis=0.0, gain=1.0)

    @property
    def padding(self) -> tuple[int, int]:
        """Samples put before and after the audio, so that the grid comes out."""
        if self.grid == "centred":
            return self.n_fft // 2, self.n_fft // 2
        missing = self.n_fft - self.hop_length
        left = {"causal": missing, "ahead": 0}.get(self.grid, missing // 2)
        return left, missing - left

    @property
    def log_floor(self) -> float:
        """Lowest value that a mel can hold: digital silence (of several bands, the lowest)."""
        value = self.floor
        if self.log_base is not None:
            value = math.log(value) if self.log_base == "e" else math.log10(value)
        means, scales = _values(self.mean), _values(self.scale)
        means, scales = means * len(scales), scales * len(means)
        return min((value - m) / s for m, s in zip(means, scales, strict=False))


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
