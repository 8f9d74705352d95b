"""The causal convolution: against torch's own, against the future, and in chunks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from wavewn.errors import ConfigError, ShapeError
from wavewn.nn.conv import CausalConv1d

ATOL = 1e-6  # float32; the two sides differ in the order of a few sums

CASES = [(1, 1), (2, 1), (2, 4), (3, 2), (3, 5)]


def make(taps, dilation):
    torch.manual_seed(0)
    return CausalConv1d(3, 4, taps, dilation), torch.randn(2, 17, 3)


@pytest.mark.parametrize(("taps", "dilation"), CASES)
def test_it_equals_torchs_convolution_of_the_padded_signal(taps, dilation):
    conv, x = make(taps, dilation)
    x.requires_grad_(True)
    assert conv.context == (taps - 1) * dilation
    reference = nn.Conv1d(3, 4, taps, dilation=dilation)
    reference.load_state_dict(conv.state_dict(), strict=True)
    wanted = reference(F.pad(x.transpose(1, 2), (conv.context, 0))).transpose(1, 2)
    y = conv(x)

    assert_close(y, wanted, rtol=0, atol=ATOL)
    seed = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, *conv.parameters()), seed)
    theirs = torch.autograd.grad(wanted, (x, *reference.parameters()), seed)
    assert_close(ours, theirs, rtol=1e-5, atol=ATOL)


@pytest.mark.parametrize(("taps", "dilation"), CASES)
def test_the_future_is_not_heard(taps, dilation):
    conv, x = make(taps, dilation)
    x.requires_grad_(True)
    conv(x)[:, 11].sum().backward()
    assert x.grad[:, 12:].abs().max() == 0
    for tap in range(taps):
        assert x.grad[:, 11 - tap * dilation].abs().max() > 0  # so that the line above can fail
    if dilation > 1:
        assert x.grad[:, 10].abs().max() == 0


@pytest.mark.parametrize("chunk", [1, 2, 7, 16])
@pytest.mark.parametrize(("taps", "dilation"), CASES)
def test_chunks_with_their_history_equal_the_whole(taps, dilation, chunk):
    conv, x = make(taps, dilation)
    history = torch.zeros(2, conv.context, 3)
    parts = []
    for part in x.split(chunk, dim=1):
        parts.append(conv(part, history))
        seen = torch.cat([history, part], dim=1)
        history = seen[:, seen.shape[1] - conv.context :]
    assert_close(torch.cat(parts, dim=1), conv(x), rtol=0, atol=ATOL)


def test_history_matters_and_its_shape_is_checked():
    conv, x = make(3, 2)
    assert (conv(x, torch.ones(2, 4, 3)) - conv(x))[:, :4].abs().min() > 0
    with pytest.raises(ShapeError, match=r"\[2, 4, 3\] \[batch, context, channels\], got \[1, 4"):
        conv(x, torch.zeros(1, 4, 3))
    pointwise, x = make(1, 1)
    with pytest.raises(ShapeError, match=r"\[2, 0, 3\]"):
        pointwise(x, torch.zeros(2, 1, 3))


@pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, -1)])
def test_sizes_below_one_are_refused_by_name(sizes):
    names = ["in_channels", "out_channels", "kernel_size", "dilation"]
    wrong = next(n for n, size in zip(names, sizes, strict=True) if size < 1)
    with pytest.raises(ConfigError, match=f"CausalConv1d.{wrong} must be at least 1, got"):
        CausalConv1d(*sizes)


def test_the_matrix_lists_the_oldest_tap_first():
    conv, _ = make(3, 2)
    for tap in range(3):
        assert torch.equal(conv.matrix()[:, 3 * tap : 3 * tap + 3], conv.weight[:, :, tap])
