"""Strided convolutions of discriminators: what torch's own give, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wavewn.nn.strided import strided_conv, weight_gradient

CASES = [  # batch, time, in, out, taps, stride, groups
    pytest.param((2, 50, 8, 12, 41, 2, 4), id="long-kernel"),
    pytest.param((1, 130, 8, 16, 41, 4, 4), id="stride-that-leaves-rows"),
    pytest.param((3, 33, 6, 6, 7, 1, 3), id="no-stride"),
    pytest.param((2, 9, 4, 520, 5, 3, 2), id="more-channels-than-a-block-is-wide"),
    pytest.param((2, 21, 3, 5, 5, 3, 1), id="one-group"),
]


def made(batch, time, inner, out, taps, stride, groups):
    torch.manual_seed(0)
    x = torch.randn(batch, time, inner)
    weight = torch.randn(out, inner // groups, taps) / taps
    return [one.requires_grad_() for one in (x, weight, torch.randn(out))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_outputs_and_gradients_are_those_of_conv1d(case, bias):
    x, weight, shift = made(*case)
    taps, stride, groups = case[4:]
    wanted = [x, weight, shift] if bias else [x, weight]
    shift = shift if bias else None
    ours = strided_conv(x, weight, shift, stride, taps // 2, groups)
    theirs = F.conv1d(x.mT, weight, shift, stride, taps // 2, 1, groups).mT
    assert_close(ours, theirs, rtol=0, atol=1e-5)
    seed = torch.randn_like(ours)
    assert_close(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(theirs, wanted, seed),
        rtol=0,
        atol=1e-4,
    )


def test_under_autocast_gradients_are_float32_and_lie_within_the_roundings_of_bfloat16():
    x, weight, shift = made(2, 300, 16, 64, 41, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        ours = strided_conv(x, weight, shift, 2, 20, 4)
    theirs = F.conv1d(x.mT, weight, shift, 2, 20, 1, 4).mT
    seed = torch.randn_like(theirs)
    found = torch.autograd.grad(ours, (x, weight, shift), seed.bfloat16())
    exact = torch.autograd.grad(theirs, (x, weight, shift), seed)

    assert ours.dtype == torch.bfloat16
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


def test_weights_that_do_not_learn_get_no_gradient():
    x, weight, shift = made(2, 50, 8, 12, 41, 2, 4)
    weight.requires_grad_(False)
    strided_conv(x, weight, shift.detach(), 2, 20, 4).sum().backward()
    assert weight.grad is None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("outputs", [1, 7, 8, 9, 64])
def test_a_weight_gradient_does_not_depend_on_where_blocks_end(outputs):
    torch.manual_seed(0)
    x, dy = torch.randn(1, 2 * outputs - 1, 4), torch.randn(1, outputs, 6)
    shape = torch.Size((6, 2, 5))
    whole = weight_gradient(x, dy, shape, 2, 2, 2)
    alone = [
        weight_gradient(x, F.pad(dy[:, i : i + 1], (0, 0, i, outputs - 1 - i)), shape, 2, 2, 2)
        for i in range(outputs)
    ]
    assert_close(whole, torch.stack(alone).sum(0), rtol=0, atol=1e-4)
