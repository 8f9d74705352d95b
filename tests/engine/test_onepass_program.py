"""Steps of the native kernel: none leaves its arrays, and buffers in use do not overlap."""

import numpy as np
import pytest
import torch

from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.onepass_buffers import ALIGNMENT
from wavewn.engine.onepass_flow import Kernel, NativeFlow
from wavewn.engine.onepass_layers import merged, merged_rows, plain
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_native import run_natively
from wavewn.engine.onepass_program import (
    ADD,
    BLEND,
    CONV,
    GATE,
    LOAD,
    MAP,
    PAD,
    REPEAT,
    SAVE,
    Writer,
)
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d
from wavewn.state import StreamState

native = pytest.importorskip("wavewn._native", reason="`pip install .` compiles it")

BANDS, FRAMES = 6, 9


@pytest.fixture
def writers(monkeypatch):
    """The writers of the programs that are made."""
    made, program = [], Writer.program

    def keep(self):
        made.append((self, program(self)))
        return made[-1][1]

    monkeypatch.setattr(Writer, "program", keep)
    return made


@pytest.mark.parametrize("name", ["hifigan", "hifigan-reflect", "melgan"])
def test_buffers_in_use_at_once_do_not_overlap(one_pass, writers, name):
    engine = OnePassEngine(one_pass(name), native="auto")
    state = StreamState.zeros(engine.layout, 1)
    engine.generate(state, torch.zeros(1, BANDS, FRAMES))
    engine.generate(state, torch.zeros(1, BANDS, FRAMES))
    engine.finish(state)

    assert len(writers) == 3
    for writer, (_, arena_bytes) in writers:
        buffers = {spot.buffer for step in writer._steps for spot in step if hasattr(spot, "row")}
        assert len(buffers) > 10
        for one in buffers:
            begin, end = one.offset, one.offset + one.size
            assert 0 <= begin < end <= arena_bytes
            assert begin % ALIGNMENT == 0
            for other in buffers - {one}:
                apart = other.offset + other.size <= begin or other.offset >= end
                assert apart or other.last < one.first or one.last < other.first


def test_sums_and_rectifiers_are_part_of_a_convolution(one_pass, writers):
    engine = OnePassEngine(one_pass("hifigan"), native="auto")
    engine.generate(StreamState.zeros(engine.layout, 1), torch.zeros(1, BANDS, FRAMES))

    steps = writers[0][1].steps
    kinds = [int(kind) for kind in steps[:, 0]]
    layers = sum(isinstance(one, PaddedConv1d) for one in one_pass("hifigan").modules())
    assert kinds.count(ADD) == 0
    assert kinds.count(BLEND) == 2  # of the two branches of each of two stages
    assert kinds.count(CONV) >= layers
    assert kinds.count(MAP) < layers


@pytest.mark.parametrize("outputs", [1, 5, 8, 16])
def test_a_merged_layer_makes_the_same_rows(outputs):
    layer = PaddedConv1d(3, outputs, 5).requires_grad_(False)
    one, many, together = plain(layer, 0), merged(layer), merged_rows(layer, 0)
    x = torch.randn(together + 4, 3)

    def run(weights, bias, dilation, stride, precise, rows):
        seen = [
            sum(x[row * stride + tap * dilation] @ w for tap, w in enumerate(weights)) + bias
            for row in range(rows)
        ]
        return torch.stack(seen).view(-1, outputs)

    assert together == max(16 // outputs, 1)
    torch.testing.assert_close(run(*many, 1), run(*one, together))


@pytest.mark.parametrize(("taps", "rate"), [(8, 4), (11, 5), (7, 3)])
def test_a_transposed_layer_is_one_of_more_outputs(taps, rate):
    layer = UpsamplingConv1d(3, 2, taps, rate, crop=0).requires_grad_(False)
    weights, bias, dilation, stride, precise = plain(layer, 0)
    x = torch.randn(1, 3, 6)
    padded = torch.nn.functional.pad(x, (len(weights) - 1, 0))[0].T

    rows = [sum(padded[row + tap] @ w for tap, w in enumerate(weights)) + bias for row in range(6)]

    assert (dilation, stride, precise) == (1, 1, 0)
    expected = layer(x, 0, 6 * rate)[0].T
    torch.testing.assert_close(torch.stack(rows).view(-1, 2), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ([LOAD, 0, 0, 90, 11], "leaves the caller's arrays"),
        ([SAVE, 0, 4096, 0, 1], "leaves the arena"),
        ([PAD, 1, 0, 0, 3, 1, 1, 0], "pads nothing"),
        ([PAD, 1, 0, 2, 3, 3, 0, 1], "reflects too much"),
        ([PAD, 0, 0, 2, 3, 0, 0, 2], "repeats no row"),
        ([MAP, 2, 0, 0, 0, 21], "leaves the caller's arrays"),
        ([MAP, 0, 0, 2, 0, 31], "leaves the caller's arrays"),
        ([MAP, 3, 0, 0, 0, 11], "leaves the caller's arrays"),
        ([REPEAT, 0, 0, 0, 3, 1, 0], "repeats nothing"),
        ([REPEAT, 0, 0, 0, 30, 4, 30], "leaves the arena"),
        ([MAP, 0, -2, 0, 0, 1], "leaves the arena"),
        ([CONV, 7, 0, 0, -1, 1, -1], "runs no layer"),
        ([CONV, 0, 0, 0, -1, 0, -1], "runs no layer"),
        ([CONV, 0, 0, 0, -1, 1000, -1], "leaves the arena"),
        ([ADD, 0, 0, 4000, 20], "leaves the arena"),
        ([CONV, 1, 0, 0, 0, 1, -1], "adds to a precise layer"),
        ([GATE, 0, 0, 0, 3, 0], "gates nothing"),
        ([GATE, 0, 0, 0, 300, 3], "leaves the arena"),
        ([BLEND, 0, 0, 0, 4000, 20], "leaves the arena"),
        ([BLEND, 0, 0, 4000, 0, 20], "leaves the arena"),
        ([BLEND, 0, -2, -1, 0, 1], "leaves the arena"),
        ([10], "of no known kind"),
    ],
)
def test_a_step_that_leaves_its_arrays_is_refused(step, message):
    layer = (np.zeros((3, 2, 4), np.float32), np.zeros(4, np.float32), 1, 1, 0)
    layers = [layer, (*layer[:4], 1)]
    network = native.OnePassNetwork("portable", False, 1, layers)
    steps = np.array([step + [0] * (8 - len(step))], dtype=np.int64)

    with pytest.raises(ValueError, match=message):
        native.OnePassProgram(network, steps, 4096, 100, 20, 10, 30)


def test_arrays_of_another_size_are_refused():
    layer = (np.zeros((3, 2, 4), np.float32), np.zeros(4, np.float32), 1, 1, 0)
    network = native.OnePassNetwork("portable", False, 1, [layer])
    program = native.OnePassProgram(network, np.zeros((0, 8), np.int64), 64, 4, 2, 1, 3)
    state, mel, drive, audio = (np.zeros((1, size), np.float32) for size in (4, 2, 1, 3))

    program.run(state, mel, drive, audio)
    program.run(state, mel, drive, audio, (0, 0, 0))
    for wrong in (
        (state, drive, drive, audio),
        (state[:, :3].copy(), mel, drive, audio),
        (state, mel, drive, audio, (1, 0, 0)),
        (state, mel, drive, audio, (0, 0, -1)),
    ):
        with pytest.raises(ValueError, match="not of the program's size"):
            program.run(*wrong)
    with pytest.raises(ValueError, match="no kernel for avx1024"):
        native.OnePassNetwork("avx1024", False, 1, [layer])
    with pytest.raises(ValueError, match="bias of a layer do not go together"):
        native.OnePassNetwork("portable", False, 1, [(*layer[:2], 0, 1, 0)])


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_a_precise_layer_sums_in_doubles(name):
    if dict((set_, why) for set_, _, why in native.onepass_sets())[name]:
        pytest.skip("not here")
    torch.manual_seed(0)
    layer = PreciseConv1d(40, 24, 5).requires_grad_(False)
    layer.bias.zero_()
    x = torch.randn(1, 40, 30)

    def flow(run, rows, noise):
        return run.conv(layer, rows)

    ours = NativeFlow(flow, [layer], 40, 0, 1, Kernel("float32", name))
    exact = torch.nn.functional.conv1d(x.double(), layer.weight.double(), padding=2)
    rounded = torch.nn.functional.conv1d(x, layer.weight, padding=2)

    found = ours(Flow(Memory(torch.zeros(1, 16), {})), Rows.of(x)).whole

    assert torch.equal(found, exact.float())
    assert not torch.equal(rounded, exact.float())


def test_a_generator_keeps_its_sizes(one_pass):
    model = one_pass("hifigan")
    ours = run_natively(model, "float32")

    assert (ours.n_mels, ours.hop_length, ours.settings) == (6, 20, model.settings)
    assert ours._native.kernel.instruction_set in {name for name, _, _ in native.onepass_sets()}
