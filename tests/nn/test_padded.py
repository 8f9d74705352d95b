"""Convolutions that know what they see beyond the ends: values, edges, what inputs determine."""

import pytest
import torch
from torch.testing import assert_close

from wavewn.errors import ConfigError
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d

ATOL = 1e-12  # float64; sums in another order
ROWS = 9
PADDINGS = ("zeros", "reflect", "replicate")


def outside(row, rows, padding):
    """Number of the row that stands for one outside the utterance; None is silence."""
    if 0 <= row < rows:
        return row
    if padding == "zeros":
        return None
    if padding == "replicate":
        return min(max(row, 0), rows - 1)
    return -row if row < 0 else 2 * (rows - 1) - row


def filtered(layer, x):
    """Sum tap by tap, as the equation has it."""
    y = layer.bias[:, None].repeat(1, x.shape[2])[None].repeat(x.shape[0], 1, 1)
    for row in range(x.shape[2]):
        for tap in range(layer.kernel_size[0]):
            seen = row + tap * layer.dilation[0] - layer.left
            seen = outside(seen, x.shape[2], layer.padding_mode_name)
            if seen is not None:
                y[:, :, row] += x[:, :, seen] @ layer.weight[:, :, tap].T
    return y


def upsampled(layer, x):
    """Sum input by input, as the equation has it."""
    y = layer.bias[:, None].repeat(1, x.shape[2] * layer.rate)[None].repeat(x.shape[0], 1, 1)
    for row in range(y.shape[2]):
        for seen in range(x.shape[2]):
            tap = row + layer.crop - seen * layer.rate
            if 0 <= tap < layer.taps:
                y[:, :, row] += x[:, :, seen] @ layer.weight[:, :, tap]
    return y


@torch.no_grad()
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("kernel_size", "dilation", "right"),
    [(1, 1, None), (3, 1, None), (5, 2, None), (3, 2, 0), (4, 1, 1), (2, 3, 1), (4, 1, 2)],
)
def test_a_convolution_is_the_sum_of_its_taps(kernel_size, dilation, right, padding):
    layer = PaddedConv1d(2, 3, kernel_size, dilation, right=right, padding=padding).double()
    x = torch.randn(2, 2, ROWS, dtype=torch.float64)

    assert_close(layer(x), filtered(layer, x), rtol=0, atol=ATOL)


@torch.no_grad()
def test_paddings_differ_at_the_ends_only():
    layers = [PaddedConv1d(1, 1, 5, padding=padding) for padding in PADDINGS]
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    x = torch.randn(1, 1, ROWS)

    zeros, reflect, replicate = (layer(x) for layer in layers)

    for other in (reflect, replicate):
        assert_close(zeros[..., 2:-2], other[..., 2:-2], rtol=0, atol=1e-6)
        assert ((zeros - other)[..., [0, 1, -2, -1]].abs() > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("taps", "rate", "crop"),
    [(4, 4, None), (8, 4, None), (7, 4, None), (6, 3, None), (4, 2, 0), (11, 5, 6), (7, 2, 3)],
)
def test_an_upsampling_is_the_sum_of_its_inputs(taps, rate, crop):
    layer = UpsamplingConv1d(2, 3, taps, rate, crop=crop).double()
    x = torch.randn(2, 2, ROWS, dtype=torch.float64)

    y = layer(x)

    assert y.shape == (2, 3, ROWS * rate)
    assert_close(y, upsampled(layer, x), rtol=0, atol=ATOL)


LAYERS = {
    "centred": PaddedConv1d(1, 1, 5),
    "reflecting": PaddedConv1d(1, 1, 5, padding="reflect"),
    "reflecting, looking back": PaddedConv1d(1, 1, 3, right=0, padding="reflect"),
    "replicating": PaddedConv1d(1, 1, 7, padding="replicate"),
    "causal": PaddedConv1d(1, 1, 3, 2, right=0),
    "upsampling": UpsamplingConv1d(1, 1, 8, 4),
    "upsampling by an odd rate": UpsamplingConv1d(1, 1, 10, 5),
    "upsampling without overlap": UpsamplingConv1d(1, 1, 3, 3),
    "causal upsampling": UpsamplingConv1d(1, 1, 8, 4, crop=0),
}


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_what_inputs_determine_is_what_later_ones_leave_alone(name):
    layer = LAYERS[name].double()
    x = torch.randn(1, 1, ROWS, dtype=torch.float64)
    for rows in range(1, ROWS):
        changed = x.clone()
        changed[:, :, rows] += 1

        differs = (layer(changed) != layer(x))[0, 0].nonzero()[:, 0]

        assert differs.min() == layer.determined(rows, ended=False)  # and not one row later
        if rows >= getattr(layer, "shortest", 0):
            assert layer.determined(rows, ended=True) == layer(x[:, :, :rows]).shape[2]


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in LAYERS if "upsampling" in name])
def test_the_oldest_input_of_an_output_is_the_first_that_changes_it(name):
    layer = LAYERS[name].double()
    x = torch.randn(1, 1, ROWS, dtype=torch.float64, requires_grad=True)
    for output in range(ROWS * layer.rate):
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(layer(x)[0, 0, output], x)

        assert slope[0, 0].nonzero().min() == layer.oldest_input(output)
        assert output // layer.rate - layer.oldest_input(output) <= layer.reach


@torch.no_grad()
def test_reflection_needs_more_rows_than_it_mirrors():
    layer = PaddedConv1d(1, 1, 7, padding="reflect")

    assert layer.shortest == 4
    assert layer(torch.zeros(1, 1, 4)).shape == (1, 1, 4)
    with pytest.raises(RuntimeError, match="adding size"):
        layer(torch.zeros(1, 1, 3))


@torch.no_grad()
def test_a_precise_convolution_does_not_hear_how_its_input_was_cut():
    precise = PreciseConv1d(64, 8, 7, right=3)
    x = torch.randn(1, 64, 500)

    whole = precise(x)
    parts = [
        precise(x[:, :, max(n - 3, 0) : n + 13], 3 if n == 0 else 0, 3 if n == 490 else 0)
        for n in range(0, 500, 10)
    ]

    assert whole.dtype == torch.float32
    assert torch.equal(torch.cat(parts, dim=2), whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PaddedConv1d(1, 1, 4), "4 taps 1 rows apart cannot be centred"),
        (lambda: PaddedConv1d(1, 1, 3, 2, right=5), "over 4 rows more cannot see 5 ahead"),
        (lambda: PaddedConv1d(1, 1, 3, right=-1), "cannot see -1 ahead"),
        (lambda: PaddedConv1d(1, 1, 3, right=2, padding="reflect"), "take zeros or replicate"),
        (lambda: UpsamplingConv1d(1, 1, 3, 4), "3 taps leaves holes at stride 4"),
        (lambda: UpsamplingConv1d(1, 1, 8, 4, crop=5), "crop must lie in 0 to 4, got 5"),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
