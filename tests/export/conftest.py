"""Small models of every kind, random."""

import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig, SpectralConfig
from wavewn.models.generators import make_generator

SPEC = MelSpec(
    sample_rate=8000, n_fft=128, hop_length=32, win_length=128, n_mels=10, f_min=0, f_max=4000
)


def settings(kind, causal=False, padding="zeros"):
    edges = {"causal": causal, "padding": padding}
    if kind == "hifigan":
        rates = {"upsample_rates": (8, 4), "upsample_kernel_sizes": (16, 8)}
        blocks = {"resblock_kernel_sizes": (3, 5), "resblock_dilations": ((1,), (2,))}
        return HiFiGANConfig(channels=8, resblock="2", **rates, **blocks, **edges)
    if kind == "melgan":
        return MelGANConfig(channels=8, upsample_rates=(8, 4), stacks=2, **edges)
    if kind == "parallel-wavegan":
        sizes = {"residual_channels": 4, "gate_channels": 4, "skip_channels": 4}
        stack = {"cycles": 1, "layers_per_cycle": 2, "upsample_rates": (8, 4)}
        return ParallelWaveGANConfig(**sizes, **stack, **edges)
    sizes = {"channels": 8, "hidden_channels": 8, "kernel_size": 3, "dilations": (1, 2)}
    return SpectralConfig(**sizes, look_ahead=2, n_fft=64)


def generator(kind, **edges):
    torch.manual_seed(0)
    model = make_generator(settings(kind, **edges), SPEC)
    for parameter in model.parameters():
        if parameter.dim() > 1 and kind in ("hifigan", "melgan"):
            parameter.data *= 20  # the published start is next to silence
    return model


@pytest.fixture
def make():
    return generator


@pytest.fixture
def spec():
    return SPEC
