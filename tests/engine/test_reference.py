"""The reference engine computes what the network computes, and each stream by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet, tensors
from wavewn.noise import draw_noise
from wavewn.state import StreamState

ATOL = 1e-5  # float32; the two sides differ in the order of sums and in how they write a sigmoid
BANDS, HOP = 6, 20


def true_levels(model, batch, frames):
    audio = torch.rand(batch, frames * HOP, generator=torch.Generator().manual_seed(3)) - 0.5
    return model.levels(audio)


@torch.no_grad()
def network(model, levels, mel, speaker):
    """Teacher-forced parameters; the mel goes on in silence."""
    padded = F.pad(mel, (0, model.condition.look_ahead), value=float(model.mel_silence))
    return model(levels, padded, speaker)


def cached(engine, state, mel, levels, speaker, cuts):
    """Parameters of pushes of so many frames each."""
    parts, begin = [], 0
    for chunk in mel.split(cuts, dim=2):
        end = begin + engine.due_frames(state, chunk.shape[2]) * HOP
        parts.append(engine.parameters(state, chunk, levels[:, begin:end], speaker=speaker))
        begin = end
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("frames", [5, 13])
def test_cached_parameters_are_the_networks(model, engine, mel_of, speaker_of, frames):
    mel, speaker = mel_of(2, frames), speaker_of(engine, 2)
    padded = F.pad(mel, (0, engine.look_ahead), value=float(model.mel_silence))
    levels = true_levels(model, 2, frames)

    state = StreamState.zeros(engine.layout, 2)
    found = engine.parameters(state, padded, levels, speaker=speaker)

    assert_close(found, network(model, levels, mel, speaker), rtol=0, atol=ATOL)
    wrong = true_levels(model, 2, frames).roll(1, dims=1)
    assert not torch.allclose(found, network(model, wrong, mel, speaker), rtol=0, atol=ATOL)
    assert state.clock.tolist() == [frames * HOP] * 2


def test_dilations_longer_than_a_hop(wide_model, mel_of):
    """Dilations 1 to 32 with 3 taps: contexts of 2 to 64 samples around a hop of 20."""
    engine = ReferenceEngine(pack_wavenet(wide_model))
    mel, levels = mel_of(1, 12), true_levels(wide_model, 1, 12)
    padded = F.pad(mel, (0, engine.look_ahead), value=float(wide_model.mel_silence))

    state = StreamState.zeros(engine.layout, 1)
    found = cached(engine, state, padded, levels, None, 1)

    assert_close(found, network(wide_model, levels, mel, None), rtol=0, atol=ATOL)


def test_the_state_holds_the_true_layer_inputs(plain_model, voice, mel_of):
    """Other engines take over from here, so rings hold what the network computes."""
    seen = []
    plain_model.stack.layers[4].gate.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    mel, levels = mel_of(2, 6), true_levels(plain_model, 2, 6)
    network(plain_model, levels, mel, None)
    state = StreamState.zeros(voice.layout, 2)
    padded = F.pad(mel, (0, 2), value=float(plain_model.mel_silence))
    voice.parameters(state, padded, levels)

    ring = state.history("layers.4")

    assert ring.shape == (2, 2, 8)
    assert_close(ring, seen[0][:, -2:], rtol=0, atol=ATOL)
    assert torch.equal(state.view("level")[:, 0, 0], levels[:, -1])
    assert state.view("ahead").flatten().tolist() == [2, 2]


def test_forcing_what_was_drawn_gives_the_same_state(voice, mel_of):
    """Parameters, sampling and forcing agree: redo each draw from the forced parameters."""
    free = StreamState.zeros(voice.layout, 2, seed=4)
    forced = free.clone()
    mel = mel_of(2, 6)
    voice.generate(free, mel)
    levels = torch.zeros(2, 4 * HOP)
    noise = draw_noise(voice.head.noise, forced.seed, forced.stream, forced.clock, 4 * HOP)
    for t in range(4 * HOP):
        trial = forced.clone()
        parameters = voice.parameters(trial, mel, levels)
        levels[:, t] = voice.head.sample(parameters[:, t], noise[:, t])

    voice.parameters(forced, mel, levels)

    assert torch.equal(forced.buffer, free.buffer)
    assert torch.equal(forced.clock, free.clock)


def each_alone(engine, mel, speaker):
    """Audio of each row in a stream of its own; row number = seed."""
    rows = []
    for row in range(mel.shape[0]):
        state = StreamState.zeros(engine.layout, 1, seed=row, streams=[0])
        own = None if speaker is None else speaker[row : row + 1]
        rows.append(engine.generate(state, mel[row : row + 1], speaker=own))
    return torch.cat(rows)


def together(engine, mel, speaker):
    batch = mel.shape[0]
    state = StreamState.zeros(engine.layout, batch, range(batch), streams=[0] * batch)
    return engine.generate(state, mel, speaker=speaker)


def test_a_row_does_not_depend_on_its_batch(engine, mel_of, speaker_of):
    mel, speaker = mel_of(20, 4), speaker_of(engine, 20)
    expected = each_alone(engine, mel, speaker)

    for batch in (2, 3, 5, 20):
        own = None if speaker is None else speaker[:batch]
        assert torch.equal(together(engine, mel[:batch], own), expected[:batch]), batch
    assert not torch.equal(expected[0], expected[1])


@pytest.mark.parametrize("threads", [2, 3])
def test_audio_does_not_depend_on_threads(wide_model, mel_of, threads):
    engine, mel = ReferenceEngine(pack_wavenet(wide_model)), mel_of(20, 3)
    expected = together(engine, mel, None)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(together(engine, mel, None), expected)
        assert torch.equal(together(engine, mel[:1], None), expected[:1])
    finally:
        torch.set_num_threads(before)


def test_rows_with_clocks_of_their_own(voice, mel_of):
    """One row is reset in mid-stream: it is silent while it looks ahead, the other goes on."""
    mel = mel_of(2, 9)
    state = StreamState.zeros(voice.layout, 2, seed=[1, 2], streams=[0, 0])
    fresh = StreamState.zeros(voice.layout, 1, seed=2, streams=[0])
    first = voice.generate(state, mel[:, :, :4])

    state.reset(torch.tensor([False, True]))
    second = torch.cat([voice.generate(state, m) for m in mel[:, :, 4:].split([1, 4], 2)], dim=1)

    whole = StreamState.zeros(voice.layout, 1, seed=1, streams=[0])
    assert torch.equal(torch.cat([first, second], 1)[:1], voice.generate(whole, mel[:1]))
    assert torch.equal(second[1:, 2 * HOP :], voice.generate(fresh, mel[1:, :, 4:]))
    assert not second[1, : 2 * HOP].any()
    assert state.clock.tolist() == [7 * HOP, 3 * HOP]


def test_streams_in_two_threads_do_not_disturb_each_other(voice, mel_of):
    mel = mel_of(4, 12)

    def run(row):
        state = StreamState.zeros(voice.layout, 1, seed=row)
        parts = mel[row : row + 1].split(1, dim=2)
        return torch.cat([voice.generate(state, part) for part in parts], dim=1)

    expected = [run(row) for row in range(4)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, range(4)))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_packed_weights_are_copies(plain_model):
    weights = pack_wavenet(plain_model)
    kept = [value.clone() for value in tensors(weights)]

    with torch.no_grad():
        for parameter in plain_model.parameters():
            parameter.zero_()

    assert len(kept) == 30
    assert all(torch.equal(a, b) for a, b in zip(tensors(weights), kept, strict=True))


@pytest.mark.parametrize("model", ["mixture"], indirect=True)
def test_speakers_sound_different(engine, mel_of):
    one, other = (
        engine.generate(
            StreamState.zeros(engine.layout, 1), mel_of(1, 3), speaker=torch.tensor([i])
        )
        for i in (0, 2)
    )
    assert not torch.equal(one, other)


@pytest.mark.gpu
def test_cached_parameters_are_the_networks_on_a_gpu(model, mel_of, speaker_of):
    engine = ReferenceEngine(pack_wavenet(model), "cuda")
    mel, levels = mel_of(2, 5), true_levels(model, 2, 5)
    speaker = speaker_of(engine, 2)
    padded = F.pad(mel, (0, engine.look_ahead), value=float(model.mel_silence))
    state = StreamState.zeros(engine.layout, 2, device=engine.device)
    own = None if speaker is None else speaker.cuda()

    found = engine.parameters(state, padded.cuda(), levels.cuda(), speaker=own).cpu()

    assert_close(found, network(model, levels, mel, speaker), rtol=0, atol=ATOL)
