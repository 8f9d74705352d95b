"""The torch twin of the stack: float32 is the model, int8 is whole numbers, half is half."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wavewn.bundle import Calibration
from wavewn.engine.native import NativeEngine, available, instruction_sets
from wavewn.engine.packing import kernel_weights
from wavewn.engine.quantise import quantise
from wavewn.engine.twin import (
    activate,
    chord_knots,
    exp2,
    half_product,
    int8_product,
    make_products,
    open_whole,
    run_stack,
    whole_numbers,
)
from wavewn.engine.weights import pack_wavenet
from wavewn.state import StreamState

CSRC = Path(__file__).parents[2] / "wavewn" / "csrc"
EXACT = 2e-5  # float32 in another order of sums, and another exponential


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def teacher_forced(model, precision, calibration=None):
    """Parameters of a random utterance from the model and from the twin."""
    frames, hop = 3, model.hop_length
    settings = model.settings
    levels = 0.3 * random(2, frames * hop).clamp(-1, 1)
    mel = random(2, model.n_mels, frames + settings.condition.look_ahead, seed=1) * 2 - 6
    speaker = torch.tensor([0, 1]) if settings.speakers else None
    weights = kernel_weights(pack_wavenet(model))
    products = make_products(weights, precision, calibration)
    with torch.no_grad():
        heard = model.hear(levels, mel, speaker)
        found = run_stack(weights, products, heard.features, heard.condition)
        if heard.location is not None:
            found = model.head.relocate(found, heard.location, heard.scale)
        return model.answer(heard), found


def test_float32_is_the_model(model):
    wanted, found = teacher_forced(model, "float32")

    assert_close(found, wanted, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 0.01), ("half", 0.03)])
def test_half_precisions_are_near_and_not_the_same(model, precision, tolerance):
    wanted, found = teacher_forced(model, precision)

    difference = float((found - wanted).abs().max() / wanted.abs().max())
    assert 1e-6 < difference < tolerance


def test_int8_is_near_and_not_the_same(model):
    R, layers = model.settings.residual_channels, len(model.settings.dilations)
    wanted, found = teacher_forced(model, "int8", Calibration(((8.0,) * R,) * layers, 8.0, 8.0))

    difference = float((found - wanted).abs().max() / wanted.abs().max())
    assert 1e-4 < difference < 0.15


def test_a_note_hears_the_inputs_of_every_product(plain_model):
    weights = kernel_weights(pack_wavenet(plain_model))
    heard = {}
    features = random(1, 2 * weights.hop_length, len(weights.input.matrix))
    condition = random(1, 3, weights.settings.condition.channels)
    products = make_products(weights, "float32")
    run_stack(weights, products, features, condition, lambda name, x: heard.update({name: x}))

    assert set(heard) == set(products)
    assert_close(heard["layers.0.gate"], features @ weights.input.matrix + weights.input.bias)
    assert float(heard["hidden"].min()) == 0.0  # rectified


def test_the_power_of_two_is_good_to_two_units_in_the_last_place():
    x = torch.linspace(-40, 40, 100_001)
    true = np.exp2(x.numpy().astype(np.float64))
    error = np.abs(exp2(x).numpy() / true - 1).max()

    assert error < 2 * 2.0**-24
    whole = torch.arange(-40.0, 41.0)
    assert exp2(whole).tolist() == [2.0**k for k in range(-40, 41)]


def test_the_power_of_two_rounds_every_operation():
    """The same in numpy float32, scalar by scalar."""
    digits = "1 0.6931472 0.24022643 0.05550332 0.009618428 0.0013399045 0.00015356121"
    c = [np.float32(one) for one in digits.split()]
    for value in random(200, seed=5).mul(10).tolist():
        x = np.float32(value)
        rest = np.float32(x - np.rint(x))
        square = np.float32(rest * rest)
        low, middle, high = (np.float32(np.float32(c[i + 1] * rest) + c[i]) for i in (1, 3, 5))
        y = np.float32(np.float32(high * square) + middle)
        y = np.float32(np.float32(y * square) + low)
        y = np.float32(np.float32(y * rest) + c[0])
        assert exp2(torch.tensor(value)).item() == np.ldexp(y, int(np.rint(x)))


def test_the_gate_is_tanh_times_sigmoid():
    f, g = 3 * random(1000), 3 * random(1000, seed=1)
    factor = np.log2(np.e)
    z = activate(torch.cat([-2 * factor * f, -factor * g]))

    assert_close(z, torch.tanh(f) * torch.sigmoid(g), rtol=1e-5, atol=3e-7)
    assert float(activate(torch.tensor([-1e9, -1e9]))) == 1.0
    assert float(activate(torch.tensor([1e9, -1e9]))) == -1.0
    assert 0 <= float(activate(torch.tensor([-1e9, 1e9]))) < 1e-11


def test_gates_in_whole_numbers_are_a_tenth_of_a_step_from_true_ones():
    f, g = 6 * random(4000), 6 * random(4000, seed=1)
    factor = np.log2(np.e)
    gate = torch.cat([-2 * factor * f, -factor * g])
    true = torch.tanh(f) * torch.sigmoid(g)
    error = (127 * (open_whole(gate) - true)).abs()

    assert 0.5 < float(error.max()) < 0.6  # a step, rounded, and the chords
    assert open_whole(torch.tensor([-1e9, -1e9])) == 1.0
    assert open_whole(torch.tensor([1e9, -1e9])) == -1.0
    assert open_whole(torch.tensor([0.0, -1e9])) == 0.0
    assert torch.equal(127 * open_whole(gate), (127 * open_whole(gate)).round())


def test_the_kernel_has_the_knots_of_the_twin():
    lines = (CSRC / "gates.hpp").read_text().split("KNOTS[CHORDS + 1] = {")[1].split("};")[0]

    assert [int(one) for one in lines.split(",")] == chord_knots().tolist()


def test_int8_products_are_those_of_integers():
    """The specification once more, in numpy, with int64 sums."""
    matrix, largest = random(50, 7), random(50, seed=1).abs() + 0.5
    x, init = 2 * random(20, 50, seed=2), random(7, seed=3)
    for signed in (True, False):
        product = quantise(matrix, largest, signed)
        found = int8_product(x, product, init)

        low, top = (-127, 127) if signed else (0, 255)
        gain = np.float32(top) / largest.numpy()
        whole = np.rint(x.numpy() * gain).clip(low, top).astype(np.int64)
        folded = matrix.numpy() * largest.numpy()[:, None]
        step = np.abs(folded).max(0) / np.float32(127)
        weights = np.rint(folded / step).astype(np.int64)
        scale = step / np.float32(top)
        expected = (whole @ weights).astype(np.float32) * scale + init.numpy()
        assert np.array_equal(whole, whole_numbers(x, product).numpy())
        assert np.array_equal(found.numpy(), expected)


def test_fine_products_hear_a_hundredth_of_a_step():
    matrix = random(16, 5)
    coarse = quantise(matrix, torch.full((16,), 127.0), True)
    fine = dataclasses.replace(coarse, fine=True)
    x, zero = 60 * random(40, 16, seed=1).clamp(-2, 2), torch.zeros(5)
    weights = coarse.matrix.double() * coarse.scale.double() * coarse.gain[:, None].double()
    true = (x.double() @ weights).float()

    errors = [float((int8_product(x, one, zero) - true).abs().mean()) for one in (coarse, fine)]
    assert errors[0] / 200 < errors[1] < errors[0] / 80

    # the specification once more, in numpy
    s = (x * fine.gain).numpy()
    q = np.rint(s).clip(-127, 127)
    r = np.rint((s - q) * np.float32(128)).clip(-127, 127)
    sums = [
        (part.astype(np.int64) @ fine.matrix.long().numpy()).astype(np.float32) for part in (q, r)
    ]
    expected = (sums[0] + sums[1] / np.float32(128)) * fine.scale.numpy()
    assert np.array_equal(int8_product(x, fine, zero).numpy(), expected)


def test_inputs_are_clamped_and_ties_go_to_even():
    product = quantise(torch.eye(2), torch.tensor([127.0, 127.0]), True)
    x = torch.tensor([[0.5, 1.5], [-2.5, 400.0], [-1e9, 126.6]])

    assert whole_numbers(x, product).tolist() == [[0, 2], [-2, 127], [-127, 127]]
    rectified = quantise(torch.eye(2), torch.tensor([255.0, 255.0]), False)
    assert whole_numbers(x, rectified).tolist() == [[0, 2], [0, 255], [0, 127]]


def test_half_products_are_summed_in_half():
    """2048 + 1 is 2048 in half: in chunks of 32 ones are lost, between chunks they are not."""
    ones = torch.ones(64, 1)
    x = torch.ones(1, 64)
    x[0, 0] = 2048.0

    assert half_product(x, ones, torch.zeros(1)).item() == 2048.0 + 32
    assert half_product(x.flip(1), ones, torch.zeros(1)).item() == 32 + 2048.0 + 32
    assert half_product(torch.ones(1, 64), ones, torch.ones(1) / 3).item() == pytest.approx(64.3333)


NATIVE_SETS = (
    [name for name, reason in instruction_sets().items() if not reason] if not available() else []
)


@pytest.mark.parametrize("model", ["gaussian-3-taps"], indirect=True)
@pytest.mark.parametrize("instruction_set", NATIVE_SETS)
@pytest.mark.parametrize("fine", [0, 2])
def test_the_kernel_has_the_bits_of_the_twin_in_int8(model, instruction_set, fine):
    """All sums before the first gate are exact in any order.

    Levels and input weights are multiples of powers of two, and the mel is not heard.
    """
    with torch.no_grad():
        for conv in model.condition.convs:
            conv.bias.fill_(-1e6)
        for value in (model.input.weight, model.input.bias):
            value.copy_((value * 64).round() / 64)
    weights = pack_wavenet(model)
    R, layers = weights.settings.residual_channels, len(weights.layers)
    spread = [tuple((2.0 + 6 * random(R, seed=i).abs()).tolist()) for i in range(layers)]
    calibration = Calibration(tuple(spread), 4.0, 3.0, fine)
    engine = NativeEngine(weights, "int8", instruction_set, calibration=calibration)
    frames = 12
    levels = (random(2, frames * model.hop_length).clamp(-3, 3) * 64).round() / 256
    mel = random(2, model.n_mels, frames) * 2 - 6

    state = StreamState.zeros(engine.layout, 2, 0)
    found = engine.parameters(state, mel, levels, speaker=None)

    with torch.no_grad():
        heard = model.hear(levels, mel)
        packed = kernel_weights(weights)
        int8, plain = (
            run_stack(
                packed,
                make_products(packed, precision, calibration),
                heard.features,
                heard.condition,
            )
            for precision in ("int8", "float32")
        )
    assert not heard.condition.any()
    assert torch.equal(found, int8)
    assert float((int8 - plain).abs().max()) > 1e-3  # so that the line above can fail
