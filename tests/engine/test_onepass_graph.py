"""Steady chunks are one piece of work, whenever they come, and can be replayed.

Without a GPU the same code runs uncaptured, with the row numbers of the first steady chunk.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wavewn.engine import onepass_graph
from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.stream import Stream
from wavewn.engine.torch_setting import Tf32Switch
from wavewn.state import StreamState

BANDS, HOP = 6, 20
ATOL = 1e-5  # float32; kernels of other sizes sum in another order
LEAST_DB = 40.0  # bfloat16, where another order flips last bits of 8
DEVICES_DB = 60.0  # float32 on a GPU beside a CPU: other sines and exponentials
WAITS = {"_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "_unique2", "unique_dim"}


def mel_of(batch, frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, BANDS, frames, generator=generator) * 2 - 6


def decibels(found, expected):
    error = (found - expected).square().sum().clamp_min(1e-30)
    return 10 * (expected.square().sum() / error).log10().item()


def play(engine, mel, cuts, seed=0):
    stream = Stream(engine, len(mel), seed=seed)
    audio = [stream.push(part) for part in mel.to(engine.device).split(cuts, dim=2)]
    return torch.cat([*audio, stream.finish()], dim=1)


class Work(TorchDispatchMode):
    """Notes each operation: its name, its numbers, and of tensors how and where they lie.

    Places are told for the static buffers alone; what a step makes for itself lies anywhere.
    """

    def __init__(self, *static):
        super().__init__()
        self.places = {x.untyped_storage().data_ptr(): i for i, x in enumerate(static)}
        self.done = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        named = [args, sorted(kwargs.items())]
        self.done.append((function.overloadpacket.__name__, repr(self.told(named))))
        return function(*args, **kwargs)

    def told(self, value):
        if isinstance(value, Tensor):
            if value.layout != torch.strided:
                return str(value.layout)
            place = self.places.get(value.untyped_storage().data_ptr(), "own")
            where = value.storage_offset() if place != "own" else 0
            return place, where, tuple(value.shape), value.stride(), str(value.dtype)
        if isinstance(value, list | tuple):
            return [self.told(one) for one in value]
        return value


def work_of(engine, heard, frames, noise_channels):
    """The operations of a chunk after so many frames."""
    buffer, mel = torch.zeros(2, engine.layout.size), engine._laid(mel_of(2, frames))
    noise = None
    if noise_channels:
        noise = engine._laid(torch.randn(2, noise_channels, frames * HOP))
    with torch.inference_mode(), Work(buffer, mel, noise if noise is not None else mel) as work:
        engine._flow(buffer, mel, noise, heard, False)
    return work.done


@pytest.fixture(params=["packed", "innermost", "outermost"])
def engine_of(request, monkeypatch, one_pass):
    """Engines with a CPU's packed layers, and with a GPU's, in both layouts."""
    if request.param != "packed":
        monkeypatch.setattr("wavewn.engine.onepass_model.pack_layers", lambda model: None)
    if request.param == "outermost":
        monkeypatch.setattr("wavewn.engine.onepass.wants_innermost", lambda *_: False)
    return lambda name: OnePassEngine(one_pass(name))


@pytest.mark.parametrize("frames", [1, 3])
def test_a_steady_chunk_is_the_same_work_whenever_it_comes(engine_of, one_pass_name, frames):
    """The same operations on the same places of the same buffers: what a graph replays."""
    engine = engine_of(one_pass_name)
    channels = engine._model.noise_channels
    begin, first, later = (
        work_of(engine, heard, frames, channels)
        for heard in (engine._steady - 1, engine._steady, engine._steady + 1234)
    )

    assert first == later
    assert begin != first  # no frame later than need be
    assert not WAITS & {name for name, _ in first}


def test_waiting_for_the_device_would_be_noticed():
    with Work() as work:
        torch.ones(2).sum().item()
        torch.ones(2).nonzero()

    assert {"_local_scalar_dense", "nonzero"} <= WAITS & {name for name, _ in work.done}


@pytest.mark.parametrize("cuts", [1, 3])
def test_replayed_chunks_are_eager_ones(one_pass, one_pass_engine, one_pass_name, cuts):
    """Replayed with the row numbers of another time, audio and state are the same bits."""
    eager, replaying = (
        one_pass_engine(one_pass_name),
        OnePassEngine(one_pass(one_pass_name), graphs=True),
    )
    mel = mel_of(2, 26)
    streams = [Stream(engine, 2, seed=[3, 4]) for engine in (eager, replaying)]

    for part in mel.split(cuts, dim=2):
        one, other = (stream.push(part) for stream in streams)
        assert torch.equal(one, other)
        assert torch.equal(streams[0].state.buffer, streams[1].state.buffer)
    assert replaying._steps.sizes == [(2, cuts)]
    assert torch.equal(streams[0].finish(), streams[1].finish())


def test_a_size_is_captured_when_it_comes_again_and_not_too_many_are(one_pass, monkeypatch):
    monkeypatch.setattr(onepass_graph, "MOST_SIZES", 2)
    monkeypatch.setattr(onepass_graph, "LARGEST", 5 * HOP)
    engine = OnePassEngine(one_pass("hifigan"), graphs=True)
    state = StreamState.zeros(engine.layout, 1)
    engine.generate(state, mel_of(1, 20))

    for frames in (2, 6, 6, 3, 4, 4, 2, 3):
        engine.generate(state, mel_of(1, frames))

    assert engine._steps.sizes == [(1, 2), (1, 3)]


def test_rows_at_other_places_are_replayed_in_groups(one_pass, one_pass_engine):
    engines = one_pass_engine("wavegan"), OnePassEngine(one_pass("wavegan"), graphs=True)
    found = []
    for engine in engines:
        state = StreamState.zeros(engine.layout, 3, seed=[1, 2, 3])
        parts = [engine.generate(state, mel_of(3, 15))]
        state.reset(torch.tensor([False, True, False]))
        parts += [engine.generate(state, part) for part in mel_of(3, 24, seed=1).split(2, dim=2)]
        found.append(torch.cat([*parts, engine.finish(state)], dim=1))

    assert torch.equal(*found)
    assert set(engines[1]._steps.sizes) == {(1, 2), (2, 2)}


def test_a_call_that_raises_leaves_the_state_and_the_step_as_they_were(one_pass):
    model = one_pass("hifigan")
    model.conv_pre.weight.mul_(1e10)
    engine = OnePassEngine(model, graphs=True)
    state = StreamState.zeros(engine.layout, 2)
    for part in mel_of(2, 24).split(2, dim=2):
        engine.generate(state, part)
    kept, mel = state.clone(), mel_of(2, 2)
    mel[1] = 1e30

    with pytest.raises(Exception, match="NaN or infinity came up in row 1"):
        engine.generate(state, mel)

    assert torch.equal(state.buffer, kept.buffer)
    expected = engine.generate(kept.clone(), mel_of(2, 2))
    assert torch.equal(engine.generate(state, mel_of(2, 2)), expected)


def test_streams_in_two_threads_take_turns(one_pass):
    engine = OnePassEngine(one_pass("hifigan"), graphs=True)
    mels = [mel_of(1, 26, seed) for seed in range(4)]
    expected = [play(engine, mel, 2) for mel in mels]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda mel: play(engine, mel, 2), mels))

    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_model_that_cannot_be_captured_runs_eagerly_and_says_why(one_pass, monkeypatch, caplog):
    def refuse(*args):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(onepass_graph, "SteadyStep", refuse)
    engine = OnePassEngine(one_pass("melgan"), graphs=True)

    audio = play(engine, mel_of(1, 26), 2)

    assert torch.equal(audio, play(OnePassEngine(one_pass("melgan")), mel_of(1, 26), 2))
    assert caplog.messages == [
        "this model cannot be captured, and runs eagerly: operation not permitted when stream is "
        "capturing"
    ]


def test_tensor_float_is_off_until_the_last_who_needs_it_off_is_done():
    switch, flags = Tf32Switch(), (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    torch.backends.cudnn.allow_tf32 = True
    one, other = switch.off(), switch.off()
    try:
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert [flag.allow_tf32 for flag in flags] == [False, False]
        other.__exit__(None, None, None)
        assert torch.backends.cudnn.allow_tf32
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_replayed_streams_are_the_whole(one_pass, one_pass_name, precision):
    mel, device = mel_of(2, 26), "cuda"
    model = one_pass(one_pass_name)
    eager = OnePassEngine(model, precision, device, graphs=False)
    replaying = OnePassEngine(model, precision, device)
    whole = play(eager, mel, 26, [3, 4])

    for cuts in (1, 3):
        for engine in (eager, replaying):
            audio = play(engine, mel, cuts, [3, 4])
            if precision == "float32":
                torch.testing.assert_close(audio, whole, rtol=0, atol=ATOL)
            else:
                assert decibels(audio, whole) >= LEAST_DB
    assert replaying._steps.sizes == [(2, 1), (2, 3)]
    if precision == "float32":
        on_cpu = play(OnePassEngine(model), mel, 26, [3, 4])
        assert decibels(whole.cpu(), on_cpu) >= DEVICES_DB


@pytest.mark.gpu
def test_on_a_gpu_a_steady_chunk_waits_for_nothing(one_pass, one_pass_name):
    """torch raises where the host would wait for the device."""
    engine = OnePassEngine(one_pass(one_pass_name), device="cuda", graphs=False)
    buffer = torch.zeros(2, engine.layout.size, device="cuda")
    mel, noise = mel_of(2, 3).cuda(), None
    if channels := engine._model.noise_channels:
        noise = torch.randn(2, channels, 3 * HOP, device="cuda")
    with torch.inference_mode():
        engine._steady_flow(buffer, mel, noise)
        torch.cuda.set_sync_debug_mode("error")
        try:
            engine._steady_flow(buffer, mel, noise)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_on_a_gpu_two_cuda_streams_share_a_step(one_pass):
    engine = OnePassEngine(one_pass("hifigan"), device="cuda")
    mels = [mel_of(1, 40, seed) for seed in range(4)]
    expected = [play(engine, mel, 2) for mel in mels]

    def run(mel):
        with torch.cuda.stream(torch.cuda.Stream()):
            return play(engine, mel, 2)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, mels))

    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
