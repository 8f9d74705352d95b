"""One-pass models: seconds of computing for a second of audio, offline and in chunks."""

import contextlib
import functools

import torch
from report import Part

from wavewn.bench.generators import (
    GeneratorSubject,
    Published,
    make_generator_subject,
    whole,
)
from wavewn.engine.onepass import OnePassEngine
from wavewn.state import StreamState

MODELS = ("hifigan-v1", "hifigan-v2", "hifigan-v3", "spectral")
BATCHES = (1, 16)
CHUNK = 8  # frames
OFFLINE_S = 5.0  # of audio


def chunk_s(part: Part, subject: GeneratorSubject, engine: OnePassEngine, batch: int) -> float:
    """A chunk in mid-stream."""
    state = StreamState.zeros(engine.layout, batch, device=part.device)
    engine.generate(state, subject.mel(batch, 40).to(part.device))
    mel = subject.mel(batch, CHUNK).to(part.device)
    seconds = part.median_s(lambda: engine.generate(state, mel))
    return seconds / (CHUNK * subject.hop_length / subject.sample_rate)


def offline_s(part: Part, subject: GeneratorSubject, engine: OnePassEngine, batch: int) -> float:
    """A sentence from its beginning to its end."""
    frames = 16 if part.tiny else round(OFFLINE_S * subject.sample_rate / subject.hop_length)
    mel = subject.mel(batch, frames).to(part.device)

    def run() -> None:
        state = StreamState.zeros(engine.layout, batch, device=part.device)
        engine.generate(state, mel)
        engine.finish(state)

    return part.median_s(run) / (frames * subject.hop_length / subject.sample_rate)


def published_s(part: Part, subject: GeneratorSubject, batch: int, autocast: bool) -> float:
    """The network as published, channels outermost, each convolution torch's own."""
    frames = 16 if part.tiny else round(OFFLINE_S * subject.sample_rate / subject.hop_length)
    mel = subject.mel(batch, frames).to(part.device)
    model = subject.model.to(part.device)  # type: ignore[attr-defined]
    kind = part.device.type
    half = torch.autocast(kind, torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.inference_mode(), torch.device(part.device), half:
        seconds = part.median_s(lambda: whole(model, mel, Published()))
    return seconds / (frames * subject.hop_length / subject.sample_rate)


def main() -> None:
    part = Part("one-pass models")
    for name in ("hifigan-v3", "spectral") if part.tiny else MODELS:
        subject = make_generator_subject(name)
        for precision in ("float32", "bfloat16"):
            make = functools.cache(
                functools.partial(OnePassEngine, subject.model, precision, part.device, 1)
            )
            for batch in (1,) if part.tiny else BATCHES:
                for way, measured, graphs in (
                    ("8 frames, eager", chunk_s, False),
                    ("8 frames, graph", chunk_s, True),
                    ("offline", offline_s, False),
                ):
                    part.measure(
                        name,
                        f"{precision}, {way}",
                        batch,
                        "s/s",
                        lambda m=measured, s=subject, e=make, g=graphs, b=batch: m(
                            part, s, e(g), b
                        ),
                    )
        for autocast in (False, True):
            kind = "bfloat16 autocast" if autocast else "float32, TF32"
            part.measure(
                name,
                f"published, {kind}, offline",
                1,
                "s/s",
                lambda s=subject, a=autocast: published_s(part, s, 1, a),
            )


if __name__ == "__main__":
    main()
