"""Tables that name recordings: file lists, LJSpeech, Hugging Face metadata, Kaldi.

A table is data: nothing that it says is executed, not even where Kaldi would.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wavewn.data.corpora.folders import read_lines, sub_folders, training_subsets
from wavewn.data.scan import Candidate
from wavewn.errors import DataError

LIST_SUFFIXES = frozenset({".txt", ".csv", ".lst"})
METADATA = ("metadata.jsonl", "metadata.csv")  # of the Hugging Face's audio folders
TEXT_COLUMNS = ("normalized_text", "transcription", "transcript", "text", "sentence")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "speaker_name")


def list_file(file: Path) -> list[Candidate]:
    """Read a file list: one `path`, `path|speaker` or `path|speaker|text` a line.

    A tab serves as well as `|`, and so does a comma in a `.csv`. Paths are relative to the
    list's folder. Empty lines, lines that begin with #, a heading and repeated paths are passed
    over: a file listed twice could be trained on and held out at once.

    Raises:
        DataError: Every line has a speaker of its own, so that the column must be a text.
    """
    found: dict[Path, Candidate] = {}
    for number, line in enumerate(read_lines(file)):
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


def is_ljspeech(folder: Path) -> bool:
    """Whether `folder` has LJSpeech's layout."""
    return (folder / "metadata.csv").is_file() and (folder / "wavs").is_dir()


def list_ljspeech(folder: Path) -> list[Candidate]:
    """Read LJSpeech's layout: `metadata.csv` with `id|text|normalised text`, and `wavs/id.wav`.

    Raises:
        DataError: `metadata.csv` is not such a table.
    """
    found: dict[Path, Candidate] = {}
    for number, line in enumerate(read_lines(folder / "metadata.csv"), start=1):
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


def is_metadata(file: Path) -> bool:
    """Whether the first line of `file` speaks of `file_name`."""
    try:
        with file.open("rb") as content:
            return b"file_name" in content.readline(1 << 16)  # there may be no second line
    except OSError:
        return False


def find_metadata(folder: Path) -> list[Path]:
    """The Hugging Face style tables of a folder, or of its sub-folders (train, test, ...)."""

    def tables_in(one: Path) -> list[Path]:
        return [one / name for name in METADATA if is_metadata(one / name)]

    subsets = [one for one in sub_folders(folder) if tables_in(one)]
    return tables_in(folder) or [
        file for one in training_subsets(subsets) for file in tables_in(one)
    ]


def is_metadata_folder(folder: Path) -> bool:
    """Whether `folder` is an audio folder as the Hugging Face's datasets describe it."""
    return bool(find_metadata(folder))


def list_metadata_folder(folder: Path) -> list[Candidate]:
    """Name the recordings of an audio folder; of its splits the training ones alone."""
    return [one for file in find_metadata(folder) for one in list_metadata(file)]


def list_metadata(file: Path) -> list[Candidate]:
    """Read `metadata.csv` or `metadata.jsonl`: rows with `file_name`, relative to the table.

    A transcript is taken from the first of the columns normalized_text, transcription,
    transcript, text and sentence that is there, a speaker from speaker, speaker_id or
    speaker_name.

    Raises:
        DataError: A row is broken or names no file.
    """
    rows = _json_rows(file) if file.suffix.lower() == ".jsonl" else _csv_rows(file)
    found: dict[Path, Candidate] = {}
    for number, row in rows:
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{file}, line {number}: expected a file_name, got {str(row)[:80]}")
        path = file.parent / name
        found.setdefault(
            path, Candidate(path, _first(row, SPEAKER_COLUMNS), _first(row, TEXT_COLUMNS))
        )
    return list(found.values())


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    given = (row[name] for name in names if isinstance(row.get(name), str | int))
    return " ".join(str(next(given, "")).split())


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: expected an object, got {line[:60]!r}")
        yield number, row


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(line + "\n" for line in read_lines(file))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV ({error})") from None


def is_kaldi(folder: Path) -> bool:
    """Whether `folder` is a Kaldi data directory."""
    return (folder / "wav.scp").is_file()


def list_kaldi(folder: Path) -> list[Candidate]:
    """Read a Kaldi data directory: `wav.scp`, and `utt2spk` and `text` where they are.

    Relative paths start from the current folder, as Kaldi's do, or from `folder` where such a
    file lies there. An `utt2spk` that gives each utterance its own speaker tells nobody apart.

    Raises:
        DataError: `wav.scp` names commands, pieces of archives or of recordings, not files.
    """
    scp = folder / "wav.scp"
    if (folder / "segments").is_file():
        raise DataError(
            f"{folder} has `segments`: its utterances are pieces of recordings, and wavewn reads "
            "whole files; write one file an utterance first (Kaldi: extract-segments)"
        )
    speakers, texts = (_read_kaldi_map(folder / name) for name in ("utt2spk", "text"))
    if all(key == speaker for key, speaker in speakers.items()):
        speakers = {}
    found: dict[Path, Candidate] = {}
    for number, line in enumerate(read_lines(scp), start=1):
        if not line.strip():
            continue
        key, value = (*line.split(None, 1), "")[:2]
        value = value.strip()
        if "|" in (value[:1], value[-1:]):
            raise DataError(
                f"{scp}, line {number}: {key} is the output of a command, {value[:60]!r}; wavewn "
                "executes nothing that a file says: write the recordings to files first "
                "(Kaldi: wav-copy) and name those"
            )
        if not value or value == "-" or re.search(r":\d+(\[.*\])?$", value):
            raise DataError(
                f"{scp}, line {number}: expected `id path-of-an-audio-file`, got {line[:80]!r}; "
                "write what lies in archives or streams to files first (Kaldi: wav-copy)"
            )
        path = folder / value if (folder / value).exists() else Path(value)
        found.setdefault(path, Candidate(path, speakers.get(key, ""), texts.get(key, "")))
    return list(found.values())


def _read_kaldi_map(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    pairs = ((*line.split(None, 1), "")[:2] for line in read_lines(file) if line.strip())
    return {key: value.strip() for key, value in pairs}
