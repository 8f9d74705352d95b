"""Mels that an acoustic model predicted, each with the recording that it was predicted for.

A vocoder that was trained on the mels of recordings meets smoother ones in use; fine-tuning on
pairs of predicted mels and recordings closes the gap. It ruins the vocoder where the two do not
belong together, and no file says whether they do. So it is found out, before a training starts:

    every mel       its name, its shape, its range, and the number of its frames
    some of them    against the recording's own mel: is it the same speech, does each frame look
                    where the contract says, is the level the same, and the spread

Speech and place are compared by correlation, which no offset and no factor disturbs.
Durations are those of the recording, so the mel must come from teacher forcing, or from given
durations; a few frames more or less at the end are cut off.
"""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wavewn.audio.mel import MelSpec, judge_mel, mel_spectrogram, without_affine
from wavewn.audio.mel_files import READERS, load_mel
from wavewn.data.crops import PredictedMel, read_at, samples_at
from wavewn.data.manifest import Utterance
from wavewn.errors import DataError, MelError

logger = logging.getLogger(__name__)

FRAMES_APART = 5  # acoustic models pad to groups of up to 5 frames, and cut silence as generously
COMPARED = 16  # pairs, spread over the corpus
COMPARED_S = 6.0  # of each
HALF_HOPS = 4  # how far frames are looked for, on either side
SAME_SPEECH = 0.5  # correlation; predictions reach 0.8 and more, other speech hardly 0.2
BETTER = 0.9  # share of what is left unexplained: below it another position is the right one
OFFSET_NATS = 1.0  # of the mean over all bands: 8.7 dB
MOST_GAIN = 4.0  # nats, 35 dB; recordings' levels differ by less
SPREAD = (0.6, 1.6)  # smooth predictions have 0.85; log10 for a natural log gives 0.43


def pair_mels(
    utterances: Sequence[Utterance], folder: Path, spec: MelSpec
) -> dict[Path, PredictedMel]:
    """Find and check the predicted mel of every utterance.

    Args:
        utterances: Each needs a mel.
        folder: Holds them, one file for each recording, of the same name; where names repeat, in
            sub-folders called like the recordings' own.
        spec: What the mels claim to be.

    Returns:
        By the recording's path.

    Raises:
        DataError: A mel is missing or belongs to no recording alone, or the pairs do not fit.
        MelError: A mel cannot be read, or cannot be what `spec` says.
    """
    chosen = _match(utterances, folder)
    found: dict[Path, PredictedMel] = {}
    cut = 0
    for utterance in utterances:
        path = chosen[utterance.path]
        mel = load_mel(path)
        try:
            judge_mel(mel, spec)
        except MelError as error:
            raise MelError(f"{path}: {error}") from None
        frames = _reconcile(path, mel.shape[1], samples_at(utterance, spec.sample_rate), spec)
        cut += frames < mel.shape[1] - (spec.grid == "centred")
        found[utterance.path] = PredictedMel(path, frames)
    logger.info("%d predicted mels of %s; %d are longer than the audio", len(found), folder, cut)
    some = utterances[:: math.ceil(len(utterances) / COMPARED)]
    _compare([(one, found[one.path]) for one in some], folder, spec)
    return found


def _match(utterances: Sequence[Utterance], folder: Path) -> dict[Path, Path]:
    """Give each recording its mel file, by name."""
    by_stem: dict[str, list[Path]] = {}
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            if Path(name).suffix.lower() in READERS and not name.startswith("."):
                by_stem.setdefault(Path(name).stem, []).append(Path(root, name))
    if not by_stem:
        raise DataError(
            f"data.mels: {folder} holds no mel files ({', '.join(READERS)}); expected one for "
            "each recording of the manifest, of the same name"
        )
    missing = [one.path for one in utterances if one.path.stem not in by_stem]
    if missing:
        raise DataError(
            f"data.mels: {len(missing)} of {len(utterances)} recordings have no mel in {folder}, "
            f"the first is {missing[0]}; predict theirs too, or prepare a manifest without them"
        )
    chosen: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    for one in utterances:
        files = by_stem[one.path.stem]
        common = [_common_folders(file, one.path) for file in files]
        path = files[common.index(max(common))]
        other = owner.get(path, one.path)
        if common.count(max(common)) > 1 or other != one.path:
            others = f" and to {other}" if other != one.path else f", {path} or another"
            raise DataError(
                f"data.mels: it is not clear which mel belongs to {one.path}{others}; put mels of "
                "the same name into sub-folders that are called like the recordings' own"
            )
        chosen[one.path], owner[path] = path, one.path
    return chosen


def _common_folders(one: Path, other: Path) -> int:
    """How many folders right above two files are called the same."""
    pairs = zip(reversed(one.parts[:-1]), reversed(other.parts[:-1]), strict=False)
    differ = (index for index, (a, b) in enumerate(pairs) if a != b)
    return next(differ, min(len(one.parts), len(other.parts)))


def _reconcile(path: Path, frames: int, samples: int, spec: MelSpec) -> int:
    """The number of frames that mel and audio share."""
    expected = spec.frames(samples)
    if abs(frames - expected) > FRAMES_APART:
        raise DataError(
            f"{path}: has {frames} frames, but its recording of {samples} samples has {expected} "
            f"({spec.grid} grid, hop {spec.hop_length}); predict it with the durations of the "
            f"recording (teacher forcing), or with this hop: {samples / frames:.0f} would fit"
        )
    return min(frames, samples // spec.hop_length)


def _nats(mel: Tensor, spec: MelSpec) -> Tensor:
    """Bring a mel to natural logarithms."""
    values = without_affine(mel, spec)
    if spec.log_base is None:
        return values.clamp(min=max(spec.floor, 1e-5)).log()
    return values if spec.log_base == "e" else values * math.log(10)


def _compare(pairs: Sequence[tuple[Utterance, PredictedMel]], folder: Path, spec: MelSpec) -> None:
    """Hold predicted mels against those of their recordings, shifted by some half hops."""
    half = spec.hop_length // 2
    shifts = [step * half for step in range(-HALF_HOPS, HALF_HOPS + 1)]
    predicted: list[Tensor] = []
    recorded: list[list[Tensor]] = [[] for _ in shifts]
    for utterance, mel in pairs:
        frames = min(mel.frames, int(COMPARED_S * spec.sample_rate / spec.hop_length))
        margin = HALF_HOPS * half
        samples = frames * spec.hop_length + 2 * margin
        audio = read_at(utterance, spec.sample_rate, -margin, samples)
        predicted.append(_nats(load_mel(mel.path)[:, :frames], spec))
        for shift, parts in zip(shifts, recorded, strict=True):
            whole = mel_spectrogram(audio[margin + shift :], spec)[0]
            parts.append(_nats(whole[:, :frames], spec))
    ours = torch.cat(predicted, dim=1)
    theirs = [torch.cat(parts, dim=1) for parts in recorded]
    likeness = [_correlation(ours, one) for one in theirs]
    best, here = max(range(len(shifts)), key=likeness.__getitem__), HALF_HOPS
    count = f"data.mels: of {len(pairs)} mels in {folder} compared with their recordings'"
    if likeness[best] < SAME_SPEECH:
        raise DataError(
            f"{count}, the correlation is {likeness[best]:.2f}: they are other speech, or were not "
            "predicted with the recordings' durations; were files mixed up?"
        )
    if 1 - likeness[best] < BETTER * (1 - likeness[here]):
        raise DataError(
            f"{count}, frames lie {shifts[best]:+d} samples from where the {spec.grid} grid has "
            f"them (correlation {likeness[best]:.3f} there, {likeness[here]:.3f} as it is): take "
            f"the mel settings of the acoustic model into the recipe{_grid(shifts[best], spec)}"
        )
    _check_statistics(ours, theirs[here], count)
    logger.info("%s: correlation %.3f", count, likeness[here])


def _correlation(one: Tensor, other: Tensor) -> float:
    """Of all values, each band counted from its mean."""
    a, b = (rows - rows.mean(dim=1, keepdim=True) for rows in (one.double(), other.double()))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))


def _grid(shift: int, spec: MelSpec) -> str:
    """Name the grid that such a shift speaks for."""
    centres = {  # of frame 0
        "centred": 0.0,
        "half-hop": spec.hop_length / 2,
        "causal": spec.hop_length - spec.n_fft / 2,
        "ahead": spec.n_fft / 2,
    }
    mine = centres[spec.grid] + shift
    near = [name for name, at in centres.items() if abs(at - mine) < spec.hop_length / 4]
    return f"; its grid is likely {near[0]} (mel.grid)" if near else ""


def _check_statistics(predicted: Tensor, recorded: Tensor, count: str) -> None:
    """Refuse mels of another level, other filters or another logarithm."""
    offsets = predicted.mean(dim=1) - recorded.mean(dim=1)
    offset, uneven = float(offsets.mean()), float(offsets.std())
    spread = [
        float((rows - rows.mean(dim=1, keepdim=True)).std()) for rows in (predicted, recorded)
    ]
    ratio = spread[0] / max(spread[1], 1e-6)
    if not SPREAD[0] < ratio < SPREAD[1]:
        cause = "is one log10, the other natural, or were statistics taken off?"
        raise DataError(
            f"{count}, the spread is {ratio:.2f} of theirs (expected {SPREAD[0]} to {SPREAD[1]}): "
            f"{cause} The recipe's mel must be the acoustic model's"
        )
    if abs(offset) > OFFSET_NATS:
        cause = "other mel filters (mel.norm, mel.mel_scale)"
        if uneven < 0.3 and abs(offset) < MOST_GAIN:
            cause = "another level of the recordings (a gain, a scaled peak)"
        elif uneven < 0.3:
            cause = "statistics that were taken off, or added twice (mel.mean, mel.scale)"
        raise DataError(
            f"{count}, values lie {offset:+.2f} nats ({offset * 20 / math.log(10):+.1f} dB) from "
            f"theirs, within {uneven:.2f} of that from band to band: {cause}? The recipe's mel "
            "must be the acoustic model's, and the recordings those that it was trained on"
        )
