"""Spectra natively: transforms and functions are numpy's, levelling is torch's."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.engine import spectrum
from wavewn.engine.native import available
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.spectrum import NativeLevelling, instruction_sets, level_natively
from wavewn.models.levelled import Levels
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.levelling import Levelling
from wavewn.state import StateLayout, StreamState

pytestmark = pytest.mark.skipif(bool(available()), reason="not compiled")
BANDS, HOP, FRAMES = 6, 20, 41
SPEC = MelSpec(n_mels=BANDS, hop_length=HOP, win_length=80, n_fft=128)
ATOL = 1e-5  # float32; sums in another order
LENGTHS = [4, 6, 8, 10, 12, 30, 32, 50, 64, 90, 128, 180, 400, 450, 512, 750, 1024, 1200, 2048]


def runnable():
    return [] if available() else [name for name, why in instruction_sets().items() if not why]


def native():
    from wavewn import _native

    return _native


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("length", LENGTHS)
def test_transforms_are_those_of_numpy(name, length):
    frames = np.random.default_rng(length).standard_normal((16, length)).astype(np.float32)
    true = np.fft.rfft(frames.astype(np.float64))

    bins = native().transform(name, frames, length, True).view(np.complex64)
    there = native().transform(name, true.astype(np.complex64).view(np.float32), length, False)

    assert native().can_transform(length)
    assert np.abs(bins - true).max() < 2e-7 * np.abs(true).max() + 1e-6
    assert np.abs(there / length - frames).max() < 2e-6


@pytest.mark.parametrize("length", [2, 7, 15, 14, 22, 1 << 21])
def test_other_lengths_are_refused(length):
    assert not native().can_transform(length)
    with pytest.raises(ValueError, match="no transform"):
        native().transform("portable", np.zeros((16, length), np.float32), length, True)


FUNCTIONS = {  # number, range, true, bound of the error relative to 1 + |x| or |y|
    "exp": (0, (-80.0, 80.0), np.exp, lambda x, y: 1e-7 * (1 + np.abs(x)) * y),
    "log": (1, (1e-30, 1e30), np.log, lambda x, y: 2 * np.spacing(np.abs(y).astype("f")) + 6e-8),
    "root": (2, (1e-30, 1e30), np.sqrt, lambda x, y: 0.51 * np.spacing(y.astype("f"))),
    "sin": (3, (-8192.0, 8192.0), np.sin, lambda x, y: 1.2e-7),
    "cos": (4, (-8192.0, 8192.0), np.cos, lambda x, y: 1.2e-7),
}


def grid(low, high):
    if low > 0:
        dense = np.concatenate([np.geomspace(low, high, 200_000), np.linspace(0.4, 2.5, 200_000)])
    else:
        ends = np.linspace(low, high, 200_000), np.linspace(-4, 4, 200_000)
        dense = np.concatenate(ends)
    return dense.astype(np.float32).reshape(-1, 16)


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_are_as_near_as_their_comments_say(name, function):
    number, ends, true, bound = FUNCTIONS[function]
    x = grid(*ends)

    found = native().apply(name, number, x)

    wide = x.astype(np.float64)
    wanted = true(wide)
    assert (np.abs(found - wanted) <= bound(wide, wanted)).all()
    assert np.array_equal(found, native().apply("portable", number, x))


SPECS = {
    "small": SPEC,
    "16 kHz": MelSpec(),
    "energies, normalised": replace(
        SPEC, power=2.0, log_base="10", mean=-2.0, scale=tuple(0.5 + 0.1 * i for i in range(BANDS))
    ),
    "centred": replace(SPEC, grid="centred", norm=None, mel_scale="htk", power=1.5),
}


def levellings(name, set_name="auto"):
    levelling = Levelling(SPECS[name])
    return levelling, NativeLevelling(levelling, set_name)


def signals(spec, batch, frames=FRAMES):
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(batch, 1, frames * spec.hop_length)
    mel = (torch.randn(batch, spec.n_mels, frames) - 3) if spec.log_base == "e" else None
    return audio, torch.randn(batch, spec.n_mels, frames) if mel is None else mel


def streamed(levelling, spec, mel, audio, count, cuts):
    """Level in chunks, with a memory as engines have it, the audio one frame behind the mel."""

    def run(flow, mel, audio):
        return levelling.often(flow, mel, audio, count)

    def late(flow, mel, _):
        begin, end = (max(n - 1, 0) * spec.hop_length for n in (mel.start, mel.end))
        return run(flow, mel, Rows(None, 1, begin, end, False))

    shapes = measure(late, spec.n_mels, spec.hop_length).shapes
    layout = StateLayout.of([(name, *shape) for name, shape in shapes.items()])
    state = StreamState.zeros(layout, len(mel))
    memory = Memory(state.buffer, {entry.name: entry for entry in layout.entries})
    parts, heard, hop = [], 0, spec.hop_length
    for piece in mel.split(cuts, dim=2):
        start, heard = heard, heard + piece.shape[2]
        ended = heard == mel.shape[2]
        begin, end = max(start - 1, 0) * hop, heard * hop if ended else max(heard - 1, 0) * hop
        said = Rows(audio[:, :, begin:end], 1, begin, end, ended)
        given = run(Flow(memory), Rows(piece, spec.n_mels, start, heard, ended), said)
        assert given.start == sum(part.shape[2] for part in parts)
        assert given.end - given.start == given.whole.shape[2]
        parts.append(given.whole)
    return torch.cat(parts, dim=2), state.buffer


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("set_name", runnable())
def test_levelling_is_that_of_torch_in_audio_and_in_state(set_name, name, count):
    torchs, ours = levellings(name, set_name)
    spec = SPECS[name]
    audio, mel = signals(spec, 2)

    found, state = streamed(ours, spec, mel, audio, count, 9)
    wanted, wanted_state = streamed(torchs, spec, mel, audio, count, 9)

    assert ours.instruction_set == set_name
    assert wanted.shape == audio.shape
    assert (wanted - audio).abs().max() > 0.1  # there was something to level
    size = max(float(wanted.abs().max()), 1.0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=ATOL * size)
    torch.testing.assert_close(state, wanted_state, rtol=0, atol=ATOL * size)


@pytest.mark.parametrize("cuts", [1, 2, 5, 16, 17, [3, 20, 1, 17], [40, 1]])
def test_chunks_are_the_whole_to_the_last_bit(cuts):
    _, ours = levellings("small")
    audio, mel = signals(SPEC, 2)
    whole, state = streamed(ours, SPEC, mel, audio, 3, FRAMES)

    found, own = streamed(ours, SPEC, mel, audio, 3, cuts)

    assert torch.equal(found, whole)


def test_a_row_knows_nothing_of_the_others():
    _, ours = levellings("small")
    audio, mel = signals(SPEC, 5)
    together, _ = streamed(ours, SPEC, mel, audio, 2, 8)

    alone, _ = streamed(ours, SPEC, mel[3:4], audio[3:4], 2, 8)

    assert torch.equal(alone[0], together[3])


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_an_utterance_shorter_than_a_window_is_reflected_as_often_as_it_takes(frames):
    torchs, ours = levellings("small")
    audio, mel = signals(SPEC, 1, frames)

    found, _ = streamed(ours, SPEC, mel, audio, 2, frames)

    wanted, _ = streamed(torchs, SPEC, mel, audio, 2, frames)
    torch.testing.assert_close(found, wanted, rtol=0, atol=ATOL)


def test_numbers_alone_and_whole_utterances_go_through_torch():
    torchs, ours = levellings("small")
    audio, mel = signals(SPEC, 1)

    found = ours.often(Flow(), Rows.of(mel), Rows.of(audio), 2).whole

    assert torch.equal(found, torchs.often(Flow(), Rows.of(mel), Rows.of(audio), 2).whole)


def test_not_a_number_does_not_become_one():
    _, ours = levellings("small")
    audio, mel = signals(SPEC, 1)
    audio[0, 0, 400] = float("nan")

    assert streamed(ours, SPEC, mel, audio, 2, 7)[0].isnan().any()


def test_steps_that_leave_their_arrays_are_refused():
    _, ours = levellings("small")
    audio, mel = signals(SPEC, 1)
    streamed(ours, SPEC, mel, audio, 1, 8)
    chunk, plan = next(reversed(ours._plans._plans.items()))
    frames, samples = chunk.frames, chunk.samples
    state = np.zeros((1, 4096), np.float32)
    arrays = [
        np.zeros((1, frames, BANDS), np.float32),
        np.zeros((1, samples), np.float32),
        np.zeros((1, plan.end - plan.start), np.float32),
    ]
    ours.network.run(plan.steps, state, *arrays)
    for number in range(plan.steps.shape[1]):
        for value in (1 << 40, 1 << 62, -(1 << 62)):
            steps = plan.steps.copy()
            if steps[0, number] == value or number == 7:  # any number says that it ended
                continue
            steps[0, number] = value
            with pytest.raises(ValueError, match="leaves what it is given"):
                ours.network.run(steps, state, *arrays)
    with pytest.raises(ValueError, match="do not go together"):
        ours.network.run(plan.steps, np.zeros((2, 4096), np.float32), *arrays)


def test_what_cannot_run_natively_stays_in_torch_and_says_so(caplog):
    odd = Levels(replace(SPEC, n_fft=154), 1)
    with caplog.at_level(logging.INFO, logger=spectrum.logger.name):
        assert not level_natively(odd)
    assert isinstance(odd.levelling, Levelling)
    assert "levelling runs in torch, not natively: its transforms are of 154" in caplog.text

    even = Levels(SPEC, 1)
    assert level_natively(even) and isinstance(even.levelling, NativeLevelling)
