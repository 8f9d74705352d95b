"""Where the recordings of a corpus lie: folders, file lists, LJSpeech's layout, festvox-ru.

Each `list_*` function names a corpus's files in order, with speaker and transcript where the
corpus states them, and opens no audio: `scan.py` does. File order is the order of paths,
or of the lines where the corpus comes with a list.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from wavewn.data.scan import Candidate
from wavewn.errors import DataError

AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .au .snd .caf .w64 .rf64 .sph .nist "
    ".voc .avr .sf .paf .svx .iff .mat .pvf .htk .xi .sds .sd2".split()
)
LIST_SUFFIXES = frozenset({".txt", ".csv", ".lst"})
FESTVOX_RU = "festvox-ru"
FESTVOX_RU_VOICE = Path("usr/share/festival/voices/russian/msu_ru_nsh_clunits")
FESTVOX_RU_SPEAKER = "msu_ru_nsh"
FESTVOX_RU_HELD_OUT = 20  # the last 20 files: every published figure is measured on them


def find_candidates(source: Path) -> list[Candidate]:
    """Name the recordings of a folder, of LJSpeech's layout, or of a file list.

    Raises:
        DataError: `source` is none of these, or names no recording.
    """
    if source.is_dir():
        found = list_ljspeech(source) if is_ljspeech(source) else list_folder(source)
    elif source.is_file() and source.suffix.lower() in LIST_SUFFIXES:
        found = list_file(source)
    elif source.exists():
        raise DataError(
            f"{source} is neither a folder nor a file list ({', '.join(sorted(LIST_SUFFIXES))}); "
            "name the folder that holds the recordings"
        )
    else:
        raise DataError(
            f"{source} does not exist; expected a folder of recordings, a file list, "
            f"or the name {FESTVOX_RU}"
        )
    if not found:
        raise DataError(f"{source} names no recordings; is it the right folder or list?")
    return found


def is_ljspeech(folder: Path) -> bool:
    """Whether `folder` has LJSpeech's layout."""
    return (folder / "metadata.csv").is_file() and (folder / "wavs").is_dir()


def list_folder(folder: Path) -> list[Candidate]:
    """Find every audio file below `folder`, in the order of their paths.

    Where the recordings lie in several sub-folders, the sub-folder's name is the speaker;
    folders that all recordings share do not count (`VCTK/wav48/p225/a.wav` is of p225).
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


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}") from error


def list_file(file: Path) -> list[Candidate]:
    """Read a file list: one `path`, `path|speaker` or `path|speaker|text` a line.

    A tab serves as well as `|`, and so does a comma in a `.csv`. Paths are relative to the
    list's folder. Empty lines, lines that begin with #, a heading and repeated paths are passed
    over: a file listed twice could be trained on and held out at once.

    Raises:
        DataError: Every line has a speaker of its own, so that the column must be a text.
    """
    found: dict[Path, Candidate] = {}
    for number, line in enumerate(_read_lines(file)):
        if not line.strip() or line.startswith("#"):
            continue
        comma = "," if file.suffix.lower() == ".csv" else "|"
        mark = next((mark for mark in "|\t" if mark in line), comma)
        name, speaker, text = ([part.strip() for part in line.split(mark, 2)] + ["", ""])[:3]
        if number == 0 and name.lower() in {"path", "audio", "file", "filename", "wav"}:
            continue
        path = file.parent / name
        found.setdefault(path, Candidate(path, speaker, text))
    speakers = {one.speaker for one in found.values()} - {""}
    if len(speakers) == len(found) >= 10:
        raise DataError(
            f"{file}: each of the {len(found)} lines names a speaker of its own "
            f"({sorted(speakers)[0][:40]!r}, ...); expected path|speaker or path|speaker|text"
        )
    return list(found.values())


def list_ljspeech(folder: Path) -> list[Candidate]:
    """Read LJSpeech's layout: `metadata.csv` with `id|text|normalised text`, and `wavs/id.wav`.

    Raises:
        DataError: `metadata.csv` is not such a table.
    """
    found: dict[Path, Candidate] = {}
    for number, line in enumerate(_read_lines(folder / "metadata.csv"), start=1):
        if not line.strip():
            continue
        parts = line.split("|")
        if len(parts) < 2:
            raise DataError(
                f"{folder / 'metadata.csv'}, line {number}: expected id|text, got {line[:60]!r}; "
                f"to take the recordings without it: wavewn prepare {folder / 'wavs'}"
            )
        path = folder / "wavs" / f"{parts[0].removesuffix('.wav')}.wav"
        found.setdefault(path, Candidate(path, text=parts[-1].strip()))
    return list(found.values())


def list_festvox_ru(tree: Path) -> list[Candidate]:
    """Name the recordings of an extracted festvox-ru package, with their transcripts.

    Args:
        tree: The folder that the package was extracted to, or any folder on the way down to
            the wavs' own.

    Raises:
        DataError: The voice's recordings are not there.
    """
    shared = FESTVOX_RU_VOICE.parts
    voices = [tree.joinpath(*shared[i:]) for i in range(len(shared) + 1)]
    voices += [tree.parent] if tree.name == "wav" else []
    voice = next((path for path in voices if any(path.glob("wav/ru_*.wav"))), None)
    if voice is None:
        raise DataError(
            f"{tree} does not hold festvox-ru: expected {FESTVOX_RU_VOICE}/wav/ru_*.wav below it"
        )
    transcripts = voice / "etc" / "txt.done.data"
    lines: Iterable[str] = _read_lines(transcripts) if transcripts.is_file() else ()
    matches = [re.match(r'\(\s*(\S+)\s+"(.*)"\s*\)', line) for line in lines]
    texts = {match[1]: match[2] for match in matches if match}
    return [
        Candidate(path, FESTVOX_RU_SPEAKER, texts.get(path.stem, ""))
        for path in sorted(voice.glob("wav/*.wav"))
    ]


def get_festvox_ru(out: Path, download: bool, given: Path | None) -> Path:
    """Return the folder of the extracted festvox-ru package, bringing it into `out` if need be.

    Args:
        out: Where the package is extracted to, in a folder `festvox-ru`; one that is there
            already is taken as it is.
        download: Fetch the Debian package with apt.
        given: A `.deb` file or an extracted tree that the user has.

    Raises:
        DataError: It is not here and cannot be brought; the message says what to do.
    """
    if given is not None:
        if given.is_dir():
            return given
        if not given.is_file():
            raise DataError(f"--from {given}: expected a .deb file or an extracted folder")
    tree = out / FESTVOX_RU
    if tree.is_dir():
        return tree
    if given is None and not download:
        raise DataError(
            f"{FESTVOX_RU} is not in {out}; add --download (Debian or Ubuntu, 179 MB), "
            f"or --from PATH with the package's .deb or its extracted folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{FESTVOX_RU}-", dir=out) as workspace:
            package = given if given is not None else _download(FESTVOX_RU, Path(workspace))
            extracted = Path(workspace) / "tree"
            _extract(package, extracted)
            list_festvox_ru(extracted)
            extracted.rename(tree)
    except OSError as error:
        raise DataError(f"cannot write {FESTVOX_RU} into {out}: {error}") from error
    return tree


def _download(package: str, folder: Path) -> Path:
    """Fetch a Debian package file without root and without installing it."""
    if shutil.which("apt-get") is None:
        raise DataError(
            f"--download needs apt-get (Debian, Ubuntu), which is not here; fetch {package}'s .deb "
            f"from packages.debian.org and pass it: wavewn prepare {package} --from FILE.deb ..."
        )
    done = subprocess.run(
        ["apt-get", "download", package], cwd=folder, capture_output=True, text=True, check=False
    )
    files = sorted(folder.glob("*.deb"))
    if done.returncode != 0 or not files:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"apt-get download {package} failed ({said}); run `apt-get update` as root first, "
            "and see that Debian's main section is among the sources; or use --from FILE.deb"
        )
    return files[0]


def _extract(package: Path, folder: Path) -> None:
    """Unpack a .deb into `folder` without installing it."""
    if shutil.which("dpkg") is None:
        raise DataError(
            f"unpacking {package} needs dpkg, which is not here; unpack it yourself "
            "(ar x FILE.deb; tar xf data.tar.*) and pass the folder with --from"
        )
    done = subprocess.run(
        ["dpkg", "-x", str(package), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{package} is not a Debian package that can be unpacked: {said}")
