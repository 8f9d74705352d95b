"""What every engine promises of streams: they go on where they were, and nothing disturbs them.

Their samples do not depend on the chunks, the company, the threads, or on what else is going on.
"""

import io
import multiprocessing
import queue
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wavewn.engine.stream import Stream
from wavewn.state import StreamState

HOP, FRAMES = 20, 9


def play(stream, mel, cuts=FRAMES):
    return torch.cat([*map(stream.push, mel.split(cuts, dim=-1)), stream.finish()], dim=1)


def test_any_chunking_equals_the_whole(choice, model, mel_of, speaker_of):
    engine, mel = choice.make(model), mel_of(2, FRAMES)
    streams = [Stream(engine, 2, speaker=speaker_of(engine, 2), seed=[1, 2]) for _ in range(4)]

    whole, *parts = (
        play(stream, mel, cuts)
        for stream, cuts in zip(streams, (FRAMES, 1, 2, [3, 0, 1, 5]), strict=True)
    )

    assert all(torch.equal(part, whole) for part in parts)
    assert all(torch.equal(one.state.buffer, streams[0].state.buffer) for one in streams)
    assert whole.shape == (2, FRAMES * HOP)
    assert whole.abs().max() <= 1
    assert whole.std() > 0.01


def test_a_saved_state_goes_on_in_another_engine_of_its_kind(choice, model, mel_of, speaker_of):
    """And the stream that it was saved from goes on as if nothing had been."""
    engine, mel = choice.make(model), mel_of(2, FRAMES)
    speaker = speaker_of(engine, 2)
    expected = play(Stream(engine, 2, speaker=speaker, seed=5), mel)
    stream = Stream(engine, 2, speaker=speaker, seed=5)
    first = stream.push(mel[:, :, :4])
    file = io.BytesIO()
    torch.save(stream.state.state_dict(), file)
    file.seek(0)

    fresh = Stream(choice.make(model), 2, speaker=speaker)
    fresh.state = StreamState.from_state_dict(engine.layout, torch.load(file, weights_only=True))

    for one in (fresh, stream):
        assert torch.equal(torch.cat([first, play(one, mel[:, :, 4:])], 1), expected)


def together(engine, mel, speaker=None, first=0):
    """Audio of rows in one call; the seed is the row's number, counted from `first`."""
    batch = mel.shape[0]
    state = StreamState.zeros(engine.layout, batch, range(first, first + batch), [0] * batch)
    return engine.generate(state, mel, speaker=speaker)


def test_a_row_does_not_depend_on_its_batch(choice, model, mel_of, speaker_of):
    """Eighteen rows at once, and in parties of other sizes, where each has another place."""
    engine = choice.make(model)
    mel, speaker = mel_of(18, 2 + engine.look_ahead), speaker_of(engine, 18)
    whole, first = together(engine, mel, speaker), 0

    for batch in (1, 2, 3, 5, 7):
        rows = slice(first, first + batch)
        own = None if speaker is None else speaker[rows]
        assert torch.equal(together(engine, mel[rows], own, first), whole[rows]), batch
        first += batch
    assert first == len(whole)
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("cuts", [1, 2])
def test_older_taps_that_are_added_early_change_no_bit(choice, wide_model, mel_of, cuts):
    """Natively a lonely row's are added for up to eight of a frame's twenty samples at once, and
    those of five rows as they come. Dilations 1 to 32 with 3 taps.
    """
    engine, mel = choice.make(wide_model), mel_of(5, 4)
    state = StreamState.zeros(engine.layout, 1, [0], [0])
    parts = [engine.generate(state, chunk) for chunk in mel[:1].split(cuts, 2)]

    whole = together(engine, mel)

    assert torch.equal(torch.cat(parts, 1), whole[:1])
    assert whole.shape == (5, 3 * HOP)
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("threads", [2, 3])
def test_audio_does_not_depend_on_threads(choice, wide_model, mel_of, threads):
    mel, before = mel_of(18, 3), torch.get_num_threads()
    expected = together(choice.make(wide_model), mel)

    torch.set_num_threads(threads)
    try:
        engine = choice.make(wide_model, threads)
        assert torch.equal(together(engine, mel), expected)
        assert torch.equal(together(engine, mel[:1]), expected[:1])
    finally:
        torch.set_num_threads(before)


def test_rows_with_clocks_of_their_own(choice, plain_model, mel_of):
    """One row is reset in mid-stream: it is silent while it looks ahead, the other goes on."""
    engine, mel = choice.make(plain_model), mel_of(2, 9)
    state = StreamState.zeros(engine.layout, 2, seed=[1, 2], streams=[0, 0])
    fresh = StreamState.zeros(engine.layout, 1, seed=2, streams=[0])
    first = engine.generate(state, mel[:, :, :4])

    state.reset(torch.tensor([False, True]))
    second = torch.cat([engine.generate(state, m) for m in mel[:, :, 4:].split([1, 4], 2)], dim=1)

    whole = StreamState.zeros(engine.layout, 1, seed=1, streams=[0])
    assert torch.equal(torch.cat([first, second], 1)[:1], engine.generate(whole, mel[:1]))
    assert torch.equal(second[1:, 2 * HOP :], engine.generate(fresh, mel[1:, :, 4:]))
    assert not second[1, : 2 * HOP].any()
    assert state.clock.tolist() == [7 * HOP, 3 * HOP]


@pytest.mark.parametrize("threads", [1, 2])
def test_streams_in_two_threads_do_not_disturb_each_other(choice, plain_model, mel_of, threads):
    engine, mel = choice.make(plain_model, threads), mel_of(4, 12)

    def run(row):
        state = StreamState.zeros(engine.layout, 1, seed=row)
        parts = mel[row : row + 1].split(1, dim=2)
        return torch.cat([engine.generate(state, part) for part in parts], dim=1)

    expected = [run(row) for row in range(4)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, range(4)))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_an_engine_works_in_a_forked_process(choice, plain_model, mel_of):
    if choice.device.startswith("cuda"):
        pytest.skip("CUDA cannot be used in a forked process")
    engine, mel = choice.make(plain_model, threads=2), mel_of(3, 4)
    expected = together(engine, mel)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()

    child = fork.Process(target=lambda: answers.put(together(engine, mel).numpy().tobytes()))
    child.start()
    try:
        found = answers.get(timeout=60)
    except queue.Empty:
        pytest.fail("the engine hangs in the child")
    finally:
        child.kill()
        child.join()

    assert found == expected.numpy().tobytes()
    assert torch.equal(together(engine, mel), expected)


@pytest.mark.parametrize("model", ["mixture"], indirect=True)
def test_speakers_sound_different(choice, model, mel_of):
    engine = choice.make(model)
    one, other = (
        engine.generate(
            StreamState.zeros(engine.layout, 1), mel_of(1, 3), speaker=torch.tensor([i])
        )
        for i in (0, 2)
    )
    assert not torch.equal(one, other)


def test_audio_is_written_where_the_caller_wants_it(choice, plain_model, mel_of):
    engine, mel = choice.make(plain_model), mel_of(3, 4)
    expected = together(engine, mel)
    state = StreamState.zeros(engine.layout, 3, range(3), streams=[0] * 3)
    out = torch.full_like(expected, float("nan"))

    audio = engine.generate(state, mel, out=out)

    assert audio.data_ptr() == out.data_ptr()
    assert torch.equal(out, expected)


def test_an_engine_says_what_it_is(choice, plain_model, voice):
    engine = choice.make(plain_model)

    assert (engine.name, engine.precision) == (choice.name, choice.precision)
    assert getattr(engine, "instruction_set", "") == choice.instruction_set
    assert engine.device == torch.device("cpu")
    assert engine.layout == voice.layout
    assert engine.look_ahead == voice.look_ahead
    assert engine.head.parameters == voice.head.parameters
    assert engine.weights.hop_length == HOP


def test_int8_sounds_alike_on_every_instruction_set(model, runnable, mel_of, speaker_of):
    engines = [choice.make(model) for choice in runnable if choice.precision == "int8"]
    if len(engines) < 2:
        pytest.skip("fewer than two instruction sets of the native engine run here")
    mel, speaker = mel_of(3, 5), speaker_of(engines[0], 3)

    first, *others = (together(engine, mel, speaker) for engine in engines)

    assert all(torch.equal(one, first) for one in others)
