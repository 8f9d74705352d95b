"""The steps of the graph engine do what a CUDA graph asks of them, seen call by call on the CPU.

The same calls on the same memory with the same numbers, at any time; and nobody asks the device.
A tape stands for a graph: it repeats the calls of the first time without the Python around them.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wavewn.engine.capture import Capturer
from wavewn.engine.graph import GraphEngine
from wavewn.engine.steps import advance, condition, hear
from wavewn.engine.weights import pack_wavenet
from wavewn.models.wavenet import WaveNet
from wavewn.state import StreamState

HOP = 20

ASKS_THE_DEVICE = (
    "item",
    "_local_scalar",
    "is_nonzero",
    "nonzero",
    "equal",
    "_unique",
    "masked_sel",
)


class Watch(TorchDispatchMode):
    """Notes every call of torch."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result


class Tape:
    """Repeats what a step did when it was first run, on the memory of that time."""

    def __init__(self, step):
        with Watch() as watch:
            step()
        self.calls = watch.calls

    def __call__(self):
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            one = isinstance(result, torch.Tensor)
            pairs = [(result, again)] if one else zip(result, again, strict=True)
            for old, new in pairs:
                if new.data_ptr() != old.data_ptr():  # neither a view nor written in place
                    old.copy_(new)


@pytest.fixture
def engine(model):
    return GraphEngine(pack_wavenet(model), "cpu")


def name_of(call):
    return call[0].overloadpacket.__name__


def waits(calls):
    """The calls after which a host knows something of the device's memory."""
    return [name_of(call) for call in calls if name_of(call).startswith(ASKS_THE_DEVICE)]


@pytest.mark.parametrize("forced", [False, True])
def test_nothing_waits_for_the_device_while_samples_are_made(
    engine, model, reference_of, mel_of, speaker_of, forced
):
    """From the first frame on to the state's way back; the reference looks after each frame."""
    mel, speaker = mel_of(2, 3 + engine.look_ahead), speaker_of(engine, 2)
    levels = model.levels(torch.rand(2, 3 * HOP) - 0.5)

    def calls_of(runner):
        with Watch() as watch:
            state = StreamState.zeros(engine.layout, 2)
            if forced:
                runner.parameters(state, mel, levels, speaker=speaker)
            else:
                runner.generate(state, mel, speaker=speaker)
        places = [i for i, call in enumerate(watch.calls) if name_of(call).startswith("tanh")]
        return watch.calls[places[0] : places[-1]]

    assert not waits(calls_of(engine))
    assert len(waits(calls_of(reference_of(model)))) >= 2


def fingerprint(calls, memory):
    """What a CUDA graph would keep of calls: what they do, to which memory, with which numbers.

    Addresses of what is allocated on the way are left out: a graph has a pool for them.
    """

    def of(value):
        if isinstance(value, torch.Tensor):
            lasting = value.untyped_storage().data_ptr() in memory
            place = value.data_ptr() if lasting else "passing"
            return place, value.dtype, tuple(value.shape), value.stride()
        if isinstance(value, (tuple, list)):
            return tuple(map(of, value))
        return repr(value)

    return [
        (str(function), of(args), tuple((key, of(x)) for key, x in kwargs.items()), of(result))
        for function, args, kwargs, result in calls
    ]


def memory_of(*owners):
    """Addresses of what tensors lie in the attributes of these."""
    tensors = []
    for owner in owners:
        for value in vars(owner).values():
            tensors += value if isinstance(value, list) else [value]
    return {x.untyped_storage().data_ptr() for x in tensors if isinstance(x, torch.Tensor)}


def play(engine, caches, mel, frames, temperature):
    """Run the steps of some frames, three samples of each; return what the last one did."""
    memory, last = memory_of(caches, caches.folded), []
    for frame in mel[:, :, :frames].unbind(2):
        caches.mel.copy_(frame)
        last = []
        for step, arguments in (
            (hear, ()),
            (condition, ()),
            (advance, (2, temperature)),
            (advance, (1, temperature)),
        ):
            with Watch() as watch:
                step(caches, *arguments)
            last.append(fingerprint(watch.calls, memory))
            assert not waits(watch.calls)
    assert memory_of(caches, caches.folded) == memory, "a step replaced what lasts"
    return last


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [None, 0.7])
def test_a_step_does_the_same_at_any_time(engine, mel_of, temperature):
    """The same calls on the same memory with the same numbers: so that a graph may replay them."""
    caches, mel = engine._take(3).caches, mel_of(3, 3)
    fresh = StreamState.zeros(engine.layout, 3, seed=5)
    caches.load(fresh, None)

    first = play(engine, caches, mel, 1, temperature)
    later = play(engine, caches, mel, 3, temperature)

    assert first == later
    assert first != play(engine, caches, mel, 1, 1.0)


@torch.inference_mode()
def test_a_fingerprint_sees_a_position_of_the_host():
    memory = torch.zeros(8)
    prints = []
    for position in (1, 2):
        with Watch() as watch:
            memory[position] = 1.0
        prints.append(fingerprint(watch.calls, {memory.untyped_storage().data_ptr()}))

    assert prints[0] != prints[1]


def test_audio_from_tapes_is_that_from_the_steps(model, mel_of, speaker_of, monkeypatch):
    """The tapes are made before the first call and serve at any time; a hop of 37 has a tail."""
    torch.manual_seed(1)
    weights = pack_wavenet(WaveNet(model.settings, 6, 37, -11.5))
    engine, taped = (GraphEngine(weights, "cpu") for _ in range(2))
    mel, speaker = mel_of(2, 3 + engine.look_ahead), speaker_of(engine, 2)

    def audio(runner):
        state = StreamState.zeros(engine.layout, 2, seed=3)
        parts = [
            runner.generate(state, part, speaker=speaker)
            for part in mel.split([1, mel.shape[2] - 1], 2)
        ]
        return torch.cat(parts, dim=1), state

    expected, state = audio(engine)
    monkeypatch.setattr(Capturer, "capture", lambda self, step: Tape(step))
    found, same = audio(taped)

    assert torch.equal(found, expected)
    assert torch.equal(same.buffer, state.buffer)
