"""What the graph engine holds beyond the contract: any hop, its captures, and a GPU's samples.

What a CUDA graph asks of its steps is in test_steps.py.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from wavewn.config import WaveNetConfig
from wavewn.engine import capture
from wavewn.engine.graph import BLOCK, GRAPHS, NOISE_FRAMES, GraphEngine, Noise, block_of
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError
from wavewn.models.wavenet import WaveNet
from wavewn.noise import draw_noise
from wavewn.state import StateLayout, StreamState

HOP, FRAMES = 20, 6
ATOL = 1e-5  # float32; the two sides differ in the order of sums


@pytest.mark.parametrize(
    ("hop", "block"),
    [(1, 1), (20, 20), (37, 32), (80, 20), (256, 32), (257, 32), (275, 25), (300, 30), (34, 17)],
)
def test_a_block_divides_the_hop_where_it_can(hop, block):
    assert block_of(hop) == block <= BLOCK


@pytest.mark.parametrize("hop", [1, 37])
@pytest.mark.parametrize("model", ["mu-law-3-taps", "gaussian-predicted"], indirect=True)
def test_hops_of_one_sample_and_with_a_tail(model, mel_of, speaker_of, hop):
    torch.manual_seed(1)
    model = WaveNet(model.settings, 6, hop, -11.5).eval()
    engine, reference = (
        kind(pack_wavenet(model), "cpu") for kind in (GraphEngine, ReferenceEngine)
    )
    mel, speaker = mel_of(2, FRAMES + engine.look_ahead), speaker_of(engine, 2)
    levels = model.levels(torch.rand(2, FRAMES * hop) - 0.5)
    states = [StreamState.zeros(engine.layout, 2, seed=3) for _ in range(4)]

    found, expected = (
        runner.parameters(state, mel, levels, speaker=speaker)
        for runner, state in zip((engine, reference), states, strict=False)
    )
    whole = engine.generate(states[2], mel, speaker=speaker)
    parts = [engine.generate(states[3], part, speaker=speaker) for part in mel.split(2, 2)]

    assert_close(found, expected, rtol=0, atol=ATOL * max(1.0, float(expected.abs().max())))
    assert_close(states[0].buffer, states[1].buffer, rtol=0, atol=ATOL)
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(states[2].buffer, states[3].buffer)


def test_a_row_does_not_depend_on_its_batch_at_full_width(mel_of):
    """Products of hundreds of inputs, and one of more than a thousand."""
    torch.manual_seed(1)
    settings = WaveNetConfig(
        residual_channels=64, skip_channels=128, cycles=2, layers_per_cycle=9, kernel_size=3
    )
    engine = GraphEngine(pack_wavenet(WaveNet(settings, 6, HOP, -11.5)), "cpu")
    mel = mel_of(5, 3)

    def audio(rows):
        state = StreamState.zeros(engine.layout, 5, seed=list(range(5))).select(rows)
        return engine.generate(state, mel[rows])

    whole = audio([0, 1, 2, 3, 4])

    assert all(torch.equal(audio([row])[0], whole[row]) for row in (0, 4))
    assert torch.equal(audio([1, 2, 3]), whole[1:4])


def test_noise_is_that_of_the_samples():
    state = StreamState.zeros(StateLayout.of([("level", 1, 1)]), 2, seed=[3, 4])
    state.clock.copy_(torch.tensor([HOP, 3 * HOP]))
    frames = 2 * NOISE_FRAMES + 3
    noise = Noise(("uniform", "normal"), state, HOP, frames)

    found = torch.cat([noise.of_frame(i) for i in range(frames)], dim=1)

    clock, samples = state.clock, frames * HOP
    expected = draw_noise(("uniform", "normal"), state.seed, state.stream, clock, samples)
    assert torch.equal(found, expected)


def run_and_keep(self, step):
    """Do as a capture does: run the step first."""
    step()
    return step


def test_a_capture_spoils_no_stream_and_there_are_never_many(voice, mel_of, monkeypatch):
    """A step is run before it is captured, wherever the last call ended in its frame."""
    mel, temperatures = mel_of(1, 3), [i / 8 for i in range(2 * GRAPHS)]

    def audio(engine, temperature):
        state = StreamState.zeros(voice.layout, 1)
        return engine.generate(state, mel, temperature=temperature)

    expected = [audio(GraphEngine(voice.weights, "cpu"), each) for each in temperatures]
    monkeypatch.setattr(capture.Capturer, "capture", run_and_keep)
    engine = GraphEngine(voice.weights, "cpu")

    for temperature, whole in zip(temperatures, expected, strict=True):
        assert torch.equal(audio(engine, temperature), whole)

    (steps,) = engine._rested
    assert 3 <= len(steps._captured) <= GRAPHS


def test_a_call_that_is_broken_off_leaves_all_as_it_was(voice, mel_of):
    engine, mel = GraphEngine(voice.weights, "cpu"), mel_of(2, 6)
    state = StreamState.zeros(engine.layout, 2)
    engine.generate(state, mel)
    kept = state.clone()

    def stop(frames):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(state, mel, progress=stop)

    assert torch.equal(state.buffer, kept.buffer)
    assert torch.equal(state.clock, kept.clock)
    assert torch.equal(engine.generate(state, mel), engine.generate(kept, mel))


def test_another_precision_is_refused(voice):
    with pytest.raises(EngineError, match="graph engine runs float32 alone, not float16"):
        GraphEngine(voice.weights, "cpu", "float16")


@pytest.fixture
def on_gpu(model):
    return GraphEngine(pack_wavenet(model), "cuda")


def audio_on(engine, mel, speaker, cuts=FRAMES, seed=2, progress=None):
    state = StreamState.zeros(engine.layout, mel.shape[0], seed=seed, device=engine.device)
    own = None if speaker is None else speaker.to(engine.device)
    parts = [
        engine.generate(state, part.to(engine.device), speaker=own, progress=progress)
        for part in mel.split(cuts, dim=2)
    ]
    return torch.cat(parts, dim=1).cpu()


@pytest.mark.gpu
def test_captured_steps_compute_what_the_others_do(
    on_gpu, model, mel_of, speaker_of, reference_of, monkeypatch
):
    engines = [reference_of(model), on_gpu, GraphEngine(on_gpu.weights, "cuda")]
    mel, speaker = mel_of(2, FRAMES + on_gpu.look_ahead), speaker_of(on_gpu, 2)
    levels = model.levels(torch.rand(2, FRAMES * HOP) - 0.5)
    found = []
    for i, engine in enumerate(engines):
        if i == 2:
            monkeypatch.setattr(capture.Capturer, "capture", run_and_keep)
        state = StreamState.zeros(engine.layout, 2, device=engine.device)
        own = None if speaker is None else speaker.to(engine.device)
        inputs = mel.to(engine.device), levels.to(engine.device)
        found.append((engine.parameters(state, *inputs, speaker=own).cpu(), state.buffer.cpu()))

    for parameters, memory in found[1:]:
        bound = ATOL * max(1.0, float(found[0][0].abs().max()))
        assert_close(parameters, found[0][0], rtol=0, atol=bound)
        assert_close(memory, found[0][1], rtol=0, atol=bound)


@pytest.mark.gpu
def test_any_chunking_equals_the_whole_on_a_gpu(on_gpu, mel_of, speaker_of):
    mel, speaker = mel_of(2, FRAMES + on_gpu.look_ahead), speaker_of(on_gpu, 2)
    whole = audio_on(on_gpu, mel, speaker, mel.shape[2])

    for cuts in (1, 2, 5):
        assert torch.equal(audio_on(on_gpu, mel, speaker, cuts), whole)
    assert not torch.equal(audio_on(on_gpu, mel, speaker, seed=3), whole)


@pytest.mark.gpu
def test_threads_on_streams_of_their_own_do_not_disturb_each_other(on_gpu, mel_of, speaker_of):
    mel, speaker = mel_of(2, 4 * FRAMES), speaker_of(on_gpu, 2)
    expected = [audio_on(on_gpu, mel, speaker, seed=seed) for seed in range(8)]

    def alone(seed):
        with torch.cuda.stream(torch.cuda.Stream()):
            return audio_on(on_gpu, mel, speaker, seed=seed)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(alone, range(8)))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.gpu
def test_a_temperature_met_later_is_captured_on_a_gpu(on_gpu, mel_of, speaker_of):
    mel, speaker = mel_of(1, FRAMES + on_gpu.look_ahead), speaker_of(on_gpu, 1)
    first = audio_on(on_gpu, mel, speaker)
    state = StreamState.zeros(on_gpu.layout, 1, seed=2, device="cuda")
    own = None if speaker is None else speaker.cuda()

    for i in range(2 * GRAPHS):
        on_gpu.generate(state.clone(), mel.cuda(), speaker=own, temperature=i / 8)

    assert torch.equal(audio_on(on_gpu, mel, speaker), first)


@pytest.mark.gpu
def test_nothing_waits_for_a_gpu_while_samples_are_made(on_gpu, mel_of, speaker_of):
    """From the first frame that is told of to the last: the host runs far ahead of the device."""
    frames = 2 * NOISE_FRAMES + 4
    mel, speaker = mel_of(2, frames + on_gpu.look_ahead), speaker_of(on_gpu, 2)
    expected, told = audio_on(on_gpu, mel, speaker, mel.shape[2]), []

    def watch(done):
        told.append(done)
        torch.cuda.set_sync_debug_mode("default" if len(told) == frames else "error")

    try:
        audio = audio_on(on_gpu, mel, speaker, mel.shape[2], progress=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert len(told) == frames
    assert torch.equal(audio, expected)
