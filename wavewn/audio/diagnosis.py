"""What does this mel look like? Measured figures, findings with their evidence, presets that fit.

`check_mel` says whether a mel can be what one `MelSpec` says. This file asks the other way round:
of a mel from anywhere, what is it? Four things betray it:

    shape        an axis as long as a family's number of bands; bins of a Fourier transform
    rest         a floor leaves many equal lowest values, and ln 1e-5 is not log10 1e-10
    spread       the middle nine tenths of speech span 8 to 10 nats, so 3.5 to 4.4 in log10
    level        the loudest values against full-scale white noise

The rest is proof, the spread only a likelihood: every finding says which of the two it is.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from wavewn.audio.mel import FLOORS, MelSpec, judge_mel, noise_levels, without_affine
from wavewn.audio.mel_presets import PRESETS
from wavewn.errors import MelError

Scale = Literal["natural log", "log10", "decibels", "linear", "normalised", "unknown"]

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BANDS = {40, 64} | {spec.n_mels for spec in PRESETS.values()}
BINS = {2**k + 1 for k in range(7, 13)}
RESTING_VALUES, RESTING_BANDS = 8, 3  # fewer may be chance: a tone repeats, a band is empty
REST_ATOL = 1e-3  # of a floor in float32; float16 is coarser, see `_is`
NATS = {"e": 1.0, "10": math.log(10)}  # in one unit of the logarithm
LOG = "take the logarithm of max(mel, floor)"
UNDO = "undo it with the settings of the program that wrote it"
SPREAD_LN, SPREAD_LOG10 = 6.0, 5.0  # between the quantiles of 5 and 95 %
DB_LOUDEST = (-60.0, 15.0)  # where the loudest percent of recordings lies


@dataclass(frozen=True)
class Figures:
    """What was measured, of the finite values.

    Attributes:
        low: Smallest value.
        high: Largest value.
        mean: Of all values; `deviation` likewise.
        quantiles: By their share of the values.
        resting_at: The lowest value where many rest there, as on a floor; else None.
        resting_share: Share of the lowest value.
    """

    low: float
    high: float
    mean: float
    deviation: float
    quantiles: dict[float, float]
    resting_at: float | None
    resting_share: float

    def __str__(self) -> str:
        text = f"values {self.low:.4g} to {self.high:.4g}, median {self.quantiles[0.5]:.3g}"
        if self.resting_at is not None:
            text += f", {100 * self.resting_share:.3g} % at {self.resting_at:.5g}"
        return text


@dataclass(frozen=True)
class Finding:
    """What a mel is, or what is odd about it.

    Attributes:
        what: In a few words, after "it is".
        sure: Proved by the evidence, or only likely.
        evidence: The figures that say so.
        remedy: What to do, if anything.
    """

    what: str
    sure: bool
    evidence: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"it is {'' if self.sure else 'likely '}{self.what} ({self.evidence})"
        return f"{text}: {self.remedy}" if self.remedy else text


@dataclass(frozen=True)
class Fit:
    """Whether a mel may be that of a preset.

    Attributes:
        fits: "yes" when its silence is there too, "maybe" when nothing speaks against it.
    """

    preset: str
    fits: Literal["yes", "maybe", "no"]
    evidence: str


@dataclass(frozen=True)
class Diagnosis:
    """What a mel looks like.

    Attributes:
        bands: Number of bands, by the layout that was found; `frames` likewise.
        figures: None where no frame is finite.
        scale: The likely meaning of a value.
        findings: The first is about the scale.
        fits: One for every preset.
    """

    bands: int
    frames: int
    figures: Figures | None
    scale: Scale
    findings: tuple[Finding, ...]
    fits: tuple[Fit, ...]

    def fitting(self) -> list[str]:
        """Name the presets that fit, surest first."""
        return [one.preset for sure in ("yes", "maybe") for one in self.fits if one.fits == sure]


def diagnose(mel: Tensor, n_mels: int | None = None) -> Diagnosis:
    """Tell what a mel looks like. Nothing about it is an error.

    Args:
        mel: [bands, frames] or [frames, bands], floating point, not empty.
        n_mels: The number of bands that is expected, where one knows it.
    """
    rows, layout = upright(mel.detach().float(), n_mels)
    shape = [layout] if layout else []
    bands, frames = rows.shape
    finite = rows[:, rows.isfinite().all(dim=0)]
    if finite.shape[1] < frames:
        shape.append(_not_finite(rows))
    if finite.shape[1] == 0:
        return Diagnosis(bands, frames, None, "unknown", tuple(shape), ())
    values = finite.numpy()
    figures = measure(values)
    scale, finding = _guess_scale(values, figures)
    findings = (finding, *shape, *_edges(values, figures))
    fits = tuple(_fit(finite, name, scale, finding.sure) for name in PRESETS)
    return Diagnosis(bands, frames, figures, scale, findings, fits)


def upright(mel: Tensor, n_mels: int | None = None) -> tuple[Tensor, Finding | None]:
    """Turn a mel to [bands, frames] by the lengths of its axes, and say what is odd about them."""
    known = BANDS if n_mels is None else {n_mels}
    first, last = mel.shape
    if first in known and (last not in known or first == last):
        return mel, None
    came = f"its shape is {[first, last]}"
    if last in known and first not in known:
        remedy = "swap its two axes, [bands, frames] is expected"
        return mel.T, Finding("transposed", True, came, remedy)
    bins = first if first in BINS else last
    if bins in BINS:
        text = f"{came}, the bins of an n_fft of {2 * (bins - 1)}"
        finding = Finding("a spectrogram without mel bands", False, text, "apply the mel filters")
        return mel if bins == first else mel.T, finding
    if first in known:  # both are
        remedy = "compare with another file of another length"
        return mel, Finding("[bands, frames], or else transposed", False, came, remedy)
    wanted = n_mels or "one of " + ", ".join(map(str, sorted(BANDS)))
    remedy = f"expected {wanted} bands; was it made for another vocoder?"
    finding = Finding("of an unusual number of bands", False, came, remedy)
    return mel if first <= last else mel.T, finding


def measure(values: np.ndarray) -> Figures:
    """Take the figures of finite values [bands, frames]."""
    low, high = float(values.min()), float(values.max())
    resting = values <= low + 1e-4
    many = resting.sum() >= RESTING_VALUES and resting.any(axis=1).sum() >= RESTING_BANDS
    quantiles = np.quantile(values, QUANTILES).tolist()
    return Figures(
        low,
        high,
        float(values.mean(dtype=np.float64)),
        float(values.std(dtype=np.float64)),
        dict(zip(QUANTILES, quantiles, strict=True)),
        low if many else None,
        float(resting.mean()),
    )


def _guess_scale(values: np.ndarray, figures: Figures) -> tuple[Scale, Finding]:
    """Tell logarithms, decibels, magnitudes and normalised values apart."""
    low, high, rest = figures.low, figures.high, figures.resting_at
    spread = figures.quantiles[0.95] - figures.quantiles[0.05]
    came = str(figures)
    if high - low < 1e-4:
        return "unknown", Finding("constant", True, came, "was an empty buffer saved?")
    for base, scale in (("e", "natural log"), ("10", "log10")):
        for floor in (1e-3, 1e-4, 1e-6, *FLOORS, 1e-11, 1e-12):
            level = math.log(floor) / NATS[base]
            # the coqui and Tacotron recipes clip at -4 too, but speech goes beyond +2 there
            if rest is not None and _is(rest, level) and not _is(rest, -4):  # see below
                text = f"{came}, which is the {scale} of {floor:g}"
                return scale, Finding(f"the {scale} of magnitudes", True, text)  # type: ignore
    if low >= 0 and figures.quantiles[0.5] < 0.05 * high:
        text = f"values {low:.3g} to {high:.4g}: none is negative and few are large"
        return "linear", Finding("linear, without a logarithm", True, text, LOG)
    for bottom, top in ((0, 1), (-1, 1), (0, 4), (-4, 4)):
        clipped = rest is not None and _is(rest, bottom)
        if bottom - 1e-4 <= low and high <= top + 1e-4 and (low >= 0 or clipped):
            what = f"normalised to [{bottom}, {top}]"
            sure = clipped and (bottom != -4 or high > 1.5)  # a log10 clipped at 1e-4 ends there
            return "normalised", Finding(what, sure, came, UNDO)
    if low >= 0:
        return "normalised", Finding("decibels shifted to start at 0", False, came, UNDO)
    if low < -30:
        text = f"{came}: no logarithm of magnitudes goes below -30"
        remedy = "multiply by ln(10) / 20 = 0.1151 for the natural log"
        if abs(high) < 1e-3:
            text += ", and the loudest is 0, so the file's own peak is the reference"
            remedy = "the level of the recording is lost; take the mel without ref=max"
        return "decibels", Finding("in decibels", True, text, remedy)
    return _guess_by_spread(values, figures, spread, came)


def _guess_by_spread(
    values: np.ndarray, figures: Figures, spread: float, came: str
) -> tuple[Scale, Finding]:
    means, deviations = values.mean(axis=1), values.std(axis=1)
    own = bool(np.abs(means).max() < 1e-3 and np.abs(deviations - 1).max() < 2e-2)
    if own or (abs(figures.mean) < 0.6 and 0.5 < figures.deviation < 1.6):
        text = f"{came}, mean {figures.mean:.2g}, standard deviation {figures.deviation:.2g}"
        remedy = "multiply by the corpus's scale and add its mean (stats.h5 or stats.npy)"
        if own:
            text += ", and each band has mean 0 and deviation 1"
            remedy = "its levels are lost; take the mel without normalising each file"
        return "normalised", Finding("normalised by mean and variance", own, text, remedy)
    text = f"{came}; its middle nine tenths span {spread:.3g}"
    if figures.low > -4.01 and 2 < figures.high < 4.01 and spread > 4:
        return "normalised", Finding("normalised to [-4, 4]", False, text, UNDO)
    if (spread > SPREAD_LN and figures.low < -6) or figures.low < -12:
        return "natural log", Finding("the natural log of magnitudes", False, text)
    if spread < SPREAD_LOG10 and figures.low > -11:
        remedy = "if so, multiply by ln(10) = 2.3026 for the natural log"
        what = "log10 of magnitudes, or the natural log of a noisy recording"
        return "log10", Finding(what, False, text, remedy)
    return "unknown", Finding("a logarithm", False, f"{text}, between ln and log10")


def floor_of(spec: MelSpec) -> float:
    """Give the floor of a mel with a logarithm, before its affine."""
    return math.log(spec.floor) / NATS[spec.log_base or "e"]


def _is(value: float, level: float) -> bool:
    return abs(value - level) < REST_ATOL + abs(level) * 5e-4  # float16 has 11 bits


def _not_finite(rows: Tensor) -> Finding:
    nan, infinite = int(rows.isnan().sum()), int(rows.isinf().sum())
    frame = int((~rows.isfinite()).any(dim=0).int().argmax())
    remedy = LOG if infinite > nan else "the model diverged?"
    text = f"{nan} NaN, {infinite} infinite, the first in frame {frame}"
    return Finding("not finite", True, text, remedy)


def _edges(values: np.ndarray, figures: Figures) -> list[Finding]:
    """Find padding: frames at the end that hold one value, above the lowest."""
    flat = np.abs(values - values[0, -1]).max(axis=0) < 1e-6
    padded = int(np.cumprod(flat[::-1]).sum())
    if padded == 0 or values[0, -1] < figures.low + 0.5:
        return []
    text = f"its last {padded} frames hold nothing but {values[0, -1]:.4g}"
    return [Finding("padded", True, text, "cut the mel to its length before saving it")]


def _fit(rows: Tensor, name: str, scale: Scale, sure: bool) -> Fit:
    """Hold a mel against a preset: what `judge_mel` says, its scale, its silence, its level."""
    spec = PRESETS[name]
    try:
        judge_mel(rows, spec)
    except MelError as error:
        return Fit(name, "no", str(error))
    figures = measure(without_affine(rows, spec).numpy())
    base = spec.log_base or "e"  # every preset takes a logarithm
    wanted = "natural log" if base == "e" else "log10"
    wanted = wanted if (spec.mean, spec.scale) == (0, 1) else "normalised"
    unclear = not sure and (scale, wanted) == ("log10", "natural log")  # or a noisy recording
    if scale not in (wanted, "unknown") and not unclear:
        return Fit(name, "no", f"its values are {wanted}, these look {scale}")
    loudest = figures.quantiles[0.99] * NATS[base]
    above_db = 20 / math.log(10) * (loudest - noise_levels(spec)[0]) / spec.power
    level = f"the loudest percent lies {above_db:+.0f} dB from full-scale noise"
    if not DB_LOUDEST[0] < above_db < DB_LOUDEST[1]:
        return Fit(name, "no", f"{level}, which no recording does")
    at = figures.resting_at
    if at is not None and not _is(at, floor_of(spec)):
        return Fit(name, "no", f"its silence is {floor_of(spec):.5g}, the values rest at {at:.5g}")
    if at is None:
        return Fit(name, "maybe", f"no silence to compare; {level}")
    return Fit(name, "yes", f"its silence, {at:.5g}, is where values rest; {level}")
