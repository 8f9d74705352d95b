"""Opening every recording once, to keep out what would break a training hours later.

A file is left out, with a reason that `rejected.jsonl` repeats, when it is

- unreadable: missing, empty, not audio, cut off in the middle, or holding NaN;
- too short: below the user's `--min-seconds`;
- silent: its peak is below -60 dBFS.

The length that counts is what could be decoded, not what the header says: the header of an MP3
only guesses.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wavewn.audio.io import audio_info, read_audio
from wavewn.data.manifest import Rejected, Utterance
from wavewn.errors import AudioError

SILENCE_DBFS = -60.0


@dataclass(frozen=True)
class Candidate:
    """A recording that a corpus names and nobody has opened yet."""

    path: Path
    speaker: str = ""
    text: str = ""


def check_recording(candidate: Candidate, min_seconds: float) -> Utterance | Rejected:
    """Read one file to its end and decide whether it can be trained on."""
    path = candidate.path
    try:
        sample_rate = audio_info(path).sample_rate
        audio = read_audio(path)
    except AudioError as error:
        return Rejected(path, "unreadable", str(error))
    samples = audio.numel()
    if samples == 0:
        return Rejected(path, "unreadable", f"{path}: no sample could be decoded")
    if samples < min_seconds * sample_rate:
        detail = f"{samples / sample_rate:.2f} s, shorter than {min_seconds:g} s"
        return Rejected(path, "too short", detail)
    if audio.abs().max() < 10 ** (SILENCE_DBFS / 20):
        return Rejected(path, "silent", f"peak below {SILENCE_DBFS:g} dBFS")
    return Utterance(path, samples, sample_rate, candidate.speaker, candidate.text)


def scan(
    candidates: Sequence[Candidate],
    min_seconds: float = 0.5,
    threads: int = 4,
    on_file: Callable[[], object] = lambda: None,
) -> tuple[list[Utterance], list[Rejected]]:
    """Check every file, in order; a broken one is noted and the scan goes on.

    Args:
        candidates: Recordings to open.
        min_seconds: Shorter recordings are rejected.
        threads: Files read at once.
        on_file: Called after each file, for a progress bar.
    """
    utterances: list[Utterance] = []
    rejected: list[Rejected] = []
    pool = ThreadPoolExecutor(threads)
    try:
        for result in pool.map(lambda one: check_recording(one, min_seconds), candidates):
            if isinstance(result, Utterance):
                utterances.append(result)
            else:
                rejected.append(result)
            on_file()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest of the corpus
    return utterances, rejected
