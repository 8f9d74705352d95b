"""Packed convolutions give what plain ones give, at any size, and replace nothing else."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wavewn.nn.packed import (
    FEW_PRODUCTS,
    PackedConv1d,
    PackedUpsamplingConv1d,
    pack_layers,
)
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d

# Sums of up to 704 products, in another order; in bfloat16, outputs of the
# order of 1 with 8 bits.
ATOL = {torch.float32: 5e-6, torch.bfloat16: 0.02}

LAYERS = {
    "wide": lambda: PaddedConv1d(80, 48, 7),
    "narrow": lambda: PaddedConv1d(8, 8, 11, 5, padding="reflect"),
    "dilated": lambda: PaddedConv1d(32, 32, 5, 3, padding="replicate"),
    "looking back": lambda: PaddedConv1d(24, 8, 3, 2, right=0),
    "one channel out": lambda: PaddedConv1d(16, 1, 7),
    "without bias": lambda: PaddedConv1d(20, 12, 3, bias=False),
    "upsampling": lambda: UpsamplingConv1d(16, 8, 16, 8),
    "upsampling by an odd rate": lambda: UpsamplingConv1d(16, 8, 10, 5),
    "upsampling, taps no multiple of the rate": lambda: UpsamplingConv1d(16, 8, 11, 4),
    "upsampling without overlap": lambda: UpsamplingConv1d(16, 8, 4, 4),
    "upsampling, looking back": lambda: UpsamplingConv1d(16, 8, 9, 2, crop=0),
}


def packed(layer):
    model = nn.Sequential(layer)
    pack_layers(model)
    assert isinstance(model[0], PackedConv1d | PackedUpsamplingConv1d)
    return model[0]


@pytest.mark.parametrize("dtype", ATOL, ids=str)
@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_a_packed_layer_gives_what_the_plain_one_gives(name, dtype):
    plain = LAYERS[name]().to(dtype)
    ours = packed(plain)
    for batch, rows in ((1, 31), (3, 40), (1, 1500)):
        x = torch.randn(batch, plain.in_channels, rows)
        for laid in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            expected = plain(laid.to(dtype))

            y = ours(laid)

            assert y.dtype == dtype
            assert y.stride(1) == 1 or y.shape[1] == 1, "channels are not innermost"
            assert_close(y, expected, rtol=0, atol=ATOL[dtype])


@torch.inference_mode()
def test_little_is_filtered_tap_by_tap_and_much_at_once():
    layer = packed(PaddedConv1d(64, 64, 11, 3))
    few = FEW_PRODUCTS // layer.weight.numel()
    asked = []
    tap_by_tap, layer._tap_by_tap = (
        layer._tap_by_tap,
        lambda x, rows: asked.append(rows) or tap_by_tap(x, rows),
    )

    for rows in (1, few, few + 1):
        x = torch.randn(1, 64, rows + 30)
        assert_close(
            layer(x, 0, 0),
            PaddedConv1d.filter(plain_of(layer), x),
            rtol=0,
            atol=ATOL[torch.float32],
        )

    assert asked == [1, few]


def plain_of(layer):
    plain = PaddedConv1d(64, 64, 11, 3)
    plain.load_state_dict(layer.state_dict())
    return plain


def test_only_plain_convolutions_are_replaced():
    class Own(PaddedConv1d):
        """Filters in a way of its own."""

    made = nn.ModuleDict(
        {
            "plain": PaddedConv1d(4, 4, 3),
            "pointwise": PaddedConv1d(4, 4, 1),
            "precise": PreciseConv1d(4, 4, 3),
            "own": Own(4, 4, 3),
            "deeper": nn.ModuleList([UpsamplingConv1d(4, 4, 4, 2), nn.Conv1d(4, 4, 3)]),
        }
    )
    before = made.state_dict()

    pack_layers(made)

    kinds = {name: type(layer) for name, layer in made.named_modules()}
    assert kinds["plain"] is PackedConv1d
    assert kinds["deeper.0"] is PackedUpsamplingConv1d
    assert (kinds["pointwise"], kinds["precise"]) == (PaddedConv1d, PreciseConv1d)
    assert (kinds["own"], kinds["deeper.1"]) == (Own, nn.Conv1d)
    after = made.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_other_devices_keep_what_they_have():
    made = nn.Sequential(PaddedConv1d(4, 4, 3)).to("meta")

    pack_layers(made)

    assert type(made[0]) is PaddedConv1d
