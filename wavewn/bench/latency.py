"""Latency: how long one push of one frame takes, which is what a live caller waits for.

Pushes follow each other at once: a caller that sleeps between them finds colder caches. The time
inside the kernel, between the release of Python's lock and its return, is the engine's own; the
rest of the call is Python's, the worst of it that of other threads and of the system.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from wavewn.bench.race import Course, await_device
from wavewn.engine.call import Engine
from wavewn.engine.stream import Stream

WARM = 100  # pushes before those that count


@dataclass(frozen=True)
class Latency:
    """What pushes of one frame took.

    Attributes:
        engine: Its name.
        shape: As in `Subject`.
        upsampling: Likewise.
        precision: Of the engine.
        instruction_set: Likewise; empty where none was chosen.
        threads: Likewise.
        streams: That a push advances together.
        device: Where the engine runs.
        calls: Pushes that were timed.
        frame_ms: How long a frame sounds: a push must take less.
        call_ms: Median of whole calls.
        call_worst_ms: The longest of them.
        kernel_ms: Median inside the kernel; None where the engine does not tell.
        kernel_worst_ms: The longest of them, likewise.
    """

    engine: str
    shape: str
    upsampling: str
    precision: str
    instruction_set: str
    threads: int
    streams: int
    device: str
    calls: int
    frame_ms: float
    call_ms: float
    call_worst_ms: float
    kernel_ms: float | None
    kernel_worst_ms: float | None


def measure_latency(
    engine: Engine, subject: Course, threads: int, streams: int, calls: int
) -> Latency:
    """Push single frames, `calls` times, and time each push."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    speaker, device = subject.speaker(streams), engine.device
    stream = Stream(engine, streams, speaker=None if speaker is None else speaker.to(device))
    mel = subject.mel(streams, 1).to(device)
    out = torch.empty(streams * subject.hop_length, device=device)
    call_s, kernel_s = [], []
    try:
        behind = 1 - (-engine.latency_samples // subject.hop_length)
        stream.push(subject.mel(streams, getattr(engine, "look_ahead", behind)).to(device))
        for i in range(min(WARM, calls) + calls):
            began = time.perf_counter()
            stream.push(mel, out=out)
            await_device(device)
            took_s = time.perf_counter() - began
            if i >= min(WARM, calls):
                call_s.append(took_s)
                kernel_s.append(getattr(engine, "kernel_seconds", None))
    finally:
        torch.set_num_threads(before)
    inside = [value for value in kernel_s if value is not None]
    return Latency(
        engine=engine.name,
        shape=subject.shape,
        upsampling=subject.upsampling,
        precision=engine.precision,
        instruction_set=getattr(engine, "instruction_set", ""),
        threads=threads,
        streams=streams,
        device=str(device),
        calls=calls,
        frame_ms=1000 * subject.hop_length / subject.sample_rate,
        call_ms=1000 * statistics.median(call_s),
        call_worst_ms=1000 * max(call_s),
        kernel_ms=1000 * statistics.median(inside) if inside else None,
        kernel_worst_ms=1000 * max(inside) if inside else None,
    )
