"""Who takes part: the engines that were asked for and can run here, and the baselines."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from wavewn.bench.baselines import Baseline, unfit
from wavewn.bench.race import BaselineContender, Contender, EngineContender
from wavewn.bench.subject import Subject
from wavewn.engine.call import WaveNetEngine
from wavewn.engine.reference import ReferenceEngine
from wavewn.errors import ConfigError, EngineError

logger = logging.getLogger(__name__)

ENGINES = ("auto", "native", "reference", "onepass")
PRECISIONS = ("float32", "float16", "int8")  # of WaveNets


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see measured: every combination of these.

    Attributes:
        engines: Of `ENGINES`.
        precisions: Such as "float32"; none are all that there are. Engines that have one precision
            take no notice.
        instruction_sets: "auto", "all", or names; engines without them take no notice.
        threads: Numbers of threads.
        streams: Numbers of streams.
    """

    engines: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ()
    instruction_sets: tuple[str, ...] = ("auto",)
    threads: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        for name in self.engines:
            if name not in ENGINES:
                raise ConfigError(f"no engine {name!r} here; choose from {', '.join(ENGINES)}")
        if min(*self.threads, *self.streams) < 1:
            raise ConfigError("numbers of threads and of streams must be at least 1")


def engines(subject: Subject, wish: Wish) -> Iterator[tuple[WaveNetEngine, int]]:
    """Make the engines of a wish one after another, each with its number of threads.

    What cannot run here is logged with its reason and left out.
    """
    from wavewn.engine.native import available

    wanted = list(wish.engines)
    if "auto" in wanted:
        reason = available()
        if reason:
            logger.warning("measuring the reference engine: %s", reason)
        wanted[wanted.index("auto")] = "reference" if reason else "native"
    for name in dict.fromkeys(wanted):
        if name == "onepass":
            logger.warning("onepass: left out: it does not run WaveNets")
            continue
        if name == "reference":
            for threads in wish.threads:
                yield ReferenceEngine(subject.weights), threads
            continue
        for precision, chosen, threads in itertools.product(
            wish.precisions or PRECISIONS, instruction_sets(wish), wish.threads
        ):
            try:
                yield make_native(subject, precision, chosen, threads), threads
            except EngineError as error:
                logger.warning("native, %s, %s: left out: %s", precision, chosen, error)


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
