"""Who takes part: the engines that were asked for and can run here, and the baselines."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

from wavewn.bench.baselines import Baseline, unfit
from wavewn.bench.race import BaselineContender, Contender, EngineContender
from wavewn.bench.subject import Subject
from wavewn.engine.call import WaveNetEngine
from wavewn.engine.choice import (
    ENGINES,
    ON_CPU,
    ON_CUDA,
    PRECISIONS_OF,
    make_engine,
    why_not,
)
from wavewn.engine.reference import ReferenceEngine
from wavewn.errors import ConfigError, EngineError

logger = logging.getLogger(__name__)

PRECISIONS = ("float32", "float16", "int8")  # of the native engine


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see measured: every combination of these.

    Attributes:
        engines: "auto", or of `ENGINES`.
        precisions: Such as "float32"; none are all that there are. Engines that have one precision
            take no notice.
        instruction_sets: "auto", "all", or names; engines without them take no notice.
        threads: Numbers of threads.
        streams: Numbers of streams.
        device: Where the engines run.
    """

    engines: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ()
    instruction_sets: tuple[str, ...] = ("auto",)
    threads: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.engines:
            if name not in ("auto", *ENGINES):
                known = ", ".join(ENGINES)
                raise ConfigError(f"no engine {name!r} here; choose from auto, {known}")
        if min(*self.threads, *self.streams) < 1:
            raise ConfigError("numbers of threads and of streams must be at least 1")


def engines(subject: Subject, wish: Wish) -> Iterator[tuple[WaveNetEngine, int]]:
    """Make the engines of a wish one after another, each with its number of threads.

    What cannot run here is logged with its reason and left out.
    """
    device = torch.device(wish.device)
    wanted = list(wish.engines)
    if "auto" in wanted:
        wanted[wanted.index("auto")] = best_engine(device)
    for name in dict.fromkeys(wanted):
        if name == "onepass":
            logger.warning("onepass: left out: it does not run WaveNets")
        elif reason := why_not(name, "auto", device):
            logger.warning("%s: left out: %s", name, reason)
        elif name == "native":
            yield from native_engines(subject, wish)
        else:
            yield from torch_engines(subject, wish, name, device)


def best_engine(device: torch.device) -> str:
    """Name the engine that "auto" is; why it is not a faster one is logged."""
    for name in ON_CUDA if device.type == "cuda" else ON_CPU:
        if not (reason := why_not(name, "auto", device)):
            break
        logger.warning("not measuring the %s engine: %s", name, reason)
    return name


def native_engines(subject: Subject, wish: Wish) -> Iterator[tuple[WaveNetEngine, int]]:
    """Make the native engine in each precision, instruction set and number of threads."""
    for precision, chosen, threads in itertools.product(
        wish.precisions or PRECISIONS, instruction_sets(wish), wish.threads
    ):
        try:
            yield make_native(subject, precision, chosen, threads), threads
        except EngineError as error:
            logger.warning("native, %s, %s: left out: %s", precision, chosen, error)


def torch_engines(
    subject: Subject, wish: Wish, name: str, device: torch.device
) -> Iterator[tuple[WaveNetEngine, int]]:
    """Make an engine whose tensors are torch's, in each precision it has and number of threads."""
    own = PRECISIONS_OF[name]
    if len(own) > 1 and wish.precisions:
        own = tuple(precision for precision in own if precision in wish.precisions)
    for precision, threads in itertools.product(own, wish.threads):
        try:
            engine = make_engine(subject.weights, name, precision, device=device)
        except EngineError as error:
            logger.warning("%s, %s: left out: %s", name, precision, error)
            continue
        yield cast("WaveNetEngine", engine), threads


def instruction_sets(wish: Wish) -> tuple[str, ...]:
    """Resolve "all" to what the processor can run."""
    if "all" not in wish.instruction_sets:
        return wish.instruction_sets
    from wavewn.engine import native

    if native.available():
        return ("auto",)
    return tuple(name for name, reason in native.instruction_sets().items() if not reason)


def make_native(
    subject: Subject, precision: str, instruction_set: str, threads: int
) -> WaveNetEngine:
    """Make a native engine.

    Raises:
        EngineError: It cannot run here so.
    """
    from wavewn.engine.native import NativeEngine

    calibration = subject.calibration if precision == "int8" else None
    return NativeEngine(subject.weights, precision, instruction_set, threads, calibration)


def contenders(subject: Subject, wish: Wish) -> list[Contender]:
    """Make an entry for each engine and number of streams."""
    return [
        EngineContender(engine, subject, threads, streams)
        for engine, threads in engines(subject, wish)
        for streams in wish.streams
    ]


def baselines(subject: Subject) -> list[Contender]:
    """Make the entries of what the native engine is compared with; see baselines.py.

    What cannot run here is logged with its reason and left out.
    """
    found: list[Contender] = [
        EngineContender(ReferenceEngine(subject.weights), subject, threads=1, streams=1)
    ]
    if reason := unfit(subject.weights):
        logger.warning("numba and onnxruntime: left out: %s", reason)
        return found
    made: list[Baseline] = []
    try:
        from wavewn.bench.numba_loop import NumbaLoop

        made.append(NumbaLoop(subject.weights))
    except ImportError as error:
        logger.warning("numba: left out: %s", error)
    try:
        from wavewn.bench.onnx_step import OnnxStep

        made.append(OnnxStep(subject.weights))
    except ImportError as error:
        logger.warning("onnxruntime: left out: %s; pip install 'wavewn[bench]' brings it", error)
    return [*found, *(BaselineContender(baseline, subject) for baseline in made)]
