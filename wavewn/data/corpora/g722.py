"""G.722 recordings, which PyAV decodes and libsndfile does not know.

Such a file is a bare stream of 64 kbit/s at 16 kHz: no header, no length, nothing to seek by.
So it is decoded once, when a corpus is prepared, into FLAC of the same 16-bit samples.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from wavewn.audio.io import write_audio
from wavewn.data.scan import Candidate
from wavewn.errors import AudioError, DataError

SUFFIX = ".g722"
SAMPLE_RATE = 16000


def check_decoder() -> None:
    """Raise DataError unless PyAV is here."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"these recordings are G.722, which needs PyAV ({error}); run: "
            "pip install 'wavewn[g722]'"
        ) from None


def read_g722(path: Path) -> np.ndarray:
    """Decode a file to [samples], int16, at 16 kHz.

    Raises:
        AudioError: It is missing or empty, or no decoder takes it.
    """
    import av

    try:
        with av.open(str(path), format="g722") as container:
            blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise AudioError(f"{path}: cannot be decoded as G.722 ({error})") from None
    if not blocks:
        raise AudioError(f"{path}: holds no samples; copy it again")
    return np.concatenate(blocks)


def decode(
    candidates: Sequence[Candidate], folder: Path, on_file: Callable[[], object] = lambda: None
) -> list[Candidate]:
    """Replace each G.722 file by its decoded copy in `folder`; others stay where they are.

    A file that cannot be decoded stays too, for the scan to reject it.

    Raises:
        DataError: There is G.722, and no PyAV or no room to write.
    """
    found = [one for one in candidates if one.path.suffix.lower() == SUFFIX]
    if not found:
        return list(candidates)
    check_decoder()
    shared = os.path.commonpath([one.path.absolute().parent for one in found])
    decoded: dict[Path, Path] = {}
    for one in found:
        copy = folder / one.path.absolute().relative_to(shared).with_suffix(".flac")
        try:
            samples = read_g722(one.path)
        except AudioError:
            decoded[one.path] = one.path
        else:
            _write(copy, samples)
            decoded[one.path] = copy
        on_file()
    return [Candidate(decoded.get(one.path, one.path), one.speaker, one.text) for one in candidates]


def _write(path: Path, samples: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, torch.from_numpy(samples / np.float32(32768)), SAMPLE_RATE)
    except (OSError, AudioError) as error:
        raise DataError(f"cannot write the decoded copy of a recording: {error}") from None
