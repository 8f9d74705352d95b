"""WaveNet's engines: samples a second, latency of a chunk of 10 ms, and how much of a GPU it takes.

The frames are of 240 samples: 10 ms at 24 kHz. Weights are random, which speed does not notice.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from plain_step import PlainStep
from report import Part

from wavewn.bench.subject import SHAPES
from wavewn.config import Condition
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.stream import Stream
from wavewn.engine.weights import WaveNetWeights, pack_wavenet
from wavewn.errors import WavewnError
from wavewn.models.wavenet import WaveNet
from wavewn.state import StreamState

BANDS, HOP, RATE, SILENCE = 80, 240, 24_000, -11.5
STREAMS = (1, 8, 64, 256)
NV_WAVENET = 42_800  # samples/s; persistent kernel, float16, V100, as its users report
WAYS = ("cuda float32", "cuda float16", "graph", "reference")


def weights_of(shape: str, tiny: bool) -> WaveNetWeights:
    settings = dataclasses.replace(SHAPES[shape], condition=Condition(upsampling="linear"))
    if tiny:
        settings = dataclasses.replace(settings, residual_channels=8, layers_per_cycle=2)
    torch.manual_seed(0)
    return pack_wavenet(WaveNet(settings, BANDS, 8 if tiny else HOP, SILENCE))


def make(way: str, weights: WaveNetWeights, device: torch.device):
    name, _, precision = way.partition(" ")
    if name == "reference":
        return ReferenceEngine(weights, device)
    if name == "graph":
        from wavewn.engine.graph import GraphEngine

        return GraphEngine(weights, device)
    from wavewn.engine.cuda import CudaEngine

    return CudaEngine(weights, device, precision)


def compile_kernels(part: Part) -> float:
    """Compile what the cuda engine will ask for, on all cores at once; gives seconds."""
    from wavewn.engine.cuda_packing import kernel_source
    from wavewn.engine.nvrtc import architecture_of, cubin_of, multiprocessors, shared_limit

    few = [
        streams
        for streams in (1, 2, 4, 8)
        if streams < 2 * max(STREAMS) / multiprocessors(part.device)
    ]
    limit, architecture = shared_limit(part.device), architecture_of(part.device)

    def one(wanted: tuple[str, str, int]) -> None:
        shape, precision, streams = wanted
        settings = weights_of(shape, part.tiny).settings
        with contextlib.suppress(WavewnError):  # the engine itself will say why
            cubin_of(kernel_source(settings, BANDS, HOP, precision, streams, limit), architecture)

    wanted = list(itertools.product(SHAPES, ("float32", "float16"), few))
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, wanted))
    return time.perf_counter() - began


def mel_of(part: Part, streams: int, frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mel = SILENCE + 8 * torch.rand(streams, BANDS, frames, generator=generator)
    return mel.to(part.device)


def rate(part: Part, engine, streams: int) -> float:
    """Samples a second of all streams together, whole calls, at least one frame each."""
    state = StreamState.zeros(engine.layout, streams, device=part.device)
    engine.generate(state, mel_of(part, streams, engine.look_ahead + 1))
    frames, seconds = 1, 0.0
    while True:
        mel = mel_of(part, streams, frames)
        seconds = part.seconds_of(lambda mel=mel: engine.generate(state, mel))
        if part.tiny or seconds > 0.15 or frames >= 1024:
            return streams * frames * engine.weights.hop_length / seconds
        frames = min(1024, max(2 * frames, math.ceil(frames * 0.25 / seconds)))


def latency_ms(part: Part, engine) -> float:
    """From a frame of one stream to its samples on the host."""
    stream, mel = Stream(engine), mel_of(part, 1, 1)
    stream.push(mel_of(part, 1, engine.look_ahead + 1))
    return 1000 * part.median_s(lambda: stream.push(mel).cpu())


def compiled_rate(part: Part, shape: str, streams: int) -> float:
    """What torch.compile makes of a plain step, replayed from a CUDA graph where there is one."""
    step = PlainStep(weights_of(shape, part.tiny).settings, streams).to(part.device)
    samples = 4 if part.tiny else 200
    with torch.inference_mode():
        backend = {"backend": "eager"} if part.tiny else {"mode": "reduce-overhead"}
        run = torch.compile(step, **backend)

        def many() -> None:
            for _ in range(samples):
                run()

        return streams * samples / part.median_s(many, most=3)


def blocks_of(part: Part, engine, streams: int) -> int:
    """Thread blocks of the longest kernel of a frame."""
    state = StreamState.zeros(engine.layout, streams, device=part.device)
    mel = mel_of(part, streams, engine.look_ahead + 1)
    engine.generate(state, mel)
    kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        engine.generate(state, mel[:, :, :1])
        part.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    longest = max(kernels, key=lambda event: event["dur"])
    return math.prod(longest["args"]["grid"])


def main() -> None:
    part = Part("engines")
    part.add(
        "nv-wavenet", "float16, V100, published", 1, NV_WAVENET, "samples/s", "shape 64/128/256"
    )
    if part.device.type == "cuda":
        part.measure(
            "S, M, L", "cuda kernels compiled or found", 0, "s", lambda: compile_kernels(part)
        )
    for shape in ("M", "S", "L"):
        for way in WAYS:
            engine = None
            for streams in (1, 2) if part.tiny else STREAMS:

                def run(way=way, shape=shape, streams=streams) -> float:
                    nonlocal engine
                    if engine is None:
                        engine = make(way, weights_of(shape, part.tiny), part.device)
                    return rate(part, engine, streams)

                found = part.measure(shape, way, streams, "samples/s", run)
                if engine is None:
                    break
                if found and (shape, streams) == ("M", 64):
                    share_of_device(part, way, engine, found)
            if engine is not None:
                part.measure(shape, f"{way}, 10 ms", 1, "ms", lambda e=engine: latency_ms(part, e))
    for shape, streams in (("M", 1),) if part.tiny else (("M", 1), ("M", 64), ("S", 1)):
        part.measure(
            shape,
            "torch.compile, plain step",
            streams,
            "samples/s",
            lambda shape=shape, streams=streams: compiled_rate(part, shape, streams),
        )


def share_of_device(part: Part, way: str, engine, found: float) -> None:
    """How much of real time and of the chip 64 streams at 24 kHz take."""
    share = 64 * RATE / found
    part.add("M at 24 kHz", f"{way}, share of real time", 64, share, "")
    if part.device.type != "cuda":
        return
    present = torch.cuda.get_device_properties(part.device).multi_processor_count
    used = part.measure(
        "M at 24 kHz",
        f"{way}, busy of {present} SMs",
        64,
        "SMs",
        lambda: min(blocks_of(part, engine, 64), present),
    )
    if used:
        part.add("M at 24 kHz", f"{way}, share of the chip", 64, share * used / present, "")


if __name__ == "__main__":
    main()
