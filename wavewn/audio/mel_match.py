"""A mel beside the audio that it was taken from: whose mel is it, and on which grid?

Audio is the strongest witness. Its mel is taken by every known definition, and the stored values
are drawn over it by a straight line in each band: `mel = slope * natural log + offset`. The
correlation tells the filters and the frame grid, the slope the base of the logarithm.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from wavewn.audio.io import audio_info, read_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram, prepare_audio

SLOPES = {  # of the magnitude's natural log
    "natural log": 1.0,
    "log10": 1 / math.log(10),
    "decibels": 20 / math.log(10),
}
SLOPE_RTOL = 0.02
LONGEST_S = 30.0  # so much of the audio is compared
QUIET = 1e-4  # magnitudes that rounding, dither and floors reach are left out
SAME, OTHER = 0.99, 0.9  # correlations that say yes and no; half a hop gives 0.97


@dataclass(frozen=True)
class Match:
    """A stored mel against the mel of its audio.

    Attributes:
        name: Of the definition.
        frames: Number of frames that it gives of the audio.
        correlation: Of the stored values with its natural log, within the bands.
        slope: Stored values for one nat.
        offset: Stored value at a magnitude of 1.
    """

    name: str
    frames: int
    correlation: float
    slope: float
    offset: float

    def __str__(self) -> str:
        scale = next(
            (k for k, v in SLOPES.items() if abs(self.slope / v - 1) < SLOPE_RTOL), "another scale"
        )
        return (
            f"{self.name}: {self.frames} frames, correlation {self.correlation:.4f}, "
            f"{scale} (slope {self.slope:.4g}, offset {self.offset:+.3g})"
        )


def audio_beside(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    """Find the recording that has the name of a mel file and lies in its folder."""
    for suffix in suffixes:
        candidate = path.with_suffix(suffix)
        if candidate != path and candidate.is_file():
            return candidate
    return None


def match_audio(mel: Tensor, path: Path, specs: Mapping[str, MelSpec]) -> list[Match]:
    """Compare a mel with its audio by each definition of as many bands; best first.

    Args:
        mel: [bands, frames], in any scale.
        path: The audio; it is resampled to the rate of each definition.
        specs: The definitions by name.

    Raises:
        AudioError: The audio cannot be read.
    """
    values = mel.detach().float()
    if values.min() >= 0 and values.median() < 0.05 * values.max():  # linear, see `diagnosis`
        values = values.clamp(min=1e-8).log()
    info = audio_info(path)
    heard: dict[int, Tensor] = {}
    matches = []
    for name, spec in specs.items():
        if spec.n_mels != mel.shape[0]:
            continue
        rate = spec.sample_rate
        if rate not in heard:
            heard[rate] = read_audio(path, rate)
        frames = spec.frames(math.ceil(info.samples * rate / info.sample_rate))
        audio = prepare_audio(heard[rate], spec)[: int(LONGEST_S * rate)]
        plain = dataclasses.replace(spec, log_base="e", floor=1e-10, mean=0.0, scale=1.0)
        matches.append(Match(name, frames, *_line(values, mel_spectrogram(audio, plain)[0])))
    return sorted(matches, key=lambda match: -match.correlation)


def grid_text(mel_frames: int, path: Path, spec: MelSpec) -> tuple[bool, str]:
    """Tell whether a mel has as many frames as `spec` gives of the audio, and what if not.

    Raises:
        AudioError: The audio cannot be read.
    """
    info = audio_info(path)
    samples = math.ceil(info.samples * spec.sample_rate / info.sample_rate)
    expected, floor = spec.frames(samples), samples // spec.hop_length
    came = f"{mel_frames} frames, {expected} expected of {samples} samples at {spec.sample_rate} Hz"
    if mel_frames == expected:
        return True, f"{came} on the {spec.grid} grid"
    if mel_frames in (floor, floor + 1):
        other = "half-hop, causal or ahead" if mel_frames == floor else "centred"
        return False, f"{came}: this is the {other} grid, the {spec.grid} grid is wanted"
    if abs(mel_frames - expected) <= max(2, expected // 50):
        return False, f"{came}: the audio was trimmed or padded before the mel was taken"
    period = samples / mel_frames
    return False, (
        f"{came}: a frame every {period:.1f} samples ({1000 * period / spec.sample_rate:.2f} ms), "
        f"where the hop is {spec.hop_length}: another hop, another sample rate, or other audio"
    )


def _line(values: Tensor, mel: Tensor) -> tuple[float, float, float]:
    """Fit values = slope * mel + offset within the bands; return correlation, slope, offset."""
    frames = min(values.shape[1], mel.shape[1])
    x, y = mel[:, :frames], values[:, :frames]
    heard = ((x > math.log(QUIET)) & (y > y.min() + 1e-4)).float()
    count = heard.sum(dim=1, keepdim=True).clamp(min=1)
    x_mean = (x * heard).sum(dim=1, keepdim=True) / count
    y_mean = (y * heard).sum(dim=1, keepdim=True) / count
    dx, dy = (x - x_mean) * heard, (y - y_mean) * heard
    xx, yy, xy = (float((a * b).sum()) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    if frames < 3 or min(xx, yy) < 1e-9:
        return 0.0, 0.0, 0.0
    slope = xy / xx
    weight = count / count.sum()
    offset = float((weight * (y_mean - slope * x_mean)).sum())
    return xy / math.sqrt(xx * yy), slope, offset
