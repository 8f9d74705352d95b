"""Random numbers that are a function of where they are used.

A generator with a hidden state gives other numbers when the audio is cut into other
chunks or when a stream joins the batch. Here every number is computed from its own
address instead: Philox4x32-10 encrypts the counter (position, stream, draw) under the
key `seed`. Whoever asks for sample 5,000 of stream 3 gets the same bits, whatever was
drawn before, whoever else is in the batch and wherever the result shall live.

The words are made on the CPU by exact integer arithmetic, and the transforms run in
float64 before the one rounding to float32. (The logarithm and cosine are numpy's: on
another instruction set their last float64 bit may differ, which the rounding hides
nearly always, not always.) The draw of a kind depends on its index in `kinds` alone,
so one more draw at the end leaves the others as they were.

Where the extension was compiled it draws (csrc/noise.hpp): the same numbers, ten times
as fast. It leaves to numpy what lies so near to where the rounding turns that the last
bits of float64 would tell.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3;
constants and known answers from the authors' library Random123.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavewn.errors import ConfigError, ShapeError, StateError

KINDS = ("uniform", "normal", "logistic")

Words = npt.NDArray[np.uint64]  # each holds 32 bits: the product of two of them fits

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_BLOCK = 4096  # samples at once: all words of a block stay in the CPU's cache


def philox(counter: Sequence[Words], key: Sequence[Words]) -> tuple[Words, Words, Words, Words]:
    """Encrypt counters with Philox4x32-10.

    Args:
        counter: Four arrays of 32-bit words held in uint64, of shapes that broadcast.
        key: Two such arrays.

    Returns:
        Four arrays of 32-bit words held in uint64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0 = (k0 + _KEY_STEPS[0]) & _LOW
        k1 = (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def draw_noise(
    kinds: tuple[str, ...], seed: Tensor, stream: Tensor, position: Tensor, samples: int
) -> Tensor:
    """Draw the noise of `samples` consecutive samples of each stream of a batch.

    Args:
        kinds: What each draw of a sample is: 'uniform' in the open interval (0, 1),
            'normal' (mean 0, variance 1) or 'logistic' (mean 0, scale 1).
        seed: [batch] int64; all 64 bits count, a negative number is its bit pattern.
        stream: [batch] int64, from 0 to 2**32 - 1.
        position: [batch] int64, number of the first sample of each row, not negative.
        samples: Samples to draw, may be 0.

    Returns:
        [batch, samples, len(kinds)] float32 on the device of `seed`.

    Raises:
        ConfigError: A kind is unknown.
        ShapeError: The tensors are not int64 of one length, or `samples` is negative.
        StateError: A position or stream id is out of range.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"a kind of noise must be one of {', '.join(KINDS)}, got {kind!r}")
    if samples < 0:
        raise ShapeError(f"the number of samples to draw must not be negative, got {samples}")
    words = (("seed", seed), ("stream", stream), ("position", position))
    seeds, streams, positions = (_words_64(name, values, seed.numel()) for name, values in words)
    if max(positions.tolist(), default=0) >= 2**63:
        raise StateError(f"a position must not be negative, got {position.tolist()}")
    if max(streams.tolist(), default=0) >= 2**32:
        raise StateError(f"a stream id must lie in 0 to 2**32 - 1, got {stream.tolist()}")
    noise = np.empty((len(seeds), samples, len(kinds)), dtype=np.float32)
    columns = seeds[:, None], streams[:, None], positions[:, None]
    if (native := _native()) is None:
        _draw(noise, kinds, *columns)
    elif native.draw_noise([KINDS.index(k) for k in kinds], seeds, streams, positions, noise):
        _settle(noise, kinds, *columns)
    return torch.from_numpy(noise).to(seed.device)


def _draw(
    noise: npt.NDArray[np.float32],
    kinds: tuple[str, ...],
    seeds: Words,
    streams: Words,
    positions: Words,
) -> None:
    """Fill [batch, samples, kinds]; the others are [batch, 1]."""
    samples = noise.shape[1]
    key = (seeds[:, None] & _LOW, seeds[:, None] >> _32)
    streams = streams[:, None]
    draws: Words = np.arange(len(kinds)).astype(np.uint64)[:, None]
    for begin in range(0, samples, _BLOCK):
        count = min(_BLOCK, samples - begin)
        where: Words = (positions + np.arange(begin, begin + count).astype(np.uint64))[:, None]
        words = philox((where & _LOW, where >> _32, streams, draws), key)  # [batch, draws, count]
        for draw, kind in enumerate(kinds):
            own = words[0][:, draw], words[1][:, draw], words[2][:, draw], words[3][:, draw]
            noise[:, begin : begin + count, draw] = _transform(kind, own)


def _settle(
    noise: npt.NDArray[np.float32],
    kinds: tuple[str, ...],
    seeds: Words,
    streams: Words,
    positions: Words,
) -> None:
    """Draw the samples again in which there is NaN."""
    for row, sample in {(int(row), int(sample)) for row, sample, _ in np.argwhere(np.isnan(noise))}:
        one = slice(row, row + 1)
        place = positions[one] + np.uint64(sample)
        own = noise[one, sample : sample + 1]
        _draw(own, kinds, seeds[one], streams[one], place)


@functools.cache
def _native() -> Any:
    """Give the extension; None where there is none."""
    try:
        from wavewn import _native
    except ImportError:
        return None
    return _native


def _words_64(name: str, values: Tensor, batch: int) -> Words:
    """Check one argument of `draw_noise` and return it as [batch] unsigned words."""
    if values.dtype != torch.int64 or values.shape != (batch,):
        raise ShapeError(
            f"{name} must be int64 [batch] like seed [{batch}], "
            f"got {values.dtype} {list(values.shape)}"
        )
    return values.cpu().numpy().view(np.uint64)


def _transform(kind: str, words: tuple[Words, Words, Words, Words]) -> npt.NDArray[Any]:
    """Turn random words into one number each.

    A uniform of 24 bits and a half, ((x >> 8) + 0.5) * 2**-24, needs 25 bits, so that
    float32 would round the greatest to 1.0. With 23 bits and a half every value is an
    odd multiple of 2**-24: exact in float32, symmetric about 0.5, from 2**-24 to
    1 - 2**-24. The other kinds take all 32 bits in float64, for the sake of their tails.

    Source: Box & Muller 1958, for the normal: two uniforms, the cosine branch.
    """
    if kind == "uniform":
        return ((words[0] >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
    u = (words[0].astype(np.float64) + 0.5) * 2.0**-32
    if kind == "logistic":
        return np.log(u) - np.log1p(-u)
    angle = (words[1].astype(np.float64) + 0.5) * (2.0**-32 * 2.0 * np.pi)
    return np.sqrt(-2.0 * np.log(u)) * np.cos(angle)
