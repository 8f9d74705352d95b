"""What the engine of one-pass models refuses: what does not fit, and NaN, which it names.

The words are those of all engines (test_contract_refusals.py), and the state is as it was.
"""

import pytest
import torch

from wavewn.engine.onepass import OnePassEngine
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.nn.weight_norm import apply_weight_norm
from wavewn.state import StreamState

BANDS, HOP = 6, 20
NAN = float("nan")


@pytest.fixture
def plain(one_pass_engine):
    """One that no noise drives."""
    return one_pass_engine("hifigan")


@pytest.fixture
def driven(one_pass_engine):
    """One that noise drives."""
    return one_pass_engine("wavegan")


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_nan_is_named_and_leaves_the_state_as_it_was(plain, value, mel_of):
    mel = mel_of(3, 4)
    mel[1, 2, 3] = value
    state = StreamState.zeros(plain.layout, 3)
    with pytest.raises(EngineError, match="mel holds NaN or infinity in row 1, frame 3"):
        plain.generate(state, mel)

    plain.generate(state, mel_of(3, 9))
    kept = state.clone()
    entry = next(e.name for e in plain.layout.entries if e.name.startswith("flow") and e.rows)
    state.view(entry)[2, -1, 0] = value
    with pytest.raises(EngineError, match=f"state holds NaN or infinity in row 2, {entry};"):
        plain.generate(state, mel_of(3, 1))
    state.view(entry)[2] = kept.view(entry)[2]
    plain.generate(state, mel_of(3, 1))


def test_nan_that_comes_up_is_named_at_its_row(one_pass, mel_of):
    model = one_pass("hifigan")
    model.conv_pre.weight.mul_(1e10)
    engine = OnePassEngine(model)
    state = StreamState.zeros(engine.layout, 3)
    engine.generate(state, mel_of(3, 4))
    kept, mel = state.clone(), mel_of(3, 12)
    mel[1] = 1e30

    with pytest.raises(EngineError, match=r"came up in row 1 at sample \d+; the state is as befo"):
        engine.generate(state, mel)
    assert torch.equal(state.buffer, kept.buffer) and torch.equal(state.clock, kept.clock)


def test_a_state_in_use_is_refused(plain, mel_of):
    state = StreamState.zeros(plain.layout, 1)

    def reenter(frames):
        plain.generate(state, mel_of(1, 1))

    with pytest.raises(StateError, match="already in use"):
        plain.generate(state, mel_of(1, 12), progress=reenter)
    assert not state.clock.any() and not state.buffer.any()


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (torch.zeros(2, BANDS + 1, 3), r"mel must be torch.float32 \[2, 6, 3\] on cpu"),
        (torch.zeros(1, BANDS, 3), r"got torch.float32 \[1, 6, 3\]"),
        (torch.zeros(2, BANDS, 3).double(), "got torch.float64"),
        (torch.zeros(2, BANDS, 3, device="meta"), "on meta"),
    ],
)
def test_a_mel_that_does_not_fit_is_refused(plain, mel, message):
    with pytest.raises(ShapeError, match=message):
        plain.generate(StreamState.zeros(plain.layout, 2), mel)


def test_a_speaker_and_a_room_that_do_not_fit_are_refused(plain, mel_of):
    state = StreamState.zeros(plain.layout, 1)
    with pytest.raises(ShapeError, match="knows 0 speakers"):
        plain.generate(state, mel_of(1, 1), speaker=torch.tensor([0]))
    with pytest.raises(ShapeError, match=r"out must be torch.float32 \[1, 0\]"):
        plain.generate(state, mel_of(1, 1), out=torch.zeros(1, HOP))


def test_a_state_that_does_not_fit_is_refused(plain, driven, mel_of):
    with pytest.raises(StateError, match="of another model"):
        plain.generate(StreamState.zeros(driven.layout, 1), mel_of(1, 1))
    with pytest.raises(StateError, match="the state is on meta, the engine on cpu"):
        plain.generate(StreamState.zeros(plain.layout, 1, device="meta"), mel_of(1, 1))


@pytest.mark.parametrize(
    ("clock", "ahead", "ended"),
    [(HOP, 0, 0), (0, HOP / 2, 0), (0, 0.5, 0), (-HOP, HOP, 0), (0, 20 * HOP, 0), (0, HOP, 1)]
    + [(0, 0, 2), (0, NAN, 0)],
)
def test_a_state_that_contradicts_itself_is_refused(plain, clock, ahead, ended, mel_of):
    state = StreamState.zeros(plain.layout, 2)
    state.clock[1] = clock
    state.view("ahead")[1], state.view("ended")[1] = ahead, ended
    with pytest.raises(StateError, match="contradict each other"):
        plain.generate(state, mel_of(2, 1))


def test_what_is_no_plain_model_is_refused(one_pass):
    model = one_pass("hifigan")
    with pytest.raises(EngineError, match="precision must be one of bfloat16, float32, got int8"):
        OnePassEngine(model, "int8")
    model.conv_post.bias[0] = NAN
    with pytest.raises(EngineError, match=r"parameter conv_post\.bias holds NaN"):
        OnePassEngine(model)
    model = one_pass("hifigan")
    apply_weight_norm(model)
    with pytest.raises(EngineError, match="runs plain weights, but .* has weight norm"):
        OnePassEngine(model)
