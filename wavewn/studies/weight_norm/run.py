"""All cells of a study, on several processes, each kept as a file as soon as it is done.

    cells/NAME.json   figures of one cell; a study that is started again goes on behind these
    audio/NAME.wav    free-running samples of the first seed
    study.json        settings and speech; a folder belongs to one study

A cell runs on one thread, so its figures do not depend on how many processes there are.
"""

import contextlib
import json
import multiprocessing
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavewn import __version__
from wavewn.audio.io import write_audio
from wavewn.errors import DataError
from wavewn.studies.weight_norm.recurrent import LONGER, run_recurrent_cell
from wavewn.studies.weight_norm.settings import Cell, StudySettings, list_cells
from wavewn.studies.weight_norm.speech import Speech, load_speech
from wavewn.studies.weight_norm.stack_cell import run_stack_cell

PAUSE_S = 0.1  # between the free-running samples of one file

Figures = dict[str, Any]


def load_study_speech(settings: StudySettings, corpus: Path) -> Speech:
    """Read a prepared corpus for a study; DataError where it does not serve."""
    shortest = max(settings.crop, LONGER * settings.recurrent_length) + 1
    return load_speech(corpus, settings.sample_rate, shortest)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_cell(
    settings: StudySettings, speech: Speech, cell: Cell
) -> tuple[Figures, np.ndarray | None]:
    """Train and measure one cell: a function of its arguments alone, on one thread."""
    with _one_thread():
        if cell.kind == "stack":
            return run_stack_cell(settings, speech, cell)
        return run_recurrent_cell(settings, speech, cell), None


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}; choose another --out") from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            partial.unlink()


def to_json(values: object) -> str:
    """Return JSON text, sorted so that equal values give equal files."""
    return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _claim(out: Path, settings: StudySettings, speech: Speech) -> None:
    """Make `out` the folder of this study, or see that it is."""
    identity = {
        "settings": settings.to_dict(),
        "corpus": {
            "name": speech.corpus,
            "digest": speech.digest,
            "train_s": round(sum(map(len, speech.train)) / settings.sample_rate, 1),
            "held_out_s": round(sum(map(len, speech.held_out)) / settings.sample_rate, 1),
            "strange": speech.strange_is,
        },
    }
    file = out / "study.json"
    if file.exists() and _read(file) != identity:
        raise DataError(
            f"{out} holds another study (other settings or other speech); choose another --out"
        )
    write_text(file, to_json(identity))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; remove it and run again") from error


def _keep(out: Path, settings: StudySettings, cell: Cell, done: Figures, audio: Any) -> None:
    if audio is not None and cell.seed == settings.seeds[0]:
        rate = settings.sample_rate
        pause = np.zeros(round(PAUSE_S * rate), np.float32)
        joined = np.concatenate([part for voice in audio for part in (voice, pause)])
        (out / "audio").mkdir(exist_ok=True)
        write_audio(out / "audio" / f"{cell.name}.wav", torch.from_numpy(joined), rate)
    write_text(out / "cells" / f"{cell.name}.json", to_json(done))


def run_cells(
    settings: StudySettings,
    speech: Speech,
    out: Path,
    *,
    workers: int,
    on_done: Callable[[Cell], None] = lambda cell: None,
) -> dict[Cell, Figures]:
    """Run what is not there yet.

    Args:
        settings: What to run.
        speech: From `load_study_speech`.
        out: Folder; figures found there are taken as they are.
        workers: Processes; 1 runs within this one.
        on_done: Called for each cell, those that are there included.

    Returns:
        Figures of all cells.

    Raises:
        DataError: `out` belongs to another study or cannot be written.
    """
    _claim(out, settings, speech)
    cells = list_cells(settings)
    files = {cell: out / "cells" / f"{cell.name}.json" for cell in cells}
    pending = [cell for cell in cells if not files[cell].exists()]
    for cell in cells:
        if cell not in pending:
            on_done(cell)
    if workers == 1:
        for cell in pending:
            _keep(out, settings, cell, *run_cell(settings, speech, cell))
            on_done(cell)
    elif pending:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        with ProcessPoolExecutor(min(workers, len(pending)), mp_context=spawn) as pool:
            try:
                runs = {pool.submit(run_cell, settings, speech, cell): cell for cell in pending}
                for run in as_completed(runs):
                    _keep(out, settings, runs[run], *run.result())
                    on_done(runs[run])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return {cell: _read(file) for cell, file in files.items()}


def versions() -> dict[str, str]:
    """Return the versions that the figures rest on."""
    return {
        "wavewn": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def read_identity(out: Path) -> dict[str, Any]:
    """Read back the settings and the speech of a study's folder."""
    return _read(out / "study.json")
