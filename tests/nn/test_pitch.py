"""F0 of signals whose F0 is known."""

import math

import pytest
import torch

from wavewn.nn.pitch import fundamental_frequency

RATE, HOP = 16000, 100
CENTS = 10.0  # YIN with parabolic interpolation, on a clean tone


def tone(f0, seconds=0.5, harmonics=12):
    """A sum of harmonics, [samples]; `f0` is a number or [samples] in Hz."""
    frequency = torch.as_tensor(f0, dtype=torch.float64).expand(int(seconds * RATE))
    phase = 2 * math.pi * (frequency / RATE).cumsum(0)
    return sum(torch.cos(k * phase + k) / k for k in range(1, harmonics + 1)).float() * 0.1


@pytest.mark.parametrize("f0", [70.0, 112.5, 220.0, 431.0])
def test_the_pitch_of_a_tone_is_found_in_every_hop(f0):
    found = fundamental_frequency(tone(f0)[None], RATE, HOP)[0]

    assert found.shape == (int(0.5 * RATE) // HOP,)
    inside = found[5:-5]
    assert (1200 * (inside / f0).log2()).abs().max() < CENTS


def test_a_glide_is_followed_at_the_middle_of_each_hop():
    glide = torch.linspace(100, 200, int(0.5 * RATE), dtype=torch.float64)

    found = fundamental_frequency(tone(glide)[None], RATE, HOP)[0]

    middle = glide[HOP // 2 :: HOP][: len(found)]
    assert (1200 * (found / middle).log2())[5:-5].abs().max() < 4 * CENTS  # it moves in a window


def test_noise_and_silence_have_no_pitch_and_rows_do_not_disturb_each_other():
    torch.manual_seed(0)
    rows = torch.stack([0.1 * torch.randn(8000), torch.zeros(8000), tone(150.0)])

    found = fundamental_frequency(rows, RATE, HOP)

    assert (found[0] > 0).float().mean() < 0.1
    assert not found[1].any()
    assert torch.equal(found[2], fundamental_frequency(rows[2:], RATE, HOP)[0])
    assert (found[2, 5:-5] > 0).all()
