"""The spectral model's source and filters natively: what torch makes, whatever the chunks."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import SpectralConfig
from wavewn.engine import spectrum_synthesis
from wavewn.engine.native import available
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.spectrum import instruction_sets
from wavewn.engine.spectrum_synthesis import NativeFilters, filter_natively
from wavewn.models.spectral import Spectral
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.harmonics import BINS
from wavewn.nn.latency import measure
from wavewn.state import StateLayout, StreamState

pytestmark = pytest.mark.skipif(bool(available()), reason="not compiled")
FRAMES = 37
ATOL = 1e-5  # float32; sums in another order, and sines of angles of hundreds of periods
SPEC = MelSpec(n_mels=6, hop_length=20, win_length=80, n_fft=128)
SIZES = SpectralConfig(channels=8, hidden_channels=8, dilations=(1,), look_ahead=3, n_fft=40)
MODELS = {
    "small": (SIZES, SPEC, 0),
    "16 kHz": (replace(SIZES, n_fft=400), MelSpec(), 0),
    "three sub-frames": (replace(SIZES, subframes=4, n_fft=20), SPEC, 0),
    "normalised": (SIZES, replace(SPEC, mean=1.5, scale=(1.2,) * 6, norm=None, log_base="10"), 0),
    "pitch ahead": (SIZES, SPEC, 1),  # F0 is known before the filters are
    "filters ahead": (SIZES, SPEC, -1),
}


def runnable():
    return [] if available() else [name for name, why in instruction_sets().items() if not why]


def spectral(name):
    torch.manual_seed(0)
    settings, spec, _ = MODELS[name]
    return Spectral(settings, spec).eval().requires_grad_(False)


def signals(model, batch=2, frames=FRAMES):
    """What the filters hear: mels, logits of F0, envelopes and noise."""
    generator = torch.Generator().manual_seed(1)

    def normal(channels, rows):
        return torch.randn(batch, channels, rows, generator=generator)

    count = model.settings.subframes
    log = 10.0 if model.levelling.mean.abs().max() > 0 else 1.0
    mel = (normal(model.n_mels, frames) - 4) / log
    logits, noise = 3 * normal(count * BINS, frames), normal(1, frames * model.hop_length)
    return mel, logits, 0.5 * normal(count * 3 * model.bins, frames), noise


def streamed(model, filtered, ahead, inputs, cuts):
    """Run in chunks, the logits two frames behind the mel, the envelopes `ahead` more than they."""
    mel, logits, envelopes, noise = inputs
    hop, frames = model.hop_length, mel.shape[2]
    lags = 0, 2 - min(ahead, 0), 2 + max(ahead, 0)

    def cut(x, begin, end, ended, lag, rate=1):
        begin, end = max(begin - lag, 0) * rate, (end if ended else max(end - lag, 0)) * rate
        data = None if x is None else x[:, :, begin:end]
        return Rows(data, 1 if x is None else x.shape[1], begin, end, ended)

    def run(flow, begin, end, ended, numbers=False):
        given = [
            replace(cut(x, begin, end, ended, lag), data=None)
            if numbers
            else cut(x, begin, end, ended, lag)
            for x, lag in zip((mel, logits, envelopes), lags, strict=True)
        ]
        drive = cut(noise, begin, end, ended, 0, hop)
        return filtered(flow, *given, replace(drive, data=None) if numbers else drive)

    shapes = measure(
        lambda flow, rows, _: run(flow, rows.start, rows.end, rows.ended, True), 1, hop
    ).shapes
    layout = StateLayout.of([(name, *shape) for name, shape in shapes.items()])
    state = StreamState.zeros(layout, len(mel))
    memory = Memory(state.buffer, {entry.name: entry for entry in layout.entries})
    parts, heard = [], 0
    for rows in torch.arange(frames).split(cuts):
        begin, heard = heard, heard + len(rows)
        given = run(Flow(memory), begin, heard, heard == frames)
        assert given.start == sum(part.shape[2] for part in parts)
        parts.append(given.whole)
    return torch.cat(parts, dim=2), state.buffer


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("set_name", runnable())
def test_filters_are_those_of_torch_in_audio_and_in_state(set_name, name):
    model, ahead = spectral(name), MODELS[name][2]
    ours, inputs = NativeFilters(model, set_name), signals(model)

    found, state = streamed(model, ours, ahead, inputs, 9)
    wanted, wanted_state = streamed(model, model.filtered, ahead, inputs, 9)

    assert ours.instruction_set == set_name
    assert wanted.shape == (2, 1, FRAMES * model.hop_length)
    size = float(wanted.abs().max())
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=0, atol=ATOL * max(size, 1.0))
    torch.testing.assert_close(state, wanted_state, rtol=0, atol=ATOL * max(size, 1.0))


@pytest.mark.parametrize("cuts", [1, 2, 5, 16, [3, 20, 1, 13], [36, 1]])
@pytest.mark.parametrize("name", ["small", "pitch ahead"])
def test_chunks_are_the_whole_to_the_last_bit(name, cuts):
    model, ahead = spectral(name), MODELS[name][2]
    ours, inputs = NativeFilters(model), signals(model)

    whole, _ = streamed(model, ours, ahead, inputs, FRAMES)

    assert torch.equal(streamed(model, ours, ahead, inputs, cuts)[0], whole)


@pytest.mark.parametrize("which", range(4))
def test_not_a_number_does_not_become_one(which):
    model = spectral("small")
    ours, inputs = NativeFilters(model), signals(model)
    inputs[which][0, 0, 5] = float("nan")

    audio, _ = streamed(model, ours, 0, inputs, 4)

    assert audio[0].isnan().any() and not audio[1].isnan().any()


def test_steps_that_leave_their_arrays_are_refused():
    model = spectral("small")
    ours = NativeFilters(model)
    streamed(model, ours, 0, signals(model, 1), 8)
    chunk, plan = next(reversed(ours._plans._plans.items()))
    bins, count = model.bins, model.settings.subframes
    state = np.zeros((1, 8192), np.float32)
    arrays = [
        np.zeros((1, chunk.logits[1], count * BINS), np.float32),
        np.zeros((1, chunk.envelopes[1], count * 3 * bins), np.float32),
        np.zeros((1, chunk.mel[1], model.n_mels), np.float32),
        np.zeros((1, chunk.noise[1]), np.float32),
        np.zeros((1, plan.end - plan.start), np.float32),
    ]
    ours.network.run(plan.steps, state, *arrays)
    for number in range(len(plan.steps)):
        for value in (1 << 40, 1 << 62, -(1 << 62)):
            step = plan.steps.copy()
            step[number] = value
            with pytest.raises(ValueError, match=r"leaves what it is given|do not go together"):
                ours.network.run(step, state, *arrays)


def test_what_cannot_run_natively_stays_in_torch_and_says_so(caplog):
    odd = Spectral(replace(SIZES, n_fft=56), replace(SPEC, hop_length=28, win_length=84))
    with caplog.at_level(logging.INFO, logger=spectrum_synthesis.logger.name):
        assert not filter_natively(odd)
    assert "run in torch, not natively: its transforms are of 56" in caplog.text
    assert filter_natively(spectral("small"))
