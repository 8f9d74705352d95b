"""A stream gives its samples in time, to the end, and goes on from the state that it is given.

That they are the same in any chunking is in test_contract_streams.py, for every engine.
"""

import pytest
import torch

from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.stream import Stream
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.state import StreamState

BANDS, HOP = 6, 20
FRAMES = 10


def play(stream, mel, cuts=FRAMES):
    return torch.cat([*map(stream.push, mel.split(cuts, dim=-1)), stream.finish()], dim=1)


@pytest.fixture
def streams(engine, speaker_of):
    """Make streams of two rows of any model, with their speakers."""
    return lambda seed=0: Stream(engine, 2, speaker=speaker_of(engine, 2), seed=seed)


def test_audio_comes_as_soon_as_it_is_determined(streams, mel_of):
    stream = streams()
    wait = stream.latency_samples // HOP
    given = [stream.push(frame).shape[1] for frame in mel_of(2, FRAMES).split(1, dim=2)]

    assert given == [0] * wait + [HOP] * (FRAMES - wait)
    assert stream.finish().shape == (2, wait * HOP)


@pytest.mark.parametrize("changed", [4, 9])
def test_the_latency_is_what_perturbed_frames_say(streams, engine, mel_of, changed):
    """Audio before (frame - look-ahead) ignores a frame, audio from there on hears it."""
    mel = mel_of(2, FRAMES)
    other = mel.clone()
    other[:, :, changed] += 3.0
    levels = torch.zeros(2, FRAMES * HOP)

    def run(mel):
        silence = torch.full((2, BANDS, engine.look_ahead), engine.weights.mel_silence)
        state, speaker = streams().state, streams().speaker
        return engine.parameters(state, torch.cat([mel, silence], 2), levels, speaker=speaker)

    differs = (run(mel) != run(other)).any(dim=2).any(dim=0).nonzero()[:, 0]

    latency = streams().latency_samples
    assert latency == engine.look_ahead * HOP
    assert differs[0] == changed * HOP - latency


def test_the_network_hears_no_future(model, mel_of, speaker_of, engine):
    """The stream may stop at any frame, because the network's gradient to later ones is zero."""
    mel = mel_of(1, FRAMES).requires_grad_()
    levels = torch.rand(1, (FRAMES - engine.look_ahead) * HOP).requires_grad_()
    sample, frame = 5 * HOP + 3, 5

    output = model(levels, mel, speaker_of(engine, 1))
    output[:, sample].square().sum().backward()

    assert not levels.grad[:, sample:].any()
    assert not mel.grad[:, :, frame + engine.look_ahead + 1 :].any()
    # so that the lines above can fail:
    assert levels.grad[:, sample - 1].any()
    assert mel.grad[:, :, frame + engine.look_ahead].any()


def test_the_same_seed_gives_the_same_audio(streams, mel_of):
    mel = mel_of(2, FRAMES)
    audio = play(streams(seed=7), mel)

    assert torch.equal(play(streams(seed=7), mel), audio)
    assert not torch.equal(play(streams(seed=8), mel), audio)
    mixed = play(streams(seed=[7, 8]), mel)
    assert torch.equal(mixed[0], audio[0])
    assert not torch.equal(mixed[1], audio[1])


def test_a_seed_is_a_seed_in_every_row(voice, mel_of):
    mel = mel_of(1, 4)
    audio = play(Stream(voice, 2, seed=3), mel.expand(2, -1, -1))

    assert torch.equal(audio[0], audio[1])


@pytest.mark.parametrize("when", [1, 6])
def test_a_branch_goes_its_own_way(streams, mel_of, when):
    mel, expected = mel_of(2, FRAMES), play(streams(), mel_of(2, FRAMES))
    stream, branch = streams(), streams()
    first = stream.push(mel[:, :, :when])
    branch.state = stream.state.clone()

    strayed = play(branch, mel_of(2, FRAMES - when, seed=9))

    assert torch.equal(torch.cat([first, play(stream, mel[:, :, when:])], 1), expected)
    assert not torch.equal(torch.cat([first, strayed], 1), expected)


def test_a_row_starts_anew_while_the_other_goes_on(voice, mel_of):
    mel, next_mel = mel_of(2, FRAMES), mel_of(1, FRAMES - 6, seed=3)
    expected = play(Stream(voice, 2, seed=[1, 2]), mel)
    stream = Stream(voice, 2, seed=[1, 2])
    first = stream.push(mel[:, :, :6])

    stream.state.reset(torch.tensor([False, True]), seed=[0, 4])
    second = play(stream, torch.cat([mel[:1, :, 6:], next_mel]), cuts=3)

    assert torch.equal(torch.cat([first, second], 1)[0], expected[0])
    fresh = play(Stream(voice, 1, seed=4), next_mel)
    assert torch.equal(second[1:, stream.latency_samples :], fresh)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_utterances_shorter_than_the_look_ahead(voice, mel_of, frames):
    stream = Stream(voice)
    assert stream.push(mel_of(1, frames)).shape == (1, 0)
    assert stream.finish().shape == (1, frames * HOP)


def test_the_end_is_silence(voice, mel_of):
    """Right padding is what `finish` pads: frames of silence give the same samples."""
    mel = mel_of(1, 5)
    silence = torch.full((1, BANDS, 3), voice.weights.mel_silence)

    longer = play(Stream(voice), torch.cat([mel, silence], dim=2))

    assert torch.equal(play(Stream(voice), mel), longer[:, : 5 * HOP])


def test_a_finished_stream_is_refused_until_it_gets_a_state(voice, mel_of):
    stream = Stream(voice)
    stream.push(mel_of(1, 3))
    saved = stream.state.clone()
    stream.finish()

    for call in (lambda: stream.push(mel_of(1, 1)), stream.finish):
        with pytest.raises(EngineError, match="the stream is finished; make a new one"):
            call()
    stream.state = saved
    assert stream.push(mel_of(1, 1)).shape == (1, HOP)


def test_two_axes_are_one_row(voice, mel_of):
    mel = mel_of(1, 4)
    assert torch.equal(Stream(voice).push(mel[0]), Stream(voice).push(mel))
    assert torch.equal(Stream(voice).push(mel[0].numpy()), Stream(voice).push(mel))


@pytest.mark.parametrize("shape", [(BANDS + 1, 3), (2, BANDS, 3), (BANDS,), (1, 1, BANDS, 3)])
def test_a_push_of_another_shape_is_refused(voice, shape):
    with pytest.raises(ShapeError, match=r"a push must be \[1 rows, 6 bands, frames\], got"):
        Stream(voice).push(torch.zeros(shape))


def test_a_push_of_integers_is_refused(voice):
    with pytest.raises(ShapeError, match="floating point, got torch.int64"):
        Stream(voice).push(torch.zeros(BANDS, 3).long())


def test_a_state_of_another_model_or_batch_is_refused(voice, wide_model):
    stream, other = Stream(voice), ReferenceEngine(pack_wavenet(wide_model))
    with pytest.raises(StateError, match="of another model"):
        stream.state = StreamState.zeros(other.layout, 1)
    with pytest.raises(StateError, match="the stream has 1 rows, the state 2"):
        stream.state = StreamState.zeros(voice.layout, 2)


def test_audio_is_an_ordinary_tensor(voice, mel_of):
    """Made under inference_mode it would refuse to meet a gradient."""
    audio = play(Stream(voice), mel_of(1, 3))
    weight = torch.ones(1, requires_grad=True)
    (audio * weight).sum().backward()
    assert weight.grad is not None


def test_progress_counts_frames_of_audio(voice, mel_of):
    stream, told = Stream(voice), []
    stream.push(mel_of(1, 5), progress=told.append)
    assert sum(told) == 3
    stream.finish(progress=told.append)
    assert sum(told) == 5


def test_audio_is_written_into_a_buffer_of_the_callers(voice, mel_of):
    mel = mel_of(2, 5)
    expected, stream = play(Stream(voice, 2, seed=[1, 2]), mel), Stream(voice, 2, seed=[1, 2])
    buffer = torch.full((1000,), 9.0)

    first = stream.push(mel, out=buffer)
    begun = first.clone()
    last = stream.finish(out=buffer[500:])

    assert (first.shape, last.shape) == ((2, 3 * HOP), (2, 2 * HOP))
    assert first.data_ptr() == buffer.data_ptr()
    assert last.data_ptr() == buffer[500:].data_ptr()
    assert torch.equal(torch.cat([begun, last], dim=1), expected)
    assert (buffer[2 * 3 * HOP : 500] == 9.0).all()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.zeros(2 * HOP - 1), r"out must be torch.float32 \[40\] on cpu, got .* \[39\]"),
        (torch.zeros(2, HOP), r"out must be torch.float32 \[40\] on cpu, got .* \[2, 20\]"),
        (torch.zeros(2 * HOP).double(), "got torch.float64"),
        (torch.zeros(4 * HOP)[::2], "out must be contiguous"),
        (torch.zeros(2 * HOP).numpy(), "torch.from_numpy"),
    ],
)
def test_a_buffer_that_does_not_serve_is_refused(voice, mel_of, out, message):
    stream = Stream(voice, 2)
    with pytest.raises(ShapeError, match=message):
        stream.push(mel_of(2, 3), out=out)
    assert stream.push(mel_of(2, 3)).shape == (2, HOP)
