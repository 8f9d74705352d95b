"""The cuda engine's own: sizes, packing, streams a block. What it promises is in the contract.

There is no GPU here: the kernel runs compiled for the host, from the same source.
"""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from wavewn.config import Condition, MuLaw, WaveNetConfig
from wavewn.engine.cuda import CudaEngine
from wavewn.engine.cuda_packing import STREAMS, kernel_source, pack_constants, tiles_of
from wavewn.engine.packing import kernel_weights
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet, wavenet_layout
from wavewn.errors import EngineError
from wavewn.state import StreamState

BANDS, HOP = 6, 20
KB = 1024
HALF = 4 * 2.0**-11  # of the largest parameter: what the contract allows float16


@pytest.fixture
def host_library(cuda_host):
    if not cuda_host["compiler"]():
        pytest.skip("no C++ compiler is in PATH")
    return cuda_host["host_library"]


@pytest.fixture
def launcher(host_library, cuda_host):
    return cuda_host["host_launcher"]


def source_of(settings, precision="float32", streams=1, limit=99 * KB):
    return kernel_source(settings, BANDS, HOP, precision, streams, limit)


def test_the_device_code_lays_memory_out_as_python_does(model, host_library, cuda_host):
    settings = model.settings
    layout = wavenet_layout(settings, BANDS)

    for precision, limit, library_of in (
        ("float32", 99 * KB, host_library),  # which the contract runs
        ("float16", 12 * KB, cuda_host["sizes_library"]),
    ):
        source = source_of(settings, precision, 1, limit)
        library = library_of(source)
        assert library.wavewn_shared_bytes() == source.shared_bytes <= limit
        assert library.wavewn_state_size() == layout.size
        assert library.wavewn_constants() == pack_constants(pack_wavenet(model)).numel()
        for i in range(len(settings.dilations)):
            assert library.wavewn_ring_at(i) == layout.entry(f"layers.{i}").offset


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_tiles_hold_every_weight_once(precision):
    """As products.hpp says: lane 4 g + q has outputs g and g + 8 by inputs 4 q to 4 q + 3."""
    matrix = torch.arange(32 * 48, dtype=torch.float32).view(32, 48)

    tiles = tiles_of(matrix, precision)

    assert tiles.shape == (3, 2, 256)
    assert torch.equal(tiles.flatten().float().sort().values, matrix.flatten())
    tile, group, quarter = 2, 5, 3
    word = tiles[tile, 1].view(-1, 32, 8 if precision == "float16" else 4)[:, 4 * group + quarter]
    low, high = (
        matrix[16 + 4 * quarter : 20 + 4 * quarter, 16 * tile + g] for g in (group, group + 8)
    )
    if precision == "float16":
        expected = torch.cat([low[:2], high[:2], low[2:], high[2:]])
        assert torch.equal(word[0].float(), expected)
    else:
        assert torch.equal(word, torch.stack([low, high]))


def test_weights_stay_in_shared_memory_as_far_as_they_go(plain_model, launcher, mel_of):
    """Whether all, some or none stay does not change a bit."""
    settings = dataclasses.replace(plain_model.settings)
    least = source_of(settings, limit=99 * KB)
    resident = dict(least.defines)["WAVEWN_RESIDENT"]
    operands = least.shared_bytes - resident * KB
    found = []
    for limit in (99 * KB, operands + 7 * KB, operands):
        engine = CudaEngine(pack_wavenet(plain_model), "cpu", "float32", launcher)
        engine._shared_limit = limit
        engine._sources = engine._fitting()
        engine._kernels.clear()
        source = source_of(settings, limit=limit)
        assert source.shared_bytes <= limit
        found.append(
            (
                dict(source.defines)["WAVEWN_RESIDENT"],
                engine.generate(StreamState.zeros(engine.layout, 1), mel_of(1, 4)),
            )
        )

    (all_of_it, whole), (some, part), (none, nothing) = found
    assert all_of_it > some > none == 0
    assert engine._streams(100) == 1  # two streams have operands of twice the size
    assert torch.equal(whole, part) and torch.equal(whole, nothing)


def test_a_block_has_as_few_streams_as_let_all_blocks_run(plain_model, launcher):
    engine = CudaEngine(pack_wavenet(plain_model), "cpu", "float32", launcher)
    engine._blocks = 4

    found = [engine._streams(batch) for batch in (1, 4, 5, 8, 9, 16, 17, 32, 33, 1000)]

    assert found == [1, 1, 2, 2, 4, 4, 8, 8, 8, 8]


@pytest.mark.parametrize("batch", [1, 8])
def test_halves_meet_the_reference(plain_model, launcher, mel_of, batch):
    """One stream, and all that a tensor core takes; the slow contract has the rest."""
    model = plain_model
    weights = pack_wavenet(model)
    engine, reference = CudaEngine(weights, "cpu", "float16", launcher), ReferenceEngine(weights)
    engine._blocks = 1
    mel = mel_of(batch, 2 + engine.look_ahead)
    levels = model.levels(torch.rand(batch, 2 * HOP) - 0.5)
    one, other = (StreamState.zeros(engine.layout, batch) for _ in range(2))

    found = engine.parameters(one, mel, levels)
    expected = reference.parameters(other, mel, levels)

    size = max(1.0, float(expected.abs().max()))
    assert_close(found, expected, rtol=0, atol=HALF * size)
    assert not torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gpu_computes_what_the_host_does(plain_model, launcher, mel_of, precision):
    """And the same bits, however many streams share a block."""
    weights, mel = pack_wavenet(plain_model), mel_of(9, 5)
    host = CudaEngine(weights, "cpu", precision, launcher)
    engine = CudaEngine(weights, "cuda", precision)
    levels = plain_model.levels(torch.rand(9, 3 * HOP) - 0.5)
    expected = host.parameters(StreamState.zeros(host.layout, 9), mel, levels)
    heard = []

    for blocks, streams in ((9, 1), (5, 2), (3, 4), (2, 8)):
        engine._blocks = blocks
        assert engine._streams(9) == streams
        state, free = (
            StreamState.zeros(engine.layout, 9, range(9), device="cuda") for _ in range(2)
        )
        found = engine.parameters(state, mel.cuda(), levels.cuda()).cpu()
        assert_close(found, expected, rtol=0, atol=HALF if precision == "float16" else 1e-5)
        heard.append(engine.generate(free, mel.cuda()))

    assert all(torch.equal(one, heard[0]) for one in heard)


def changed(**settings):
    return dataclasses.replace(WaveNetConfig(condition=Condition(channels=8)), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (changed(residual_channels=768), "residual_channels is 768, .* registers for 512"),
        (changed(skip_channels=1024), "skip_channels is 1024, .* use the graph engine"),
        (changed(head=MuLaw(classes=1025)), "choices of a sample is 1025, .* 1024"),
        (changed(head_channels=8192), r"8 streams of this model need \d+ bytes of shared memory"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(EngineError, match=message):
        source_of(settings, streams=STREAMS[-1])


def test_an_engine_without_a_gpu_is_refused(plain_model):
    with pytest.raises(EngineError, match="runs on a GPU, not on cpu"):
        CudaEngine(pack_wavenet(plain_model), "cpu")
    with pytest.raises(EngineError, match="one of float32, float16, got int8"):
        CudaEngine(pack_wavenet(plain_model), "cpu", "int8")


def test_weights_that_halves_cannot_hold_are_refused(plain_model, launcher):
    with torch.no_grad():
        plain_model.hidden.weight.mul_(1e9)
    with pytest.raises(EngineError, match="too large for float16; use float32"):
        CudaEngine(pack_wavenet(plain_model), "cpu", "float16", launcher)


def test_the_gates_factors_are_in_the_weights(plain_model):
    """So that 2^x is all that the kernel computes of tanh and sigmoid."""
    weights = pack_wavenet(plain_model)
    ready, R = kernel_weights(weights), weights.settings.residual_channels
    x = torch.randn(3, weights.layers[0].gate.shape[0])

    f, g = (x @ weights.layers[0].gate).split(R, dim=1)
    a, b = (x @ ready.layers[0].gate).split(R, dim=1)

    found = (1 - a.exp2()) / ((1 + a.exp2()) * (1 + b.exp2()))
    assert_close(found, f.tanh() * g.sigmoid(), rtol=0, atol=1e-6)
