"""A manifest: the checked and split list of a corpus's recordings, as a folder of small files.

`train.jsonl`, `valid.jsonl` and `test.jsonl` hold one utterance a line:

    {"audio": "wavs/a.flac", "samples": 81920, "sample_rate": 16000, "speaker": "", "text": ""}

`audio` is relative to the manifest's folder where the recording lies below it, so that such a
corpus can be moved, and absolute elsewhere. `rejected.jsonl` lists what was left out and why.
`manifest.json` sums all of it up and is written last: where it stands, the manifest is whole.

A manifest lists only files that were read to their end. Its split is a function of the file
order alone, so that preparing the same corpus twice holds the same utterances out.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavewn.errors import DataError
from wavewn.lock import lock

FORMAT = 1
JSON_ERRORS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Utterance:
    """A recording that can be read to its end.

    Attributes:
        path: Audio file; `load_manifest` makes it absolute.
        samples: Length at the file's own rate.
        sample_rate: The file's own rate in Hz.
        speaker: Name, or "" where the corpus does not tell speakers apart.
        text: Transcript, or "" where the corpus has none.
    """

    path: Path
    samples: int
    sample_rate: int
    speaker: str = ""
    text: str = ""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


@dataclass(frozen=True)
class Rejected:
    """A file that was left out; `scan.py` says for which reasons."""

    path: Path
    reason: str
    detail: str


@dataclass(frozen=True)
class Summary:
    """What `manifest.json` says of a whole manifest.

    Attributes:
        created_from: The source as the user named it.
        speakers: Names in order of first appearance; a speaker's index is its place here.
            Empty where the corpus does not tell speakers apart.
        counts: Utterances of each split.
        hours: Duration of each split.
        sample_rates: Number of utterances by sample rate.
        rejected: Number of files left out.
        licence: Of the recordings, "" where nobody stated one; bundles trained on them carry it.
    """

    created_from: str
    speakers: tuple[str, ...]
    counts: dict[str, int]
    hours: dict[str, float]
    sample_rates: dict[int, int]
    rejected: int
    licence: str = ""


def split(
    utterances: Sequence[Utterance], valid: int | None = None, test: int | None = None
) -> dict[str, list[Utterance]]:
    """Hold utterances out for validation and test, by file order alone.

    The test set is the last files, validation the ones before them. With several speakers the
    held-out files go round the speakers, each giving its last ones, and a speaker's first file
    is held out only when nothing else is left: else whole speakers would be missing in training.

    Args:
        utterances: In file order.
        valid: Size of the validation set; None is 2 %, at least 1 and at most 20.
        test: Size of the test set, likewise.

    Raises:
        DataError: Nothing would be left to train on.
    """
    total = len(utterances)
    default = max(1, min(20, total * 2 // 100))
    n_valid = default if valid is None else valid
    n_test = default if test is None else test
    if min(n_valid, n_test) < 0:
        raise DataError(f"--valid and --test must be 0 or more, got {n_valid} and {n_test}")
    if n_valid + n_test >= total:
        raise DataError(
            f"{total} usable recordings cannot give {n_valid} for validation, {n_test} for test "
            "and at least 1 to train on; add recordings or lower --valid and --test"
        )
    first: dict[str, int] = {}
    for i, utterance in enumerate(utterances):
        first.setdefault(utterance.speaker, i)
    from_the_end: Counter[str] = Counter()
    keys: list[tuple[bool, int, int]] = []
    for i in reversed(range(total)):
        speaker = utterances[i].speaker
        keys.append((first[speaker] == i, from_the_end[speaker], -i))
        from_the_end[speaker] += 1
    order = [-i for _, _, i in sorted(keys)]
    places = {
        "train": order[n_test + n_valid :],
        "valid": order[n_test : n_test + n_valid],
        "test": order[:n_test],
    }
    return {name: [utterances[i] for i in sorted(places[name])] for name in SPLITS}


def _stored_path(path: Path, folder: Path) -> str:
    """Return `path` as the manifest in `folder` states it."""
    whole, root = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def refuse_overwrite(folder: Path, force: bool) -> None:
    """Raise DataError if a manifest stands in `folder` and `force` is not given."""
    if (folder / "manifest.json").exists() and not force:
        raise DataError(f"{folder} already holds a manifest; add --force to replace it")


def save_manifest(
    folder: Path,
    splits: dict[str, list[Utterance]],
    rejected: Sequence[Rejected],
    created_from: str,
    force: bool = False,
    licence: str = "",
) -> Summary:
    """Write a manifest; a killed run leaves the old one, the new one, or none, never a mixture.

    Raises:
        DataError: `folder` holds a manifest and `force` is not given, or cannot be written.
    """
    refuse_overwrite(folder, force)
    utterances = [one for name in SPLITS for one in splits[name]]
    summary = Summary(
        created_from=created_from,
        speakers=tuple(dict.fromkeys(one.speaker for one in utterances if one.speaker)),
        counts={name: len(splits[name]) for name in SPLITS},
        hours={name: sum(one.duration_s for one in splits[name]) / 3600 for name in SPLITS},
        sample_rates=dict(sorted(Counter(one.sample_rate for one in utterances).items())),
        rejected=len(rejected),
        licence=licence,
    )
    contents: dict[str, str] = {}
    for name in SPLITS:
        rows = []
        for one in splits[name]:
            row = {"audio": _stored_path(one.path, folder), "samples": one.samples}
            row |= {"sample_rate": one.sample_rate, "speaker": one.speaker}
            rows.append(row | ({"text": one.text} if one.text else {}))
        contents[f"{name}.jsonl"] = _lines(rows)
    contents["rejected.jsonl"] = _lines(
        [
            {"audio": _stored_path(one.path, folder), "reason": one.reason, "detail": one.detail}
            for one in rejected
        ]
    )
    whole = {"format": FORMAT, **vars(summary)}
    contents["manifest.json"] = json.dumps(whole, ensure_ascii=False, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / ".manifest.lock"):
            refuse_overwrite(folder, force)  # another process may have been quicker
            _write(folder, contents)
    except OSError as error:
        raise DataError(f"cannot write a manifest to {folder}: {error}") from error
    return summary


def _write(folder: Path, contents: dict[str, str]) -> None:
    partials = {name: folder / f".{name}.partial" for name in contents}
    try:
        for name, content in contents.items():
            # surrogateescape keeps file names that are not UTF-8
            partials[name].write_text(content, "utf-8", "surrogateescape")
        (folder / "manifest.json").unlink(missing_ok=True)
        for name, partial in partials.items():
            partial.replace(folder / name)
    except OSError:
        for partial in filter(Path.is_file, partials.values()):
            partial.unlink()
        raise


def load_summary(folder: Path) -> Summary:
    """Read `manifest.json`.

    Raises:
        DataError: There is no whole manifest in `folder`, or it is of another format.
    """
    try:
        stored = json.loads((folder / "manifest.json").read_text("utf-8", "surrogateescape"))
        if stored["format"] != FORMAT:
            raise DataError(
                f"{folder} holds a manifest of format {stored['format']}, expected {FORMAT}; "
                f"run: wavewn prepare SOURCE --out {folder} --force"
            )
        speakers, counts = stored["speakers"], stored["counts"]
        if isinstance(speakers, str) or not all(isinstance(one, str) for one in speakers):
            raise TypeError("speakers must be names")
        return Summary(
            created_from=stored["created_from"],
            speakers=tuple(speakers),
            counts=dict(counts),
            hours=stored["hours"],
            sample_rates={int(rate): count for rate, count in stored["sample_rates"].items()},
            rejected=stored["rejected"],
            licence=str(stored.get("licence", "")),
        )
    except OSError as error:
        raise DataError(
            f"no manifest in {folder} (expected {folder / 'manifest.json'}); "
            f"run: wavewn prepare SOURCE --out {folder}"
        ) from error
    except JSON_ERRORS as error:
        raise DataError(
            f"{folder / 'manifest.json'} is damaged ({error}); "
            f"run: wavewn prepare SOURCE --out {folder} --force"
        ) from error


def _utterance(line: str, folder: Path) -> Utterance:
    row = json.loads(line)
    samples, sample_rate = row["samples"], row["sample_rate"]
    speaker, text = row.get("speaker", ""), row.get("text", "")
    if [type(one) for one in (samples, sample_rate, speaker, text)] != [int, int, str, str]:
        raise TypeError("samples and sample_rate must be whole numbers, speaker and text texts")
    if not (1 <= samples <= 2**53 and 1 <= sample_rate <= 2**53):
        raise ValueError("samples and sample_rate must be at least 1 and at most 2**53")
    path = Path(os.path.abspath(folder / row["audio"]))
    return Utterance(path, samples, sample_rate, speaker, text)


def load_manifest(folder: Path | str, split: str) -> list[Utterance]:
    """Read one split, in file order, with absolute paths; it may be empty.

    Raises:
        DataError: No whole manifest is there, a line is wrong, or the recordings have moved.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    count = load_summary(folder).counts.get(split)
    file = folder / f"{split}.jsonl"
    try:
        lines = file.read_text("utf-8", "surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}; run wavewn prepare again") from error
    utterances: list[Utterance] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            utterances.append(_utterance(line, folder))
        except JSON_ERRORS as error:
            raise DataError(
                f"{file}, line {number}: expected audio, samples and sample_rate as JSON, "
                f"got {line[:80]!r} ({error}); run wavewn prepare again"
            ) from error
    if len(utterances) != count:
        raise DataError(
            f"{file} lists {len(utterances)} utterances, manifest.json says {count}; "
            "run wavewn prepare again"
        )
    if utterances and not utterances[0].path.exists():
        raise DataError(
            f"{file} names {utterances[0].path}, which is not there; were the recordings moved? "
            "Run wavewn prepare again"
        )
    return utterances
