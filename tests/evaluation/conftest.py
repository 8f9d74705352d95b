"""Sounds that the tests of this folder judge: made here, so that their truth is known."""

import pytest
import torch
from torch import Tensor

RATE = 16_000


def make_voice(f0_hz: float = 120.0, seconds: float = 1.0, harmonics: int = 20) -> Tensor:
    """A steady voice-like tone with falling harmonics and a slow swell, peak about 0.4."""
    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    tone = sum(
        torch.sin(2 * torch.pi * f0_hz * k * time + k * k) / k for k in range(1, harmonics + 1)
    )
    swell = 0.6 + 0.4 * torch.sin(2 * torch.pi * 3.0 * time)
    return (0.15 * tone * swell).float()


def make_noise(like: Tensor, level: float, seed: int = 0) -> Tensor:
    return level * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def voice():
    return make_voice


@pytest.fixture(scope="session")
def noise():
    return make_noise
