"""Whole numbers for weights and inputs, and sums that cannot leave their registers."""

import numpy as np
import pytest
import torch

from wavewn.bundle import Calibration
from wavewn.engine.packing import kernel_weights
from wavewn.engine.quantise import (
    Quantised,
    check_accumulators,
    quantise,
    quantise_wavenet,
    saturating_outputs,
)
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("signed", [True, False])
def test_a_rounded_matrix_says_the_same_within_its_steps(signed):
    matrix, largest = random(24, 5), random(24, seed=1).abs() + 0.1
    product = quantise(matrix, largest, signed)

    top = 127 if signed else 255
    assert product.matrix.dtype == torch.int8
    assert product.matrix.abs().amax(0).tolist() == [127] * 5  # the largest weight of each output
    # scale * gain turns a whole number back into a weight, within half a step of its output
    restored = product.matrix.double() * product.scale.double() * product.gain[:, None].double()
    half_step = 0.5001 * product.scale.double() * product.gain[:, None].double()
    assert bool(((restored - matrix).abs() <= half_step).all())
    np.testing.assert_allclose(product.gain * largest, top, rtol=1e-6)


def test_an_output_without_weights_stays_silent():
    matrix = random(4, 3)
    matrix[:, 1] = 0
    product = quantise(matrix, torch.ones(4), True)

    assert product.scale[1] == 0
    assert product.matrix[:, 1].tolist() == [0] * 4
    assert bool((product.scale[[0, 2]] > 0).all())


def test_weights_beyond_float32_are_refused():
    with pytest.raises(EngineError, match=r"hidden holds weights that are too large for int8"):
        quantise(torch.full((2, 2), 1e30), torch.full((2,), 1e15), False, "hidden")


def test_every_product_of_the_stack_is_there(model):
    weights = kernel_weights(pack_wavenet(model))
    R, layers = weights.settings.residual_channels, len(weights.layers)
    products = quantise_wavenet(weights, Calibration(((3.0,) * R,) * layers, 5.0, 6.0))

    names = [f"layers.{i}.{part}" for i in range(layers) for part in ("gate", "out")]
    assert list(products) == [*names, "hidden", "output"]
    assert [name for name, one in products.items() if not one.signed] == ["hidden", "output"]
    gate = products["layers.1.gate"]
    assert gate.matrix.shape == weights.layers[1].gate.shape
    assert gate.gain.tolist() == [np.float32(127) / np.float32(3)] * len(gate.matrix)
    assert products["layers.1.out"].gain.tolist() == [127.0] * R
    assert products["hidden"].gain[0] == np.float32(255) / np.float32(5)
    assert products["output"].gain[0] == np.float32(255) / np.float32(6)


def test_a_calibration_of_another_model_is_refused(plain_model):
    weights = kernel_weights(pack_wavenet(plain_model))

    with pytest.raises(EngineError, match="must have 6 layers of 8 magnitudes"):
        quantise_wavenet(weights, Calibration(((3.0,) * 7,) * 6, 5.0, 6.0))


@pytest.mark.parametrize(("inputs", "fits"), [(66311, True), (66312, False)])
def test_a_sum_beyond_32_bits_is_refused(inputs, fits):
    # 127 * 255 * 66311 <= 2**31 - 1 < 127 * 255 * 66312
    matrix = torch.ones(inputs, 3, dtype=torch.int8)
    matrix[:, 1] = -127

    if fits:
        check_accumulators(matrix, "layers.7.gate")
        return
    with pytest.raises(EngineError, match=r"layers\.7\.gate, output 1: .* 2147514120 does not fit"):
        check_accumulators(matrix, "layers.7.gate")


def test_quantise_checks_the_sums():
    with pytest.raises(EngineError, match="does not fit into 32 bits"):
        quantise(torch.ones(66312, 1), torch.ones(66312), True)


def saturates(weights):
    """Whether vpmaddubsw gives another sum for some inputs; brute force over the extremes."""
    for first in range(0, len(weights), 2):
        pair = [int(weight) for weight in weights[first : first + 2]]
        for sign in (1, -1):
            total = sum(255 * weight for weight in pair if weight * sign > 0)
            if not -(2**15) <= total < 2**15:
                return True
    return False


def test_outputs_that_might_saturate_are_found():
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randint(-80, 81, (10, 200), generator=generator).to(torch.int8)
    found = saturating_outputs(matrix)

    assert 0 < int(found.sum()) < 200
    for column, is_found in zip(matrix.T, found.tolist(), strict=True):
        assert is_found or not saturates(column)


@pytest.mark.parametrize(
    ("column", "expected"),
    [([64, 64], False), ([64, -64], False), ([65, 64], True), ([-127, -2], True)],
)
def test_the_bound_of_a_pair_is_128(column, expected):
    assert saturating_outputs(torch.tensor(column, dtype=torch.int8)[:, None]).item() is expected


def test_pairs_do_not_reach_over_a_tap():
    # three channels, two taps: the third of a tap has no neighbour
    column = torch.tensor([1, 1, 100, 100, 1, 1], dtype=torch.int8)[:, None]

    assert saturating_outputs(column, taps=2).tolist() == [False]
    assert saturating_outputs(column, taps=1).tolist() == [True]


def test_the_record_is_as_documented():
    product = quantise(random(6, 4), torch.ones(6), True)

    assert isinstance(product, Quantised)
    assert [product.scale.dtype, product.gain.dtype] == [torch.float32] * 2
    assert [tuple(product.scale.shape), tuple(product.gain.shape)] == [(4,), (6,)]
