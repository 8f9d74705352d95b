"""The speech of a study: recordings at a low rate, all equally loud, and crops of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavewn.audio.companding import mu_law_encode
from wavewn.audio.io import read_audio
from wavewn.data.manifest import Utterance, load_manifest
from wavewn.errors import DataError

RMS = 0.1  # of each recording
FASTER = 1.25  # a strange speaker where the corpus has none: higher and with a shorter throat
MAX_MINUTES = 10.0  # of training speech; more would not be heard by trainings this short

Recordings = list[np.ndarray]


@dataclass(frozen=True)
class Speech:
    """Recordings, float32 [samples] each, at the study's rate.

    Attributes:
        corpus: Name of the folder it came from.
        train: What networks learn from.
        held_out: Other recordings of the same speakers.
        strange: A speaker whom no network has heard.
        strange_is: Who that is, in words.
        digest: Of the files; their samples at the study's rate differ in their last bits with the
            number of threads.
    """

    corpus: str
    train: Recordings
    held_out: Recordings
    strange: Recordings
    strange_is: str
    digest: str


def _level(audio: Tensor) -> np.ndarray:
    power = audio.square().mean().sqrt()
    if not power > 0:
        raise DataError("a recording is silent; prepare the corpus again without it")
    return (audio * (RMS / power)).clamp(-1, 1).numpy()


def _read(
    utterances: Sequence[Utterance],
    rate: int,
    shortest: int,
    content: "hashlib._Hash",
    minutes: float = MAX_MINUTES,
) -> Recordings:
    """Read what is long enough, and tell `content` of its files."""
    found, samples = [], 0
    for utterance in utterances:
        if samples > minutes * 60 * rate:
            break
        audio = read_audio(utterance.path, rate)
        if len(audio) >= shortest:
            found.append(_level(audio))
            samples += len(audio)
            content.update(utterance.path.read_bytes())
    content.update(b"|")
    return found


def load_speech(folder: Path, sample_rate: int, shortest: int) -> Speech:
    """Read a prepared corpus: its train split to learn from, its test split as held out.

    With two speakers or more the last one of the test split is left out of the training and is
    the strange speaker. With one, the held-out recordings played faster stand for it.

    Args:
        folder: Of `wavewn prepare`.
        sample_rate: In Hz.
        shortest: Samples; shorter recordings are left out.

    Raises:
        DataError: Nothing is left to train on or to test with.
    """
    train, test = load_manifest(folder, "train"), load_manifest(folder, "test")
    content = hashlib.sha256()
    speakers = sorted({one.speaker for one in train} & {one.speaker for one in test})
    if len(speakers) > 1:
        stranger = speakers[-1]
        strange = _read([u for u in test if u.speaker == stranger], sample_rate, shortest, content)
        train = [one for one in train if one.speaker != stranger]
        test = [one for one in test if one.speaker != stranger]
        who = f"the speaker {stranger}, left out of the training"
    else:
        strange = _read(test, round(sample_rate / FASTER), shortest, content)
        who = f"the held-out recordings played {FASTER:g} times as fast"
    speech = Speech(
        folder.resolve().name,
        _read(train, sample_rate, shortest, content),
        _read(test, sample_rate, shortest, content),
        strange,
        who,
        content.hexdigest()[:16],
    )
    for name, group in (("train", speech.train), ("test", speech.held_out), ("other", strange)):
        if not group:
            raise DataError(
                f"{folder} has no {name} recording of {shortest / sample_rate:.2g} s or more; "
                "prepare longer recordings, with a test set"
            )
    return speech


def crops(recordings: Recordings, count: int, length: int, key: Sequence[int]) -> Tensor:
    """Draw [count, length] of float32, a function of `key` alone; long recordings come oftener."""
    generator = np.random.default_rng(list(key))
    sizes = np.array([len(one) - length + 1 for one in recordings])
    assert (sizes > 0).all()
    places = generator.integers(0, sizes.sum(), count)
    ends = sizes.cumsum()
    which = np.searchsorted(ends, places, side="right")
    starts = places - (ends - sizes)[which]
    cut = [recordings[i][s : s + length] for i, s in zip(which, starts, strict=True)]
    return torch.from_numpy(np.stack(cut))


def encode(audio: Tensor, classes: int, gain_db: float = 0.0) -> Tensor:
    """Quantise [batch, samples] after a change of level; what leaves full scale is clipped."""
    return mu_law_encode(audio * 10 ** (gain_db / 20), classes)
