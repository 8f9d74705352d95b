"""Races: several ways to run one model, warm, in turns, in one process.

A machine is never the same for long: clocks change and neighbours come. So contenders take
turns, in another order each round, the bound of each is measured beside it in each round, and the
median of the rounds counts. What is timed is a whole call from mel frames to samples, conditioning
and noise included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wavewn.bench.baselines import Baseline
from wavewn.bench.subject import Subject
from wavewn.engine.call import Engine
from wavewn.state import StreamState

CPU = torch.device("cpu")


class Course(Protocol):
    """What a race is about: a model of any kind; a `Subject` is one.

    Attributes:
        shape: Its name.
        upsampling: Of its condition, where it has one.
        sample_rate: In Hz.
        hop_length: Samples a frame.
        fixed: Whether it has no rate of its own, and is quoted at 24 kHz, too.
        fewest_frames: Of a run.
        most_frames: Likewise.
    """

    @property
    def shape(self) -> str:
        """See above."""

    @property
    def upsampling(self) -> str:
        """See above."""

    @property
    def sample_rate(self) -> int:
        """See above."""

    @property
    def hop_length(self) -> int:
        """See above."""

    @property
    def fixed(self) -> bool:
        """See above."""

    @property
    def fewest_frames(self) -> int:
        """See above."""

    @property
    def most_frames(self) -> int:
        """See above."""

    def mel(self, streams: int, frames: int) -> Tensor:
        """Make up [streams, bands, frames]."""

    def speaker(self, streams: int) -> Tensor | None:
        """Choose a speaker for each stream, where the model knows any."""

    def bound(self, precision: str, threads: int, streams: int) -> float | None:
        """Measure how many samples a second the processor allows at most; None: it cannot be."""


class Contender(Protocol):
    """Something that turns mel frames into samples.

    Attributes:
        engine: Its name.
        precision: Of its weights.
        instruction_set: Where it was chosen, else empty.
        threads: That it may use.
        streams: That it advances together.
        device: Where it runs.
    """

    engine: str
    precision: str
    instruction_set: str
    threads: int
    streams: int
    device: torch.device

    def run(self, frames: int) -> None:
        """Generate so many frames of audio of each stream."""


class EngineContender:
    """An engine with a batch of streams that goes on from run to run."""

    def __init__(self, engine: Engine, subject: Course, threads: int, streams: int) -> None:
        self.engine, self.precision = engine.name, engine.precision
        self.instruction_set: str = getattr(engine, "instruction_set", "")
        self.threads, self.streams, self.device = threads, streams, engine.device
        self._engine, self._subject = engine, subject
        self._state = StreamState.zeros(engine.layout, streams, device=engine.device)
        self._mel = subject.mel(streams, getattr(engine, "look_ahead", 0)).to(self.device)
        speaker = subject.speaker(streams)
        self._speaker = None if speaker is None else speaker.to(self.device)
        self._engine.generate(self._state, self._mel, speaker=self._speaker)

    def run(self, frames: int) -> None:
        """See `Contender.run`."""
        if self._mel.shape[2] != frames:
            self._mel = self._subject.mel(self.streams, frames).to(self.device)
        torch.set_num_threads(self.threads)
        self._engine.generate(self._state, self._mel, speaker=self._speaker)
        await_device(self.device)


class BaselineContender:
    """A baseline: one stream on one thread in float32, from silence in each run."""

    precision = "float32"
    instruction_set = ""
    threads = streams = 1
    device = CPU

    def __init__(self, baseline: Baseline, subject: Subject) -> None:
        self.engine = baseline.name
        self._baseline, self._subject = baseline, subject
        self._mel = subject.mel(1, 0)

    def run(self, frames: int) -> None:
        """See `Contender.run`."""
        if self._mel.shape[2] != frames:
            self._mel = self._subject.mel(1, frames)
        torch.set_num_threads(1)
        self._baseline.generate(self._mel)


@dataclass(frozen=True)
class Result:
    """What a contender reached.

    Attributes:
        engine: As in `Contender`.
        shape: As in `Subject`.
        upsampling: Likewise.
        precision: As in `Contender`.
        instruction_set: Likewise.
        threads: Likewise.
        streams: Likewise.
        device: Likewise.
        samples_per_s: Of all streams together, the median of the rounds.
        rtf: Seconds of computing for a second of audio of each stream; below 1 is faster than
            real time.
        rtf_24k: The same at 24 kHz, for the shapes, which have no rate of their own.
        share_of_bound: `samples_per_s` over the bound (bound.py, generators.py), or None where
            there is none, as on a GPU.
        bound_samples_per_s: The bound, measured in the same rounds.
        spread: Fastest minus slowest round over the median.
        rounds: How many there were.
    """

    engine: str
    shape: str
    upsampling: str
    precision: str
    instruction_set: str
    threads: int
    streams: int
    device: str
    samples_per_s: float
    rtf: float
    rtf_24k: float | None
    share_of_bound: float | None
    bound_samples_per_s: float | None
    spread: float
    rounds: int


def race(
    subject: Course, contenders: Sequence[Contender], seconds: float, rounds: int
) -> list[Result]:
    """Measure contenders beside each other.

    Args:
        subject: What they run.
        contenders: At least one.
        seconds: Of one run of one contender, about; a run has the fewest frames at least.
        rounds: Runs of each that count.

    Returns:
        One result for each contender, in their order.
    """
    hop = subject.hop_length
    threads = torch.get_num_threads()
    rates: list[list[float]] = [[] for _ in contenders]
    bounds: list[list[float]] = [[] for _ in contenders]
    try:
        limits = subject.fewest_frames, subject.most_frames
        frames = [frames_for(one.run, seconds, *limits) for one in contenders]
        for turn in range(rounds):
            for place in range(len(contenders)):
                i = (turn + place) % len(contenders)
                contender = contenders[i]
                load = contender.precision, contender.threads, contender.streams
                bound = subject.bound(*load) if contender.device == CPU else None
                if bound is not None:
                    bounds[i].append(bound)
                took_s = seconds_of(contender.run, frames[i])
                rates[i].append(frames[i] * hop * contender.streams / took_s)
    finally:
        torch.set_num_threads(threads)
    return [
        make_result(subject, contender, rate, bound)
        for contender, rate, bound in zip(contenders, rates, bounds, strict=True)
    ]


def make_result(
    subject: Course, contender: Contender, rates: Sequence[float], bounds: Sequence[float]
) -> Result:
    """Sum up the rounds of one contender; `bounds` may be empty."""
    rate = statistics.median(rates)
    bound = statistics.median(bounds) if bounds else None
    return Result(
        engine=contender.engine,
        shape=subject.shape,
        upsampling=subject.upsampling,
        precision=contender.precision,
        instruction_set=contender.instruction_set,
        threads=contender.threads,
        streams=contender.streams,
        device=str(contender.device),
        samples_per_s=rate,
        rtf=contender.streams * subject.sample_rate / rate,
        rtf_24k=contender.streams * 24_000 / rate if subject.fixed else None,
        share_of_bound=rate / bound if bound else None,
        bound_samples_per_s=bound,
        spread=(max(rates) - min(rates)) / rate,
        rounds=len(rates),
    )


def frames_for(run: Callable[[int], None], seconds: float, fewest: int, most: int) -> int:
    """Warm something up and find for how many frames it takes about so many seconds."""
    run(fewest)  # compiles, packs, allocates
    frames = fewest
    while (took_s := seconds_of(run, frames)) < seconds / 4 and frames < most:
        frames = min(4 * frames, most)
    return max(fewest, min(round(frames * seconds / took_s), most))


def await_device(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[int], None], frames: int) -> float:
    """Time one run."""
    began = time.perf_counter()
    run(frames)
    return time.perf_counter() - began
