"""Graphs as files: traced, written beside, run, compared with the model, and only then renamed.

A file says about itself what a user must know: an ONNX file under the key "wavewn" of its metadata,
a .pt2 file in its extra file "wavewn.json". Both hold the same JSON, with the mels that it reads.
"""

import copy
import importlib.util
import json
import logging
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import BundleError, ConfigError
from wavewn.export.checks import Run, compare_stream, compare_whole, make_inputs
from wavewn.export.graphs import First, Graph, Last, Next, Steady, Whole, find_steady, shortest
from wavewn.models.generators import Generator, make_generator
from wavewn.models.levelled import Levelled
from wavewn.models.spectral import Spectral
from wavewn.nn.fourier import MatrixFourier
from wavewn.nn.weight_norm import folded_state_dict, load_state

Format = Literal["onnx", "torch"]
SUFFIX: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2"}
DESCRIPTION = "wavewn.json"
NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Plan:
    """A graph and how it is traced.

    Attributes:
        graph: Gives tensors for `example`.
        example: Its inputs.
        inputs: Their names.
        outputs: Names of what it gives.
        fewest: Frames of the shortest mel; 0 where their number is fixed.
    """

    graph: Graph
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fewest: int = 0


def export_whole(
    model: Generator,
    mel: MelSpec,
    path: str | os.PathLike[str],
    to: Format = "onnx",
    *,
    force: bool = False,
) -> float:
    """Write the graph of whole utterances.

    Args:
        model: With or without weight norm; it is not changed.
        mel: The mels that it reads.
        path: Of the file.
        to: Its format.
        force: Replace a file that is there.

    Returns:
        The largest difference from the model's own audio, as a share of its peak.

    Raises:
        BundleError: The file exists already, or cannot be written.
        ConfigError: A package is missing.
        EngineError: The graph's audio is not the model's. No file is left.
    """
    path = Path(path)
    _check_packages(to)
    if path.exists() and not force:
        raise BundleError(f"{path} exists already; choose another name, or pass --force")
    plain = _plain(model, mel)
    fewest = max(shortest(model), 2)  # torch traces one row of anything as a case of its own
    partial = path.with_name(f".{uuid.uuid4().hex}{SUFFIX[to]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        about = _about(model, mel) | {"graph": "whole", "fewest_frames": fewest}
        run = _write(_plan_whole(plain, mel, fewest), partial, to, about)
        worst = max(compare_whole(run, model, mel, fewest + more) for more in (0, 1, 13))
        partial.replace(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error})") from None
    finally:
        partial.unlink(missing_ok=True)
    return worst


def export_stream(
    model: Generator,
    mel: MelSpec,
    folder: str | os.PathLike[str],
    to: Format = "onnx",
    *,
    chunk_frames: int = 8,
    force: bool = False,
) -> float:
    """Write the graphs of streams, and that of whole utterances, into a folder.

    Args:
        model: As in `export_whole`.
        mel: As in `export_whole`.
        folder: Is made.
        to: Format of the files.
        chunk_frames: That the graph `next` hears in a call.
        force: Replace a folder that an earlier call made.

    Returns:
        As from `export_whole`.

    Raises:
        BundleError: The folder exists already, or cannot be written.
        ConfigError: A package is missing, or a chunk has no frames.
        EngineError: Audio of the graphs is not the model's. No folder is left.
    """
    folder = Path(folder)
    _check_packages(to)
    if chunk_frames < 1:
        raise ConfigError(f"a chunk must have at least 1 frame, got {chunk_frames}")
    if folder.exists() and not (force and (folder / DESCRIPTION).is_file()):
        raise BundleError(
            f"{folder} exists already; choose another folder, or pass --force to replace graphs"
        )
    plain, steady = _plain(model, mel), find_steady(model)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    about = _about(model, mel) | {
        "first_frames": steady.first_frames,
        "chunk_frames": chunk_frames,
        "lag_samples": steady.lag_samples,
        "state_size": steady.size,
    }
    try:
        partial.mkdir(parents=True)
        worst = export_whole(model, mel, partial / f"whole{SUFFIX[to]}", to)
        runs = {}
        for name, plan in _plan_stream(plain, mel, steady, chunk_frames).items():
            runs[name] = _write(plan, partial / f"{name}{SUFFIX[to]}", to, about | {"graph": name})
        sizes = {"first": steady.first_frames, "next": chunk_frames, "one": 1}
        for calls in ((), ("next", "next", "one", "one", "next", "one")):
            worst = max(worst, compare_stream(runs, model, mel, sizes, calls))
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (partial / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return worst


def _plain(model: Generator, mel: MelSpec) -> Generator:
    """Build the model anew, with plain weights and in real arithmetic."""
    if isinstance(model, Levelled):
        levels = copy.deepcopy(model.levels)
        levels.levelling.fourier = MatrixFourier(mel.n_fft)
        return Levelled(_plain(cast("Generator", model.generator), mel), levels).eval()
    made = make_generator(model.settings, mel)
    assert isinstance(made, nn.Module) and isinstance(model, nn.Module), "generators are modules"
    load_state(made, folded_state_dict(model))
    if isinstance(made, Spectral):
        made.fourier = MatrixFourier(made.settings.n_fft, made.levelling.n_fft)
        made.levelling.fourier = made.fourier
    return made.eval().requires_grad_(False)


def _about(model: Generator, mel: MelSpec) -> dict[str, Any]:
    """Say what a graph's user must know."""
    return {
        "format": 1,
        "kind": model.settings.kind,
        "mel": mel.to_dict(),
        "noise_channels": model.noise_channels,
    }


def _names(model: Generator) -> tuple[str, ...]:
    return ("mel", "noise") if model.noise_channels else ("mel",)


def _plan_whole(model: Generator, mel: MelSpec, fewest: int) -> Plan:
    example = make_inputs(model, mel, fewest + 7)
    return Plan(Whole(model), example, _names(model), ("audio",), fewest)


def _plan_stream(
    model: Generator, mel: MelSpec, steady: Steady, chunk_frames: int
) -> dict[str, Plan]:
    """Plan the graphs of a stream, by name."""
    state = torch.zeros(1, steady.size)
    names, both = _names(model), ("audio", "next_state")
    first = make_inputs(model, mel, steady.first_frames)
    plans = {"first": Plan(First(model, steady), first, names, both)}
    for name, frames in (("next", chunk_frames), ("one", 1)):
        example = (state, *make_inputs(model, mel, frames))
        plans[name] = Plan(Next(model, steady), example, ("state", *names), both)
    plans["last"] = Plan(Last(model, steady), (state,), ("state",), ("audio",))
    return plans


def _write(plan: Plan, path: Path, to: Format, about: Mapping[str, Any]) -> Run:
    """Trace a graph into a file; return what runs the file."""
    shapes: list[dict[int, Any]] = [{} for _ in plan.example]
    if plan.fewest:
        frames = torch.export.Dim("frames", min=plan.fewest)
        shapes[0] = {2: frames}
        if len(plan.example) > 1:
            shapes[1] = {2: plan.example[1].shape[2] // plan.example[0].shape[2] * frames}
    text = json.dumps(about, ensure_ascii=False)
    with torch.no_grad(), _quiet():
        program = torch.export.export(
            plan.graph, plan.example, dynamic_shapes=tuple(shapes), strict=False
        )
        if to == "torch":
            torch.export.save(program, path, extra_files={DESCRIPTION: text})
            return _run_torch(path)
        onnx = torch.onnx.export(
            program,
            plan.example,
            dynamo=True,
            verbose=False,
            input_names=plan.inputs,
            output_names=plan.outputs,
        )
        assert onnx is not None, "torch gives a program where no file is named"
        onnx.model.metadata_props["wavewn"] = text
        onnx.save(path)
    return _run_onnx(path)


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
        return [torch.from_numpy(one) for one in session.run(None, given)]

    return run


def _run_torch(path: Path) -> Run:
    module = torch.export.load(path).module()

    def run(*inputs: Tensor) -> list[Tensor]:
        given = module(*inputs)
        return [given] if isinstance(given, Tensor) else list(given)

    return run


def _check_packages(to: Format) -> None:
    if to not in SUFFIX:
        raise ConfigError(f"graphs are written as {' or '.join(SUFFIX)}, got {to!r}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if to == "onnx" and missing:
        raise ConfigError(f"ONNX files need the package {missing[0]}; pip install 'wavewn[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on its own inner life from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
