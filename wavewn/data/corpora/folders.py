"""Folders of recordings, and the text files beside them."""

import os
from collections.abc import Sequence
from pathlib import Path

from wavewn.data.scan import Candidate
from wavewn.errors import DataError

AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .au .snd .caf .w64 .rf64 .sph .nist "
    ".voc .avr .sf .paf .svx .iff .mat .pvf .htk .xi .sds .sd2 .g722".split()
)


def list_folder(folder: Path) -> list[Candidate]:
    """Find every audio file below `folder`, in the order of their paths.

    Where the recordings lie in several sub-folders, the sub-folder's name is the speaker;
    folders that all recordings share do not count (`corpus/wav/ann/a.wav` is of ann).
    Hidden files and folders are passed over.
    """
    paths: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                paths.append(Path(root, name))
    if not paths:
        return []
    paths.sort(key=lambda path: path.parts)
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    speakers = [path.relative_to(shared).parts[:-1][:1] for path in paths]
    if len({speaker for speaker in speakers if speaker}) < 2:
        return [Candidate(path) for path in paths]
    return [
        Candidate(path, speaker[0] if speaker else shared.name)
        for path, speaker in zip(paths, speakers, strict=True)
    ]


def sub_folders(folder: Path) -> list[Path]:
    """The visible folders in `folder`, by name."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error}") from None
    return sorted(path for path in found if not path.name.startswith("."))


def training_subsets(folders: Sequence[Path]) -> list[Path]:
    """Those whose name begins with `train`, or all where none does.

    A corpus that comes with subsets of its own holds the others out, and so do we: a figure
    measured on its test set means nothing once that was trained on.
    """
    return [folder for folder in folders if folder.name.startswith("train")] or list(folders)


def read_lines(file: Path) -> list[str]:
    """Read a text file of a corpus.

    Raises:
        DataError: It is missing, or not UTF-8.
    """
    try:
        return file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}") from error


def read_transcript(file: Path) -> str:
    """Read a text file that holds one transcript; "" where there is none."""
    return " ".join(" ".join(read_lines(file)).split()) if file.is_file() else ""
