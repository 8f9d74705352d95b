"""LibriTTS, VCTK, CSMSC and JSUT: speakers and transcripts lie in their layout.

Each is told by its folders, not by its name, so that a corpus of the same shape serves as well.
"""

import re
from pathlib import Path

from wavewn.data.corpora.folders import (
    read_lines,
    read_transcript,
    sub_folders,
    training_subsets,
)
from wavewn.data.scan import Candidate

LIBRITTS_FILES = "[0-9]*/[0-9]*/[0-9]*_[0-9]*_*.wav"
VCTK_FOLDERS = ("wav48_silence_trimmed", "wav48")  # of the versions 0.92 and 0.80


def _libritts_subsets(folder: Path) -> list[Path]:
    return [one for one in [folder, *sub_folders(folder)] if any(one.glob(LIBRITTS_FILES))]


def is_libritts(folder: Path) -> bool:
    """Whether `folder` is LibriTTS or LibriTTS-R, or a subset of it."""
    return bool(_libritts_subsets(folder))


def list_libritts(folder: Path) -> list[Candidate]:
    """Read `[subset/]speaker/chapter/speaker_chapter_*.wav` with `*.normalized.txt` beside.

    Of several subsets those for training are taken; to prepare another, name its folder.
    """
    return [
        Candidate(path, path.parts[-3], read_transcript(path.with_suffix(".normalized.txt")))
        for subset in training_subsets(_libritts_subsets(folder))
        for path in sorted(subset.glob(LIBRITTS_FILES), key=lambda path: path.parts)
    ]


def is_vctk(folder: Path) -> bool:
    """Whether `folder` is VCTK."""
    return any(any((folder / name).glob("*/*_*")) for name in VCTK_FOLDERS)


def list_vctk(folder: Path) -> list[Candidate]:
    """Read `wav48*/p225/p225_001[_mic1].flac` with `txt/p225/p225_001.txt`.

    Version 0.92 has two microphones; the first is taken, which every speaker has, and the second
    only where a sentence has no other: twice the same sentence could be held out and trained on.
    """
    audio = next(folder / name for name in VCTK_FOLDERS if (folder / name).is_dir())
    found: list[Candidate] = []
    for speaker in sub_folders(audio):
        chosen: dict[str, Path] = {}
        for path in sorted(speaker.glob("[!.]*_*.*")):  # mic1 comes before mic2
            if path.suffix.lower() in {".wav", ".flac"}:
                chosen.setdefault(re.sub(r"_mic\d$", "", path.stem), path)
        for name, path in chosen.items():
            text = read_transcript(folder / "txt" / speaker.name / f"{name}.txt")
            found.append(Candidate(path, speaker.name, text))
    return found


def is_csmsc(folder: Path) -> bool:
    """Whether `folder` is CSMSC (Biaobei, BZNSYP)."""
    return (folder / "Wave").is_dir() and (folder / "ProsodyLabeling").is_dir()


def list_csmsc(folder: Path) -> list[Candidate]:
    """Read `Wave/000001.wav` and `ProsodyLabeling/*.txt`, without the latter's prosody marks."""
    texts: dict[str, str] = {}
    for file in sorted((folder / "ProsodyLabeling").glob("*.txt")):
        for line in read_lines(file):
            match = re.match(r"(\d+)\s+(.+)", line)  # lines that begin with a tab are pinyin
            if match:
                texts[match[1]] = re.sub(r"#\d", "", match[2]).strip()
    return [
        Candidate(path, text=texts.get(path.stem, ""))
        for path in sorted((folder / "Wave").glob("[!.]*.wav"))
    ]


def _jsut_subsets(folder: Path) -> list[Path]:
    folders = [folder, *sub_folders(folder)]
    return [
        one for one in folders if (one / "transcript_utf8.txt").is_file() and (one / "wav").is_dir()
    ]


def is_jsut(folder: Path) -> bool:
    """Whether `folder` is JSUT, or a subset of it."""
    return bool(_jsut_subsets(folder))


def list_jsut(folder: Path) -> list[Candidate]:
    """Read `basic5000/wav/BASIC5000_0001.wav` with `basic5000/transcript_utf8.txt`, `id:text`."""
    found: list[Candidate] = []
    for subset in _jsut_subsets(folder):
        pairs = (line.partition(":") for line in read_lines(subset / "transcript_utf8.txt"))
        texts = {key.strip(): text.strip() for key, _, text in pairs}
        for path in sorted((subset / "wav").glob("[!.]*.wav")):
            found.append(Candidate(path, text=texts.get(path.stem, "")))
    return found
