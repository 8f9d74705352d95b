"""From one definition of a mel spectrogram to another, where the mel itself determines the answer.

Two definitions of the same frames and bands differ by a map of single values, and that map is
exact for

    log_base, mean, scale      always: they are invertible
    norm                       each filter's height is one factor
    gain, peak                 one factor, as the mel is linear in the audio's level
    floor, floor_kind          where no value is hidden under the floor that it comes from

Everything else asks for what a mel does not hold: the energy within a band, the phases, the audio
between two frames. `obstacles` names each such field with its reason. Three of them are confined
(`Obstacle.bounded`), and who can live with what the reason says replaces the field and converts:
the padding touches only the first and last frames, an epsilon only what is near the floor, and
another grid is the same mel of audio that is moved by a part of a frame, see `shift_audio`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.audio.mel import _column, check_mel, mel_filters, without_affine
from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import MelError, ShapeError

PRECISION = 1e-4  # nats: what float32 front ends of the same definition differ by among themselves
ROUNDING = 4 * 2.0**-24  # of a few float32 operations, relative

INSIDE_BANDS = "each band sums other frequencies, and what lies inside a band is not known"
BINS = "the bins under the filters are others"
UNKNOWN = {
    "sample_rate": "bands and frames are counted in other units",
    "n_fft": BINS,
    "win_length": BINS,
    "hop_length": "the frames lie at other times, and what happened between two is not known",
    "n_mels": INSIDE_BANDS,
    "f_min": INSIDE_BANDS,
    "f_max": INSIDE_BANDS,
    "mel_scale": INSIDE_BANDS,
    "power": "a sum of energies does not tell the sum of magnitudes",
    "window": BINS,
    "high_pass_hz": "a filter acts on the audio, within bands",
    "pre_emphasis": "a filter acts on the audio, within bands",
}


@dataclass(frozen=True)
class Obstacle:
    """Why a mel cannot be converted.

    Attributes:
        field: The field of `MelSpec` in which the two definitions differ.
        reason: What the mel does not tell, in words.
        bounded: Whether the difference is confined, as the reason says, so that somebody may
            accept it: `dataclasses.replace(spec, **{field: getattr(to, field)})`, then convert.
    """

    field: str
    reason: str
    bounded: bool = False


def convert(mel: Tensor, spec: MelSpec, to: MelSpec) -> Tensor:
    """Give the mel that `to` defines of the audio whose mel by `spec` this is.

    Values below the floor, which acoustic models predict, are kept where the floor is. Carries no
    gradient.

    Args:
        mel: [bands, frames] or [batch, bands, frames].
        spec: What the mel is; it is checked against this.
        to: What it shall be.

    Returns:
        float32 of the same shape.

    Raises:
        MelError: The mel is not what `spec` says, or does not determine the answer; every field
            that stands in the way is named with its reason.
    """
    check_mel(mel, spec)
    found = obstacles(spec, to)
    if found:
        reasons = "; ".join(
            f"{o.field} is {getattr(spec, o.field)} and should be {getattr(to, o.field)}: "
            f"{o.reason}"
            for o in found
        )
        raise MelError(
            f"this mel cannot be converted exactly, {reasons}; compute it from the audio by the "
            "definition that is wanted, or use a model made for this one"
        )
    values = without_affine(mel.detach().double(), spec)
    factor = _factor(spec, to, values)
    if spec.floor_kind == to.floor_kind and _close(to.floor, factor * spec.floor):
        converted = _rescaled(values, factor, spec, to)
    else:
        converted = _refloored(values, factor, spec, to)
    return ((converted - _column(to.mean, converted)) / _column(to.scale, converted)).float()


def obstacles(spec: MelSpec, to: MelSpec) -> tuple[Obstacle, ...]:
    """List what makes an exact conversion impossible whatever the values; empty if nothing does.

    A floor stands in the way of some mels and not of others, so it is not listed here.
    """
    found = [
        Obstacle(field, reason)
        for field, reason in UNKNOWN.items()
        if getattr(spec, field) != getattr(to, field)
    ]
    if (spec.peak is None) != (to.peak is None):
        found.append(Obstacle("peak", "how loud the file was before is not known"))
    if spec.grid != to.grid:
        shift = grid_shift(spec, to)
        when = f"{abs(shift)} samples {'later' if shift > 0 else 'earlier'}"
        reason = f"its frames would lie {when}; audio can be moved by that much, frames cannot"
        found.append(Obstacle("grid", reason, bounded=True))
    if spec.pad_mode != to.pad_mode:
        edges = [math.ceil(side / spec.hop_length) for side in spec.padding]
        reason = f"the first {edges[0]} and last {edges[1]} frames see other padding"
        found.append(Obstacle("pad_mode", reason, bounded=True))
    level = _level(spec, to)
    if not math.isclose(to.magnitude_epsilon, level**2 * spec.magnitude_epsilon, rel_tol=1e-6):
        found.append(_epsilon_obstacle(spec, to))
    return tuple(found)


def grid_shift(spec: MelSpec, to: MelSpec) -> int:
    """Samples by which frame i of `to` lies later than frame i of `spec`; negative if earlier."""
    return (to.n_fft // 2 - to.padding[0]) - (spec.n_fft // 2 - spec.padding[0])


def shift_audio(audio: Tensor, spec: MelSpec, to: MelSpec) -> Tensor:
    """Move audio so that its mel on the grid of `spec` is the original's on the grid of `to`.

    If the two differ in their grid only, then `mel_spectrogram(shift_audio(audio, spec, to), spec)`
    is `mel_spectrogram(audio, to)`, except for the frames that reach beyond an end. So a half-hop
    mel comes from a centred front end by cutting half a hop off the audio first. And the other way
    round, a half-hop vocoder that reads a centred mel gives audio late by half a hop.

    Args:
        audio: [..., samples].
        spec: Whose grid the moved audio will be analysed on.
        to: Whose grid is meant.

    Returns:
        [..., samples - grid_shift(spec, to)]: the beginning is cut, or padded with zeros.

    Raises:
        ShapeError: Nothing would be left.
    """
    shift = grid_shift(spec, to)
    if audio.shape[-1] <= shift:
        raise ShapeError(
            f"audio of {audio.shape[-1]} samples cannot be moved by {shift}; it is too short"
        )
    return F.pad(audio, (-shift, 0))


def bands_first(mel: Tensor, n_mels: int) -> Tensor:
    """Give [..., bands, frames] of a mel that a file holds in either order.

    `mel_presets.FRAMES_FIRST` names the families that store frames first.

    Raises:
        MelError: Neither axis has `n_mels` entries, or both have, so that nothing tells them apart.
    """
    shape = list(mel.shape)
    if len(shape) < 2 or n_mels not in shape[-2:]:
        raise MelError(f"expected {n_mels} bands on one of the last two axes, the mel is {shape}")
    if shape[-2] == shape[-1]:
        raise MelError(
            f"the mel is {shape}, so its shape does not tell bands from frames; store it as "
            "[bands, frames], or with one frame more or less"
        )
    return mel if shape[-2] == n_mels else mel.transpose(-2, -1)


def _level(spec: MelSpec, to: MelSpec) -> float:
    """Give how much louder the audio of `to` is."""
    peaks = to.peak / spec.peak if spec.peak is not None and to.peak is not None else 1.0
    return peaks * to.gain / spec.gain


def _factor(spec: MelSpec, to: MelSpec, like: Tensor) -> Tensor:
    """Give the factor between the linear magnitudes, [1, 1] or [bands, 1]."""
    factor = _column(_level(spec, to) ** spec.power, like)
    if spec.norm == to.norm:
        return factor
    import librosa

    corners = like.new_tensor(
        librosa.mel_frequencies(
            n_mels=spec.n_mels + 2, fmin=spec.f_min, fmax=spec.f_max, htk=spec.mel_scale == "htk"
        )
    )
    heights = 2.0 / (corners[2:] - corners[:-2]).unsqueeze(1)
    return factor * heights if to.norm == "slaney" else factor / heights


def _epsilon_obstacle(spec: MelSpec, to: MelSpec) -> Obstacle:
    """Say how far an epsilon under the root can move a value: most where the audio is silent."""
    reason = "it was added to each bin before these were summed"
    if to.floor == 0 or spec.power > 2:
        return Obstacle("magnitude_epsilon", reason)
    area = float(mel_filters(spec, torch.device("cpu"))[0].sum(dim=1).max())
    mine, its = (s.magnitude_epsilon ** (spec.power / 2) for s in (spec, to))
    nats = math.log1p(area * abs(mine - its) / to.floor)
    return Obstacle("magnitude_epsilon", f"{reason}, up to {nats:.2g} nats at the floor", True)


def _close(value: float, others: Tensor) -> bool:
    return all(math.isclose(value, other, rel_tol=1e-6) for other in others.flatten().tolist())


def _rescaled(values: Tensor, factor: Tensor, spec: MelSpec, to: MelSpec) -> Tensor:
    """Change level and base alone: the floor moves along, and what undershoots it stays."""
    if spec.log_base is None and to.log_base is None:
        return values * factor
    if spec.log_base is None:
        values = values.clamp(min=spec.floor).log()
    elif spec.log_base == "10":
        values = values * math.log(10)
    return _from_nats(values + factor.log(), to)


def _refloored(values: Tensor, factor: Tensor, spec: MelSpec, to: MelSpec) -> Tensor:
    """Change the floor, having looked whether each value tells what lies under the old one."""
    low, high = _linear_range(values, spec)
    low, high = (_floored(x * factor, to) for x in (low, high))
    unsure = high > low * (1 + PRECISION)
    if unsure.any():
        hidden = "rest on" if spec.floor_kind == "clamp" else "are drowned in"
        raise MelError(
            f"this mel cannot be converted exactly, floor is {spec.floor:g} ({spec.floor_kind}) "
            f"and should be {to.floor:g} ({to.floor_kind}): {int(unsure.sum())} of "
            f"{unsure.numel()} values {hidden} the floor, and what lay under it is not known; "
            "compute the mel from the audio by the definition that is wanted"
        )
    middle = (low + high) / 2
    return middle if to.log_base is None else _from_nats(middle.log(), to)


def _linear_range(values: Tensor, spec: MelSpec) -> tuple[Tensor, Tensor]:
    """Give the least and the largest linear magnitudes, before the floor, that fit the values."""
    rounding = ROUNDING * (values.abs() + _column(spec.mean, values).abs())
    base = {None: 0.0, "e": 1.0, "10": math.log(10)}[spec.log_base]
    low, high = values - rounding, values + rounding
    if base:
        low, high = (low * base).exp(), (high * base).exp()
    if spec.floor_kind == "add":
        return (low - spec.floor).clamp(min=0), (high - spec.floor).clamp(min=0)
    rests = low <= spec.floor
    return low.masked_fill(rests, 0), high.masked_fill(rests, spec.floor)


def _floored(linear: Tensor, spec: MelSpec) -> Tensor:
    return linear.clamp(min=spec.floor) if spec.floor_kind == "clamp" else linear + spec.floor


def _from_nats(values: Tensor, spec: MelSpec) -> Tensor:
    if spec.log_base is None:
        return values.exp()
    return values if spec.log_base == "e" else values / math.log(10)
