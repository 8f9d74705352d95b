"""The reference engine refuses what does not fit, names NaN, and leaves the state as it was."""

import pytest
import torch

from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.nn.weight_norm import apply_weight_norm
from wavewn.state import StreamState

BANDS, HOP = 6, 20
NAN = float("nan")


def test_a_state_in_use_is_refused(voice, mel_of):
    state = StreamState.zeros(voice.layout, 1)

    with state.using(), pytest.raises(StateError, match="already in use"):
        voice.generate(state, mel_of(1, 1))

    def reenter(frames):
        voice.generate(state, mel_of(1, 1))

    with pytest.raises(StateError, match="already in use"):
        voice.generate(state, mel_of(1, 3), progress=reenter)
    voice.generate(state, mel_of(1, 1))


def test_nan_in_a_mel_is_named(voice, mel_of):
    mel = mel_of(3, 4)
    mel[1, 2, 3] = NAN
    state = StreamState.zeros(voice.layout, 3)

    with pytest.raises(EngineError, match="mel holds NaN or infinity in row 1, frame 3"):
        voice.generate(state, mel)


def test_nan_that_comes_up_is_named_and_leaves_the_state(voice, mel_of):
    state = StreamState.zeros(voice.layout, 3)
    voice.generate(state, mel_of(3, 4))
    state.view("layers.5")[2, 1, 0] = NAN
    kept = state.clone()

    with pytest.raises(EngineError, match=r"came up in row 2 at sample 4\d;"):
        voice.generate(state, mel_of(3, 2))

    assert torch.equal(state.buffer.nan_to_num(), kept.buffer.nan_to_num())
    assert torch.equal(state.clock, kept.clock)
    state.reset(torch.tensor([False, False, True]))
    voice.generate(state, mel_of(3, 2))


def test_nan_in_a_parameter_is_named(plain_model):
    with torch.no_grad():
        plain_model.hidden.bias[3] = NAN

    with pytest.raises(EngineError, match="parameter hidden.bias holds NaN"):
        pack_wavenet(plain_model)


def test_a_model_with_weight_norm_is_refused(plain_model):
    apply_weight_norm(plain_model)

    with pytest.raises(EngineError, match="condition.convs.0 has weight norm; load folded"):
        pack_wavenet(plain_model)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (torch.zeros(2, BANDS + 1, 3), r"mel must be torch.float32 \[2, 6, 3\] on cpu"),
        (torch.zeros(1, BANDS, 3), r"got torch.float32 \[1, 6, 3\]"),
        (torch.zeros(BANDS, 3), r"got torch.float32 \[6, 3\]"),
        (torch.zeros(2, BANDS, 3).double(), "got torch.float64"),
        (torch.zeros(2, BANDS, 3, device="meta"), "on meta"),
    ],
)
def test_a_mel_that_does_not_fit_is_refused(voice, mel, message):
    with pytest.raises(ShapeError, match=message):
        voice.generate(StreamState.zeros(voice.layout, 2), mel)


def test_a_state_that_does_not_fit_is_refused(voice, wide_model, mel_of):
    other = ReferenceEngine(pack_wavenet(wide_model))
    with pytest.raises(StateError, match="of another model"):
        voice.generate(StreamState.zeros(other.layout, 1), mel_of(1, 1))
    with pytest.raises(StateError, match="the state is on meta, the engine on cpu"):
        voice.generate(StreamState.zeros(voice.layout, 1, device="meta"), mel_of(1, 1))
    state = StreamState.zeros(voice.layout, 1)
    state.clock.fill_(HOP)
    with pytest.raises(StateError, match="contradict each other"):
        voice.generate(state, mel_of(1, 1))


@pytest.mark.parametrize("temperature", [-1.0, NAN, float("inf")])
def test_an_impossible_temperature_is_refused(voice, mel_of, temperature):
    with pytest.raises(EngineError, match="temperature must be 0 or more"):
        voice.generate(StreamState.zeros(voice.layout, 1), mel_of(1, 1), temperature=temperature)


def test_levels_that_do_not_fit_are_refused(voice, mel_of):
    state = StreamState.zeros(voice.layout, 1)
    with pytest.raises(ShapeError, match=r"levels must be torch.float32 \[1, 20\]"):
        voice.parameters(state, mel_of(1, 3), torch.zeros(1, 3 * HOP))
    levels = torch.zeros(1, HOP)
    levels[0, 7] = NAN
    with pytest.raises(EngineError, match="levels hold NaN in row 0, sample 7"):
        voice.parameters(state, mel_of(1, 3), levels)


@pytest.mark.parametrize("model", ["mixture"], indirect=True)
@pytest.mark.parametrize(
    ("speaker", "message"),
    [
        (None, "knows 3 speakers"),
        (torch.tensor([3]), r"speaker must lie in 0 to 2, got \[3\]"),
        (torch.tensor([0, 1]), r"speaker must be torch.int64 \[1\]"),
        (torch.tensor([0.0]), "got torch.float32"),
    ],
)
def test_a_speaker_that_does_not_fit_is_refused(engine, mel_of, speaker, message):
    with pytest.raises(ShapeError, match=message):
        engine.generate(StreamState.zeros(engine.layout, 1), mel_of(1, 1), speaker=speaker)
