"""The spectral model in one call of the extension: what its parts give one by one."""

from dataclasses import replace

import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import SpectralConfig
from wavewn.engine import onepass_flow, onepass_spectral
from wavewn.engine.native import available
from wavewn.engine.onepass import OnePassEngine
from wavewn.models.generators import make_generator
from wavewn.state import StreamState

pytestmark = pytest.mark.skipif(bool(available()), reason="not compiled")
BANDS, HOP, FRAMES = 6, 20, 41
SPEC = MelSpec(n_mels=BANDS, hop_length=HOP, win_length=80, n_fft=128)
SIZES = SpectralConfig(channels=8, hidden_channels=8, dilations=(1, 2), look_ahead=3, n_fft=40)


def spectral(levellings):
    torch.manual_seed(1)
    settings = replace(SIZES, levellings=levellings)
    return make_generator(settings, SPEC).eval().requires_grad_(False)


def play(engine, cuts=FRAMES):
    mel = torch.randn(2, BANDS, FRAMES, generator=torch.Generator().manual_seed(2)) - 4
    state = StreamState.zeros(engine.layout, 2, seed=[3, 4])
    parts = [engine.generate(state, part) for part in mel.split(cuts, dim=2)]
    return torch.cat([*parts, engine.finish(state)], dim=1), state.buffer


@pytest.mark.parametrize("levellings", [0, 1, 3])
@pytest.mark.parametrize("cuts", [1, 9, FRAMES])
def test_one_call_gives_what_the_parts_give_to_the_last_bit(levellings, cuts):
    engine = OnePassEngine(spectral(levellings), native="auto")
    assert isinstance(engine._model, onepass_spectral.NativeSpectral)
    audio, state = play(engine, cuts)

    engine._model = engine._model._model

    for found, expected in zip((audio, state), play(engine, cuts), strict=True):
        assert torch.equal(found, expected)
    assert audio.std() > 1e-3


def test_long_chunks_are_heard_in_pieces_to_the_last_bit(monkeypatch):
    whole = play(OnePassEngine(spectral(1), native="auto"))

    widest = 2 * 3 * 21  # numbers of a frame's envelopes
    monkeypatch.setattr(onepass_flow, "MOST_NUMBERS", 16 * max(widest, 240))
    engine = OnePassEngine(spectral(1), native="auto")
    assert engine._model._most == 16
    pieces = play(engine)

    assert torch.equal(pieces[0], whole[0])
    assert torch.equal(pieces[1], whole[1])


def test_what_cannot_be_levelled_natively_runs_part_by_part(monkeypatch):
    monkeypatch.setattr("wavewn.engine.spectrum.why_not_native", lambda _: "not today")

    engine = OnePassEngine(spectral(1), native="auto")

    assert not isinstance(engine._model, onepass_spectral.NativeSpectral)
    torch.testing.assert_close(
        play(engine)[0], play(OnePassEngine(spectral(1)))[0], rtol=0, atol=1e-5
    )


def test_arrays_of_another_size_are_refused():
    engine = OnePassEngine(spectral(1), native="auto")
    play(engine)
    chunk, plan = next(reversed(engine._model._plans._plans.items()))
    samples = plan.end - plan.start
    sizes = [(1, chunk.state), (1, chunk.rows, BANDS), (1, chunk.rows * HOP), (1, samples)]

    for which in range(len(sizes)):
        wrong = [
            (*size[:-1], size[-1] + 1) if number == which else size
            for number, size in enumerate(sizes)
        ]
        with pytest.raises(ValueError, match="do not go together"):
            plan.run.run(*(torch.zeros(size).numpy() for size in wrong))


def test_what_comes_out_may_be_changed_in_place():
    engine = OnePassEngine(spectral(1), native="auto")
    state = StreamState.zeros(engine.layout, 1)

    audio = engine.generate(state, torch.full((1, BANDS, FRAMES), -4.0))

    assert not audio.is_inference()  # torch lets nobody write to what was made under it
    audio.mul_(0.5)
    assert not any(x.is_inference() for x in (state.buffer, state.clock))
