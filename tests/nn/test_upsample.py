"""From frames to samples: what commutes with a projection, and what reads which frame."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wavewn.nn.upsample import (
    TransposedUpsample,
    add_upsampled,
    linear_ramp,
    upsample_linear,
)

ATOL = 1e-6  # float32; a few roundings of values of order one
HOP = 5


def upsample_nearest(frames, hop_length):
    return frames[:, 1:].repeat_interleave(hop_length, dim=1)


BOTH = pytest.mark.parametrize(
    ("kind", "upsample"), [("nearest", upsample_nearest), ("linear", upsample_linear)]
)


def frames(count=4, channels=3):
    torch.manual_seed(0)
    return torch.randn(2, 1 + count, channels)


def test_values_are_those_written_out_by_hand():
    x = torch.tensor([[[1.0], [3.0], [2.0]]])
    assert upsample_nearest(x, 2).flatten().tolist() == [3, 3, 2, 2]
    assert upsample_linear(x, 2).flatten().tolist() == [2, 3, 2.5, 2]
    assert linear_ramp(4).tolist() == [0.25, 0.5, 0.75, 1]


@BOTH
@pytest.mark.parametrize("hop", [1, 5])
def test_upsampling_commutes_with_a_projection(kind, upsample, hop):
    project = nn.Linear(3, 6)
    x = frames()
    assert_close(upsample(project(x), hop), project(upsample(x, hop)), rtol=0, atol=ATOL)


@BOTH
def test_adding_equals_upsampling_and_then_adding(kind, upsample):
    x, condition = torch.randn(2, 4 * HOP, 3), frames()
    assert_close(add_upsampled(x, condition, kind), x + upsample(condition, HOP), rtol=0, atol=ATOL)


def test_what_is_upsampled_already_is_added_as_it_is():
    x, condition = torch.randn(2, 20, 3), torch.randn(2, 20, 3)
    assert torch.equal(add_upsampled(x, condition, "transposed"), x + condition)


def test_fresh_transposed_upsampling_is_linear():
    up = TransposedUpsample(3, HOP)
    assert_close(up(frames()), upsample_linear(frames(), HOP), rtol=0, atol=ATOL)
    with torch.no_grad():
        up.conv.weight.normal_()
    assert (up(frames()) - upsample_linear(frames(), HOP)).abs().max() > 0.1


@pytest.mark.parametrize("upsample", [upsample_nearest, upsample_linear, "transposed"])
def test_a_sample_reads_its_own_frame_and_the_one_before_only(upsample):
    learned = TransposedUpsample(3, HOP)
    with torch.no_grad():
        learned.conv.weight.normal_()
    x = frames().requires_grad_(True)
    y = learned(x) if upsample == "transposed" else upsample(x, HOP)
    assert y.shape == (2, 4 * HOP, 3)
    y[:, 2 * HOP].sum().backward()  # first sample of frame 2, which is row 3
    heard = x.grad.abs().amax((0, 2)) > 0
    assert heard.tolist() == [False, False, upsample is not upsample_nearest, True, False]
