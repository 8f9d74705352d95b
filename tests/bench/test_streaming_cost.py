"""What streaming costs against offline synthesis, of one engine in one run.

Both take turns, and the least processor time of each counts, so that other work on the machine
disturbs little. What a small model paid at small chunks were the calls: about 70 convolutions, each
of which cost tens of microseconds in torch before it computed anything. Natively there are none.

2026-11-22, one quiet core of a Zen 4, bfloat16, at 8 and 32 frames: HiFi-GAN V2 1.11 and 1.07, V3
1.10 and 1.06, spectral 1.67 and 1.10 (in float32 1.49 and 1.08) of 0.028 ms a frame. A push of 8
frames of spectral takes 0.39 ms with four levellings, 0.23 of them in the kernel, most of which is
near what the units can do; the rest is some forty operations of torch and Python, each a few
microseconds after 2.5 MB of weights went through the caches.
"""

import time

import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import SpectralConfig
from wavewn.config.presets import preset_config
from wavewn.engine.choice import native_for
from wavewn.engine.onepass import OnePassEngine
from wavewn.models.generators import make_generator
from wavewn.state import StreamState

FRAMES = 192
CPU = torch.device("cpu")


def engine(name, precision):
    settings = preset_config(name)
    spectral = isinstance(settings, SpectralConfig)
    spec = MelSpec() if spectral else MelSpec(22050, 1024, settings.hop_length, 1024)
    torch.manual_seed(0)
    model = make_generator(settings, spec)
    return OnePassEngine(model, precision, native=native_for(model, "auto", precision, CPU))


def cost(engine, mel, chunk):
    """Processor time of one utterance, in seconds."""
    state = StreamState.zeros(engine.layout, 1)
    began = time.process_time()
    for part in mel.split(chunk, dim=2):
        engine.generate(state, part)
    engine.finish(state)
    return time.process_time() - began


@pytest.mark.bench
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "chunks", "rounds"),
    [
        ("hifigan-v1", (8,), 3),
        ("hifigan-v2", (8, 32), 8),
        ("hifigan-v3", (8, 32), 8),
        ("spectral", (8, 32), 8),
    ],
)
def test_a_stream_costs_little_more_than_the_whole(name, chunks, rounds, precision):
    made = engine(name, precision)
    mel = torch.randn(1, made.n_mels, FRAMES) - 5
    sizes = (FRAMES, *chunks)
    least = dict.fromkeys(sizes, float("inf"))

    for turn in range(rounds + 1):
        for size in sizes:
            took = cost(made, mel, size)
            if turn:  # the first shapes each convolution
                least[size] = min(least[size], took)

    whole = least.pop(FRAMES)
    shares = ", ".join(f"{took / whole:.2f} at {size} frames" for size, took in least.items())
    print(f"\n{name} {precision}: offline {whole * 1e3 / FRAMES:.3f} ms a frame; stream {shares}")
    assert all(took > 0.5 * whole for took in least.values()), "they do not do the same"
