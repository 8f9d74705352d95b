"""Who takes part where a one-pass model is measured: our engine, and what users have without it.

That is the same network in eager torch, as it is published (float32, each convolution torch's own
`conv1d` with its own padding), the same compiled, and ONNX Runtime. All hear frames of the same
kind on the same threads.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wavewn.bench.generators import GeneratorSubject, Published, whole
from wavewn.bench.lineup import Wish
from wavewn.bench.race import CPU, Contender, EngineContender
from wavewn.engine.choice import ONE_PASS_ENGINES, native_for, why_not_bfloat16
from wavewn.engine.onepass import PRECISIONS, OnePassEngine
from wavewn.engine.onepass_native import instruction_sets
from wavewn.errors import ConfigError, EngineError

logger = logging.getLogger(__name__)


class EagerContender:
    """The published network in float32, in one piece from silence in each run.

    Args:
        subject: What to run.
        threads: That it may use.
        streams: That run as one batch.
        compiled: By torch.compile.
    """

    precision = "float32"
    instruction_set = ""

    def __init__(
        self, subject: GeneratorSubject, threads: int, streams: int, compiled: bool = False
    ) -> None:
        self.engine, self.device = "torch.compile" if compiled else "torch", CPU
        self.threads, self.streams = threads, streams
        self._subject, self._mel = subject, subject.mel(streams, 0)

        def run(mel: Tensor) -> Tensor:
            return whole(subject.model, mel, Published())

        self._run: Callable[[Tensor], Tensor] = torch.compile(run) if compiled else run

    @torch.no_grad()
    def run(self, frames: int) -> None:
        """See `Contender.run`."""
        if self._mel.shape[2] != frames:
            self._mel = self._subject.mel(self.streams, frames)
        torch.set_num_threads(self.threads)
        self._run(self._mel)


class OnnxContender:
    """The published network in ONNX Runtime.

    Raises:
        ConfigError: A package that writes ONNX is missing.
        ImportError: ONNX Runtime is.
    """

    engine = "onnxruntime"
    precision = "float32"
    instruction_set = ""
    streams = 1
    device = CPU

    def __init__(self, subject: GeneratorSubject, threads: int) -> None:
        import onnxruntime

        from wavewn.export import export_whole

        self.threads = threads
        self._subject, self._mel = subject, subject.mel(1, 0)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_whole(subject.model, subject.spec, path)
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

    def run(self, frames: int) -> None:
        """See `Contender.run`."""
        if self._mel.shape[2] != frames:
            self._mel = self._subject.mel(1, frames)
        feeds = {"mel": self._mel.numpy()}
        if channels := self._subject.model.noise_channels:
            shape = (1, channels, frames * self._subject.hop_length)
            feeds["noise"] = torch.randn(shape).numpy()
        self._session.run(None, feeds)


def generator_engines(subject: GeneratorSubject, wish: Wish) -> list[tuple[OnePassEngine, int]]:
    """Make the engines of a wish, each with its number of threads.

    What cannot run here is logged with its reason and left out.
    """
    found, device = [], torch.device(wish.device)
    for name in wish.engines:
        if name not in ("auto", *ONE_PASS_ENGINES):
            logger.warning("%s: left out: it does not run %s", name, subject.shape)
            continue
        for precision in dict.fromkeys(wish.precisions or reversed(PRECISIONS)):
            reason = why_not_bfloat16(device) if precision == "bfloat16" else ""
            if precision not in PRECISIONS or reason:
                why = reason or f"choose from {', '.join(PRECISIONS)}"
                logger.warning("onepass, %s: left out: %s", precision, why)
                continue
            for threads in wish.threads:
                try:
                    native = native_for(subject.model, name, precision, device)
                    for chosen in chosen_sets(wish, precision) if native else [""]:
                        engine = OnePassEngine(
                            subject.model, precision, device, threads, native=chosen
                        )
                        found.append((engine, threads))
                except EngineError as error:
                    logger.warning("%s, %s: left out: %s", name, precision, error)
    return found


def chosen_sets(wish: Wish, precision: str) -> Sequence[str]:
    """Resolve "all" to what the processor can run in this precision."""
    if "all" not in wish.instruction_sets:
        return wish.instruction_sets
    return [name for name, why in instruction_sets(precision).items() if not why]


def generator_contenders(
    subject: GeneratorSubject, wish: Wish, compiled: bool = False
) -> list[Contender]:
    """Make entries for the engine and for what users have without it.

    What cannot run is logged with its reason and left out.

    Raises:
        EngineError: The engine cannot run at all as wished.
    """
    found: list[Contender] = [
        EngineContender(engine, subject, threads, streams)
        for engine, threads in generator_engines(subject, wish)
        for streams in wish.streams
    ]
    if not found:
        raise EngineError(f"nothing to measure: of {', '.join(wish.engines)} none can run so here")
    if torch.device(wish.device) != CPU:
        logger.warning("torch and onnxruntime: left out: they are measured on the CPU alone")
        return found
    for threads in wish.threads:
        for streams in wish.streams:
            found.append(EagerContender(subject, threads, streams))
            if compiled:
                found.append(EagerContender(subject, threads, streams, compiled=True))
        try:
            found.append(OnnxContender(subject, threads))
        except (ImportError, ConfigError) as error:
            logger.warning("onnxruntime: left out: %s", error)
    return found
