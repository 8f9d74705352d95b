"""What every engine refuses, in the same words: what does not fit, and NaN, which it names.

The state is then as it was, and the other rows go on as soon as the bad one is mended.
"""

import re

import pytest
import torch

from wavewn.errors import EngineError, ShapeError, StateError, WavewnError
from wavewn.state import StreamState

BANDS, HOP = 6, 20
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def engines():
    """Those made so far; what one of them refuses must leave it as it was."""
    return {}


@pytest.fixture
def engine(choice, plain_model, engines):
    if choice not in engines:
        engines[choice] = choice.make(plain_model)
    return engines[choice]


def test_a_state_in_use_is_refused(engine, mel_of):
    state = StreamState.zeros(engine.layout, 1)

    with state.using(), pytest.raises(StateError, match="already in use"):
        engine.generate(state, mel_of(1, 1))

    def reenter(frames):
        engine.generate(state, mel_of(1, 1))

    with pytest.raises(StateError, match="already in use"):
        engine.generate(state, mel_of(1, 3), progress=reenter)
    assert not state.clock.any() and not state.buffer.any()
    engine.generate(state, mel_of(1, 1))


def test_progress_counts_frames_of_audio_and_changes_none(engine, mel_of):
    told, state = [], StreamState.zeros(engine.layout, 2)

    audio = engine.generate(state, mel_of(2, 21), progress=told.append)

    assert sum(told) == 19
    assert torch.equal(audio, engine.generate(StreamState.zeros(engine.layout, 2), mel_of(2, 21)))


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_nan_in_a_mel_is_named(engine, mel_of, value):
    mel = mel_of(3, 4)
    mel[1, 2, 3] = value
    state = StreamState.zeros(engine.layout, 3)

    with pytest.raises(EngineError, match="mel holds NaN or infinity in row 1, frame 3"):
        engine.generate(state, mel)


def goes_on(engine, state, kept, mel, row):
    """The state is as before, and with one row made new the others give their samples."""
    assert torch.equal(state.buffer.nan_to_num(), kept.buffer.nan_to_num())
    assert torch.equal(state.clock, kept.clock)
    others = [i for i in range(state.batch) if i != row]
    expected = engine.generate(kept.select(others), mel[others])
    state.reset(torch.arange(state.batch) == row)
    assert torch.equal(engine.generate(state, mel)[others], expected)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("entry", ["layers.5", "mel.0", "condition", "level", "emphasis"])
def test_nan_in_a_state_is_named_and_poisons_its_row_alone(engine, mel_of, entry, value):
    """int8 makes a number of NaN, so it must be found before the first product."""
    state = StreamState.zeros(engine.layout, 3)
    engine.generate(state, mel_of(3, 4))
    kept = state.clone()
    state.view(entry)[2, -1, 0] = value
    spoiled = state.clone()

    with pytest.raises(EngineError, match=f"state holds NaN or infinity in row 2, {entry};"):
        engine.generate(state, mel_of(3, 2))

    assert torch.equal(state.buffer.nan_to_num(), spoiled.buffer.nan_to_num())
    state.view(entry)[2, -1, 0] = 0.0
    goes_on(engine, state, state.clone(), mel_of(3, 2), 2)
    assert torch.equal(state.seed, kept.seed)


def test_nan_that_comes_up_is_named_and_poisons_its_row_alone(choice, plain_model, mel_of):
    """A mel that is finite, but not after the first product."""
    with torch.no_grad():
        plain_model.condition.convs[0].weight.mul_(1e10)
    engine = choice.make(plain_model)
    state = StreamState.zeros(engine.layout, 3)
    engine.generate(state, mel_of(3, 4))
    kept, mel = state.clone(), mel_of(3, 5)
    mel[1] = 1e30

    with pytest.raises(EngineError, match=r"came up in row 1 at sample 4\d;"):
        engine.generate(state, mel)

    goes_on(engine, state, kept, mel_of(3, 5), 1)


@pytest.mark.parametrize("where", ["stack.layers.2.gate", "stack.layers.2.out", "hidden", "output"])
def test_a_model_that_overflows_is_named_or_gives_numbers(choice, plain_model, mel_of, where):
    """Weights that float16 cannot hold, and products that float32 cannot."""
    with torch.no_grad():
        plain_model.get_submodule(where).weight.mul_(1e38)
    try:
        engine = choice.make(plain_model)
        audio = engine.generate(StreamState.zeros(engine.layout, 1), mel_of(1, 4))
    except WavewnError as error:  # of the engine, or of int8's calibration
        assert re.search("NaN or infini|too large|no finite activations|a magnitude", str(error))
    else:
        assert audio.isfinite().all()


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
def test_a_mel_that_does_not_fit_is_refused(engine, mel, message):
    with pytest.raises(ShapeError, match=message):
        engine.generate(StreamState.zeros(engine.layout, 2), mel)


def test_a_mel_in_another_order_of_memory_is_heard_the_same(engine, mel_of):
    mel = mel_of(2, 4)
    turned = mel.transpose(1, 2).contiguous().transpose(1, 2)

    one, other = (
        engine.generate(StreamState.zeros(engine.layout, 2), each) for each in (mel, turned)
    )

    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.zeros(2, HOP + 1), r"out must be torch.float32 \[2, 20\] on cpu, got .* \[2, 21\]"),
        (torch.zeros(2, HOP).double(), "got torch.float64"),
        (torch.zeros(2, HOP, device="meta"), "on meta"),
        (torch.zeros(HOP, 2).T, "out must be contiguous"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(engine, mel_of, out, message):
    state = StreamState.zeros(engine.layout, 2)
    with pytest.raises(ShapeError, match=message):
        engine.generate(state, mel_of(2, 3), out=out)
    assert not state.clock.any()


def test_a_state_that_does_not_fit_is_refused(choice, engine, wide_model, mel_of):
    other = choice.make(wide_model)
    with pytest.raises(StateError, match="of another model"):
        engine.generate(StreamState.zeros(other.layout, 1), mel_of(1, 1))
    with pytest.raises(StateError, match="the state is on meta, the engine on cpu"):
        engine.generate(StreamState.zeros(engine.layout, 1, device="meta"), mel_of(1, 1))


@pytest.mark.parametrize(("clock", "ahead"), [(HOP, 0), (0, 3), (0, 0.5), (7, 2), (-HOP, 2)])
def test_a_state_that_contradicts_itself_is_refused(engine, mel_of, clock, ahead):
    state = StreamState.zeros(engine.layout, 2)
    state.clock[1] = clock
    state.view("ahead")[1] = ahead
    with pytest.raises(StateError, match="contradict each other"):
        engine.generate(state, mel_of(2, 1))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("buffer", torch.Tensor.double, "buffer of a state must be torch.float32"),
        ("buffer", lambda x: x.T.contiguous().T, "buffer of a state must be contiguous"),
        ("clock", torch.Tensor.int, "clock of a state must be torch.int64"),
        ("seed", lambda x: x[:1], r"seed of a state must be torch.int64 \[2\]"),
    ],
)
def test_a_state_that_was_tampered_with_is_refused(engine, mel_of, name, change, message):
    """An engine in C++ would read beyond its memory."""
    state = StreamState.zeros(engine.layout, 2)
    setattr(state, name, change(getattr(state, name)))
    with pytest.raises(StateError, match=message):
        engine.generate(state, mel_of(2, 1))


@pytest.mark.parametrize("temperature", [-1.0, NAN, INFINITY])
def test_an_impossible_temperature_is_refused(engine, mel_of, temperature):
    with pytest.raises(EngineError, match="temperature must be 0 or more"):
        engine.generate(StreamState.zeros(engine.layout, 1), mel_of(1, 1), temperature=temperature)


def test_levels_that_do_not_fit_are_refused(engine, mel_of):
    state = StreamState.zeros(engine.layout, 1)
    with pytest.raises(ShapeError, match=r"levels must be torch.float32 \[1, 20\]"):
        engine.parameters(state, mel_of(1, 3), torch.zeros(1, 3 * HOP))
    levels = torch.zeros(1, HOP)
    levels[0, 7] = NAN
    with pytest.raises(EngineError, match="levels hold NaN in row 0, sample 7"):
        engine.parameters(state, mel_of(1, 3), levels)
    assert not state.clock.any()


@pytest.mark.parametrize("model", ["mixture"], indirect=True)
@pytest.mark.parametrize(
    ("speaker", "message"),
    [
        (None, "knows 3 speakers"),
        (torch.tensor([3]), r"speaker must lie in 0 to 2, got \[3\]"),
        (torch.tensor([-1]), r"speaker must lie in 0 to 2, got \[-1\]"),
        (torch.tensor([0, 1]), r"speaker must be torch.int64 \[1\]"),
        (torch.tensor([0.0]), "got torch.float32"),
    ],
)
def test_a_speaker_that_does_not_fit_is_refused(choice, model, mel_of, speaker, message):
    engine = choice.make(model)
    with pytest.raises(ShapeError, match=message):
        engine.generate(StreamState.zeros(engine.layout, 1), mel_of(1, 1), speaker=speaker)
