"""Noise is a function of its address: seed, stream, position and draw, and of nothing else."""

import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from wavewn.errors import ConfigError, ShapeError, StateError
from wavewn.noise import KINDS, _draw, _native, _settle, _transform, draw_noise, philox

MANY = 200_000  # enough that the bounds below are tight, few enough for a fast test
KS_CRITICAL = 1.95 / math.sqrt(MANY)  # a true sample exceeds it once in a thousand seeds
SIGMAS = 4.0  # a moment's distance from its expectation, in standard errors
ONE_SECOND = 16_000
LIMIT_S = 0.05  # one second of audio; it takes a few milliseconds


def row(*values: int) -> Tensor:
    """One number for each stream."""
    return torch.tensor(values, dtype=torch.int64)


def draw(kinds=KINDS, seed=7, stream=3, position=0, samples=160) -> Tensor:
    """Draw for a single stream: [samples, kinds]."""
    return draw_noise(tuple(kinds), row(seed), row(stream), row(position), samples)[0]


def words(*values: int) -> list[np.ndarray]:
    """Philox operands, one element each."""
    return [np.array([value], dtype=np.uint64) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    """The vectors are those of Random123, file kat_vectors, philox 4x32 10."""
    got = " ".join(f"{int(word[0]):08x}" for word in philox(words(*counter), words(*key)))
    assert got == expected


def test_each_part_of_the_address_has_its_word():
    seed, stream, position = 0x0123456789ABCDEF, 0xFEDCBA98, (5 << 32) | 9
    got = draw(["uniform", "uniform"], seed, stream, position, samples=1)
    for index in range(2):
        known = philox(words(9, 5, stream, index), words(0x89ABCDEF, 0x01234567))
        assert got[0, index].item() == ((int(known[0][0]) >> 9) + 0.5) / 2**23


@pytest.mark.parametrize("cut", [1, 60, 100, 159])
def test_chunks_equal_the_whole_bitwise(cut):
    parts = [draw(samples=cut), draw(position=cut, samples=160 - cut)]
    assert torch.equal(torch.cat(parts), draw())
    assert not torch.equal(parts[0][:1], parts[1][:1])


def test_blocks_inside_a_long_draw_leave_no_seam():
    whole = draw(samples=10_000)
    assert torch.equal(whole[4090:4103], draw(position=4090, samples=13))


def test_positions_beyond_32_bits_go_on():
    start = 2**32 - 3
    across = draw(position=start, samples=6)
    assert torch.equal(across[3:], draw(position=2**32, samples=3))
    assert not torch.equal(across[3:], draw(position=0, samples=3))


def test_rows_do_not_depend_on_the_batch():
    seeds, streams, positions = row(7, 7, -8), row(0, 3, 2**32 - 1), row(5, 0, 2**40)
    together = draw_noise(KINDS, seeds, streams, positions, 50)
    for i in range(3):
        at = slice(i, i + 1)
        alone = draw_noise(KINDS, seeds[at], streams[at], positions[at], 50)
        assert torch.equal(together[at], alone)
    assert not torch.equal(together[0], together[1])


def addresses(*numbers):
    """Each of them as `_draw` and the extension take it, [batch, 1]."""
    return [np.array(own, dtype=np.uint64)[:, None] for own in numbers]


@pytest.mark.skipif(_native() is None, reason="not compiled")
@pytest.mark.parametrize("name", ["avx512", "avx2", "portable"])
def test_the_extension_draws_what_numpy_draws_to_the_last_bit(name):
    sets = {own: why for own, why, *_ in _native().spectrum_sets()}
    if sets[name]:
        pytest.skip(sets[name])
    where = addresses([7, 1 << 63], [3, (1 << 32) - 1], [(1 << 32) - 9, (1 << 63) - MANY])
    shape = 2, MANY - 7, len(KINDS)  # and no whole number of blocks
    found, expected = np.empty(shape, np.float32), np.empty(shape, np.float32)

    unsure = _native().draw_noise([0, 1, 2], *(x[:, 0] for x in where), found, name)

    _draw(expected, KINDS, *where)
    sure = ~np.isnan(found)
    assert np.array_equal(found[sure], expected[sure])
    assert unsure == (~sure).sum() < 20


def test_what_the_extension_is_not_sure_of_is_numpy_s():
    where = addresses([7, 8], [3, 4], [100, 200])
    expected = np.empty((2, 30, len(KINDS)), np.float32)
    _draw(expected, KINDS, *where)
    found = expected.copy()
    found[0, 29, 1] = found[1, 0] = found[1, 7, 2] = np.nan

    _settle(found, KINDS, *where)

    assert np.array_equal(found, expected)


@pytest.mark.skipif(_native() is None, reason="not compiled")
def test_arrays_of_other_sizes_are_refused():
    one, out = np.zeros(1, np.uint64), np.empty((1, 4, 2), np.float32)
    for kinds, rows in (([1], one), ([1, 3], one), ([1, -1], one), ([1, 1], np.zeros(2, "u8"))):
        with pytest.raises(ValueError, match="do not go together"):
            _native().draw_noise(kinds, one, rows, one, out)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_matter():
    cuda = [value.cuda() for value in (row(7), row(3), row(0))]
    there = draw_noise(KINDS, *cuda, 160)
    assert there.is_cuda
    assert torch.equal(there[0].cpu(), draw())


def test_a_further_draw_leaves_the_others_as_they_were():
    assert torch.equal(draw(["normal", "logistic"])[:, :1], draw(["normal"]))
    twice = draw(["normal", "normal"])
    assert not torch.equal(twice[:, 0], twice[:, 1])


@pytest.mark.parametrize("other", [{"seed": 8}, {"seed": 7 | 1 << 62}, {"seed": -7}, {"stream": 4}])
def test_other_seeds_and_streams_are_other_noise(other):
    correlation = torch.corrcoef(
        torch.stack(
            [draw(["normal"], samples=MANY)[:, 0], draw(["normal"], **other, samples=MANY)[:, 0]]
        )
    )[0, 1]
    assert abs(correlation) < SIGMAS / math.sqrt(MANY)


def test_neighbours_are_uncorrelated():
    x = draw(["normal", "normal"], samples=MANY).double()
    assert abs((x[1:, 0] * x[:-1, 0]).mean()) < SIGMAS / math.sqrt(MANY)
    assert abs((x[:, 0] * x[:, 1]).mean()) < SIGMAS / math.sqrt(MANY)


@pytest.mark.parametrize(
    ("kind", "variance", "fourth"),
    [("uniform", 1 / 12, 1 / 80), ("normal", 1.0, 3.0), ("logistic", math.pi**2 / 3, None)],
)
def test_moments_are_the_distribution_s(kind, variance, fourth):
    fourth = 7 * math.pi**4 / 15 if fourth is None else fourth
    x = draw([kind], samples=MANY)[:, 0].double() - (0.5 if kind == "uniform" else 0.0)
    assert abs(x.mean()) < SIGMAS * math.sqrt(variance / MANY)
    assert abs(x.square().mean() - variance) < SIGMAS * math.sqrt((fourth - variance**2) / MANY)


def ks_distance(kind: str, x: Tensor) -> float:
    """Kolmogorov-Smirnov distance of a sample from the distribution that its kind names."""
    cdf = {"uniform": lambda v: v, "normal": torch.special.ndtr, "logistic": torch.sigmoid}[kind]
    reached = cdf(x.double().sort().values)
    steps = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return torch.maximum(steps[1:] - reached, reached - steps[:-1]).max().item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_is_the_named_one(kind):
    x = draw([kind], samples=MANY)[:, 0]
    assert ks_distance(kind, x) < KS_CRITICAL
    assert ks_distance(kind, x * 1.02) > KS_CRITICAL  # two per cent of scale would be seen


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF])
def test_the_extreme_words_stay_inside(word):
    extreme = words(word, 0, 0, 0)
    uniform = _transform("uniform", extreme).astype(np.float32)[0]
    assert 0.0 < uniform < 1.0
    assert uniform == (2.0**-24 if word == 0 else 1.0 - 2.0**-24)
    for kind in ("normal", "logistic"):
        assert np.isfinite(_transform(kind, extreme)).all()
    # half a step more than float32 can hold: why uniforms have 23 bits and not 24
    assert np.float32((0xFFFFFF + 0.5) * 2.0**-24) == 1.0


def test_shape_and_dtype_are_as_promised():
    noise = draw_noise(("normal", "uniform"), row(1, 2), row(0, 0), row(0, 0), 5)
    assert noise.shape == (2, 5, 2)
    assert noise.dtype == torch.float32
    assert draw_noise(("normal",), row(1), row(0), row(0), 0).shape == (1, 0, 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kinds": ("cauchy",)}, ConfigError, "uniform, normal, logistic, got 'cauchy'"),
        ({"samples": -1}, ShapeError, "must not be negative, got -1"),
        ({"position": row(0, -5)}, StateError, r"position must not be negative, got \[0, -5\]"),
        ({"stream": row(0, -1)}, StateError, r"stream id must lie in .* got \[0, -1\]"),
        ({"stream": row(0, 2**32)}, StateError, "stream id must lie in 0 to"),
        ({"position": row(0)}, ShapeError, r"position must be int64 \[batch\] like seed \[2\]"),
        ({"seed": torch.zeros(2)}, ShapeError, "seed must be int64 .* got torch.float32"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, error, message):
    right = {"kinds": KINDS, "seed": row(1, 2), "stream": row(0, 1), "position": row(0, 0)}
    draw_noise(**right, samples=2)
    with pytest.raises(error, match=message):
        draw_noise(**{**right, "samples": 2, **change})


def test_a_second_of_audio_is_drawn_in_no_time():
    draw(samples=ONE_SECOND)
    took_s = []
    for _ in range(5):
        began = time.perf_counter()
        draw(["uniform", "logistic"], samples=ONE_SECOND)
        took_s.append(time.perf_counter() - began)
    assert min(took_s) < LIMIT_S
