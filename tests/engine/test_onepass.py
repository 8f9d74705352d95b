"""A one-pass model streams what it says offline, in time and to its end.

`float32` is held to 1e-5: convolutions of other lengths sum in another order. bfloat16 rounds each
sum to 8 bits, so that another order may flip a last bit here and there: 50 dB.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.stream import Stream
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.models.levelled import Levelled
from wavewn.noise import draw_noise
from wavewn.state import StreamState

ATOL = 1e-5
LEAST_DB = 50.0
BANDS, HOP, FRAMES = 6, 20, 26
NAN = float("nan")


@pytest.fixture
def engine(one_pass_engine, one_pass_way):
    return one_pass_engine(one_pass_way)


@pytest.fixture
def plain(one_pass_engine):
    """One that no noise drives."""
    return one_pass_engine("hifigan")


@pytest.fixture
def driven(one_pass_engine):
    """One that noise drives."""
    return one_pass_engine("wavegan")


def mel_of(batch, frames=FRAMES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, BANDS, frames, generator=generator) * 2 - 6


def play(engine, mel, cuts=FRAMES, seed=0):
    stream = Stream(engine, len(mel), seed=seed)
    return torch.cat([*map(stream.push, mel.split(cuts, dim=2)), stream.finish()], dim=1)


def near(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=ATOL)


@pytest.mark.parametrize("cuts", [1, 2, 3, 7, 25])
def test_a_stream_is_the_whole_in_any_chunking(engine, cuts):
    mel = mel_of(2)
    whole = play(engine, mel, seed=[3, 4])

    assert whole.shape == (2, FRAMES * HOP)
    assert 0.01 < whole.std() and whole.abs().mean() < 0.9
    near(play(engine, mel, cuts, seed=[3, 4]), whole)


def test_the_whole_is_what_the_model_says(one_pass, engine, one_pass_way):
    model, mel = one_pass(one_pass_way.removeprefix("native:")), mel_of(2)
    noise = None
    if channels := model.noise_channels:
        seed, zero = torch.tensor([3, 4]), torch.zeros(2, dtype=torch.int64)
        drawn = draw_noise(("normal",) * channels, seed, zero, zero, FRAMES * HOP)
        noise = drawn.transpose(1, 2)

    near(play(engine, mel, seed=[3, 4]), model(mel, noise).clamp(-1, 1))


@pytest.mark.parametrize("name", ["hifigan", "wavegan", "spectral", "native:hifigan"])
@pytest.mark.parametrize("cuts", [1, 7])
def test_chunks_in_bfloat16_are_the_whole_within_50_db(one_pass_engine, name, cuts):
    engine, mel = one_pass_engine(name, "bfloat16"), mel_of(1)
    whole = play(engine, mel)
    error = play(engine, mel, cuts) - whole

    assert 10 * math.log10(whole.square().sum() / error.square().sum().clamp_min(1e-30)) >= LEAST_DB
    assert not torch.equal(whole, play(one_pass_engine(name), mel))  # it is another precision
    assert whole.dtype == torch.float32


def test_audio_comes_no_later_than_the_latency_says(engine):
    """The shortfall reaches `latency_samples` and never goes beyond."""
    stream, given, lags = Stream(engine), 0, []
    for number, frame in enumerate(mel_of(1).split(1, dim=2), start=1):
        given += stream.push(frame).shape[1]
        lags.append(number * HOP - given)

    assert max(lags) == stream.latency_samples == engine.latency_samples
    assert stream.finish().shape == (1, lags[-1])


@pytest.mark.parametrize("changed", [9, 20])
def test_what_was_given_is_determined_and_what_was_not_is_not(engine, changed):
    """Frames from `changed` on alter nothing that came before, and the next samples at once.

    The tails of a levelling's windows let little of it through at first.
    """
    mel, other = mel_of(1), mel_of(1)
    other[:, :, changed:] += 3.0
    before = engine.due_samples(StreamState.zeros(engine.layout, 1), changed)

    one, two = play(engine, mel), play(engine, other)

    near(one[:, :before], two[:, :before])
    assert before == max(changed * HOP - engine.latency_samples, 0)
    hops = 3 if isinstance(engine._model, Levelled) else 1
    assert (one != two)[:, before : before + hops * HOP].any()


@pytest.mark.parametrize("when", [1, 11])
def test_a_saved_state_goes_on(engine, when):
    mel, whole = mel_of(2), play(engine, mel_of(2), seed=5)
    stream = Stream(engine, 2, seed=5)
    first = stream.push(mel[:, :, :when])
    saved = stream.state.state_dict()

    other = Stream(engine, 2)
    other.state = StreamState.from_state_dict(engine.layout, saved)
    rest = other.push(mel[:, :, when:])

    near(torch.cat([first, rest, other.finish()], dim=1), whole)


def test_a_row_knows_nothing_of_the_others(engine):
    mel, other = mel_of(2), mel_of(2)
    other[1] = mel_of(1, seed=9)
    seeds = [5, 6]
    audio = play(engine, mel, 7, seeds)

    near(play(engine, other, 7, seeds)[0], audio[0])
    near(play(engine, mel[1:], 7, 6), audio[1:])
    assert not torch.allclose(play(engine, other, 7, seeds)[1], audio[1])


def test_a_row_reset_in_the_middle_begins_anew(engine):
    """Its audio lies at the end of what comes, and is that of a fresh stream."""
    mel, fresh = mel_of(3, 10), mel_of(3, 9, seed=4)
    state = StreamState.zeros(engine.layout, 3, streams=[0, 0, 0])
    first = engine.generate(state, mel)
    state.reset(torch.tensor([False, True, False]))

    parts = [engine.generate(state, part) for part in fresh.split([2, 7], dim=2)]
    parts.append(engine.finish(state))

    rows = [0, 2]
    others = torch.cat([first, *parts], dim=1)[rows]
    near(others, play(engine, torch.cat([mel, fresh], dim=2))[rows])
    alone = StreamState.zeros(engine.layout, 1)
    own = [engine.generate(alone, part) for part in fresh[1:2].split([2, 7], dim=2)]
    own.append(engine.finish(alone))
    for part, expected in zip(parts, own, strict=True):
        silent = part.shape[1] - expected.shape[1]
        near(part[1:2, silent:], expected)
        assert not part[1, :silent].any()


def test_long_mels_are_heard_in_pieces(engine, monkeypatch):
    mel, told = mel_of(2), []
    whole = play(engine, mel)
    monkeypatch.setattr("wavewn.engine.onepass.PIECE", 2 * 3 * HOP)

    stream = Stream(engine, 2)
    audio = [stream.push(mel, told.append), stream.finish(told.append)]

    near(torch.cat(audio, dim=1), whole)
    assert sum(told) == FRAMES
    assert len(told) >= FRAMES // 4  # so that there have been pieces


def test_noise_is_a_function_of_seed_and_place(driven):
    mel = mel_of(1)
    audio = play(driven, mel, seed=7)

    near(play(driven, mel, 3, seed=7), audio)
    assert not torch.allclose(play(driven, mel, seed=8), audio)


def test_temperature_scales_the_noise_where_there_is_some(driven, plain):
    mel = mel_of(1, 4)

    def say(engine, temperature, seed=0):
        state = StreamState.zeros(engine.layout, 1, seed)
        first = engine.generate(state, mel, temperature=temperature)
        return torch.cat([first, engine.finish(state, temperature=temperature)], dim=1)

    assert torch.equal(say(driven, 0.0), say(driven, 0.0, seed=1))
    assert not torch.allclose(say(driven, 0.5), say(driven, 1.0))
    with pytest.raises(EngineError, match="temperature must be 1, got 0.5: no noise drives this"):
        say(plain, 0.5)
    with pytest.raises(EngineError, match="temperature must be 0 or more"):
        say(driven, NAN)


def test_an_empty_utterance_is_silence_without_samples(engine):
    stream = Stream(engine, 2)

    assert stream.push(mel_of(2, 0)).shape == (2, 0)
    assert stream.finish().shape == (2, 0)


def test_an_utterance_too_short_to_reflect_is_named(one_pass_engine):
    engine = one_pass_engine("hifigan-reflect")
    state = StreamState.zeros(engine.layout, 1)
    engine.generate(state, mel_of(1, 2))
    kept = state.clone()

    with pytest.raises(ShapeError, match="too short: .* reflect .*; give more mel frames"):
        engine.finish(state)
    assert torch.equal(state.buffer, kept.buffer) and torch.equal(state.clock, kept.clock)


def test_a_finished_row_must_be_reset(engine):
    state = StreamState.zeros(engine.layout, 2)
    engine.generate(state, mel_of(2))
    engine.finish(state)

    with pytest.raises(StateError, match="row 0 is finished; reset it for the next utterance"):
        engine.generate(state, mel_of(2))
    state.reset(torch.tensor([True, True]))
    engine.generate(state, mel_of(2))


def test_audio_is_written_where_the_caller_wants_it(engine):
    room, mel = torch.full((2 * FRAMES * HOP,), NAN), mel_of(2)
    stream, whole = Stream(engine, 2), play(engine, mel)

    first = stream.push(mel, out=room)
    assert first.data_ptr() == room.data_ptr()
    begun = first.clone()
    rest = stream.finish(out=room)

    assert rest.data_ptr() == room.data_ptr() or not rest.numel()
    near(torch.cat([begun, rest], dim=1), whole)


def test_two_streams_in_two_threads_do_not_disturb_each_other(engine):
    mels = [mel_of(1, seed=seed) for seed in range(4)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda mel: play(engine, mel, 3), mels))

    for mel, audio in zip(mels, found, strict=True):
        assert torch.equal(audio, play(engine, mel, 3))


def test_the_model_is_copied_and_threads_are_given_back(one_pass):
    model, mel = one_pass("hifigan"), mel_of(1)
    engine, before = OnePassEngine(model, threads=2), torch.get_num_threads()
    expected = play(engine, mel)
    model.conv_pre.weight.zero_()

    near(play(engine, mel), expected)
    assert torch.get_num_threads() == before
