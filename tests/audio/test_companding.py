import numpy as np
import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.companding import (
    de_emphasis,
    mu_law_compand,
    mu_law_decode,
    mu_law_encode,
    mu_law_expand,
    pre_emphasis,
)
from wavewn.errors import ConfigError, ShapeError

ROUNDING = 1e-6  # float32; a handful of roundings of values up to 1
COEFFICIENT = 0.85


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("classes", [2, 16, 255, 256, 1024])
def test_encoding_is_monotone_and_uses_every_class(classes):
    codes = mu_law_encode(torch.linspace(-1, 1, 200_001), classes)
    assert codes.dtype == torch.int64
    assert (codes.diff() >= 0).all()
    assert torch.equal(codes.unique(), torch.arange(classes))


@pytest.mark.parametrize("classes", [2, 16, 255, 256, 1024])
def test_decoding_is_monotone_and_encodes_back_to_the_same_class(classes):
    codes = torch.arange(classes)
    audio = mu_law_decode(codes, classes)
    assert audio.dtype == torch.float32
    assert (audio.diff() > 0).all()
    assert torch.equal(mu_law_encode(audio, classes), codes)


@pytest.mark.parametrize("classes", [16, 256, 1024])
def test_decoding_misses_by_at_most_half_a_step_of_the_companded_axis(classes):
    x = torch.linspace(-1, 1, 10_001)
    missed = mu_law_compand(mu_law_decode(mu_law_encode(x, classes), classes), classes)
    missed = (missed - mu_law_compand(x, classes)).abs().max()
    half_step = 1 / (classes - 1)
    assert missed <= half_step + ROUNDING
    assert missed > 0.9 * half_step  # so that the line above can fail


def test_companding_follows_the_formula_and_expanding_inverts_it():
    x = torch.linspace(-1, 1, 1001)
    y = mu_law_compand(x, 256)
    formula = np.sign(x.numpy()) * np.log(1 + 255 * np.abs(x.numpy())) / np.log(256)
    assert_close(y.numpy(), formula.astype(np.float32), rtol=0, atol=ROUNDING)
    assert_close(mu_law_expand(y, 256), x, rtol=0, atol=ROUNDING)


def test_audio_beyond_full_scale_takes_the_outermost_class():
    assert mu_law_encode(torch.tensor([-1.5, 1.5]), 256).tolist() == [0, 255]


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        mu_law_encode(torch.zeros(3), 1)


def test_de_emphasis_inverts_pre_emphasis():
    x = noise(3, 4000)
    emphasised = pre_emphasis(x, COEFFICIENT)
    assert_close(emphasised[:, 1:], x[:, 1:] - COEFFICIENT * x[:, :-1], rtol=0, atol=ROUNDING)
    assert torch.equal(emphasised[:, 0], x[:, 0])
    # roundings of the recursion add up like a geometric series, 1 / (1 - 0.85) = 7 times
    assert_close(de_emphasis(emphasised, COEFFICIENT), x, rtol=0, atol=7 * ROUNDING)
    assert_close(pre_emphasis(de_emphasis(x, COEFFICIENT), COEFFICIENT), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 7, 333, 1000])
def test_chunks_give_the_very_bits_of_the_whole(chunk):
    x = noise(2, 1000)
    start = noise(2)
    before, after = start, start
    emphasised, restored = [], []
    for part in x.split(chunk, dim=1):
        emphasised.append(pre_emphasis(part, COEFFICIENT, before))
        restored.append(de_emphasis(part, COEFFICIENT, after))
        before, after = part[:, -1], restored[-1][:, -1]
    assert torch.equal(torch.cat(emphasised, dim=1), pre_emphasis(x, COEFFICIENT, start))
    assert torch.equal(torch.cat(restored, dim=1), de_emphasis(x, COEFFICIENT, start))
    assert not torch.equal(torch.cat(restored, dim=1), de_emphasis(x, COEFFICIENT))


def test_pre_emphasis_passes_gradients_and_de_emphasis_does_not():
    x = noise(1, 5).requires_grad_()
    pre_emphasis(x, 0.5).sum().backward()
    assert x.grad.tolist() == [[0.5, 0.5, 0.5, 0.5, 1.0]]
    assert not de_emphasis(x, 0.5).requires_grad


def test_nothing_stays_nothing():
    empty = torch.zeros(2, 0)
    assert pre_emphasis(empty, 0.5).shape == de_emphasis(empty, 0.5).shape == (2, 0)


@pytest.mark.parametrize("emphasis", [pre_emphasis, de_emphasis])
def test_an_impossible_filter_is_refused(emphasis):
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\), got 1"):
        emphasis(torch.zeros(1, 3), 1.0)
    with pytest.raises(ShapeError, match=r"\[batch, samples\], got \[3\]"):
        emphasis(torch.zeros(3), 0.5)
    with pytest.raises(ShapeError, match=r"previous must be \[batch\] = \[1\], got \[2\]"):
        emphasis(torch.zeros(1, 3), 0.5, torch.zeros(2))


def test_de_emphasis_refuses_what_is_not_float32():
    with pytest.raises(ShapeError, match="float64"):
        de_emphasis(torch.zeros(1, 3, dtype=torch.float64), 0.5)
