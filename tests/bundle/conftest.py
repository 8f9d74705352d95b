"""Tiny random models for bundles and checkpoints."""

import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.config import Condition, MuLaw, WaveNetConfig
from wavewn.models.wavenet import WaveNet

SPEC = MelSpec(n_mels=4, hop_length=20, win_length=80, n_fft=128)


@pytest.fixture
def spec():
    """The mels of the tiny models."""
    return SPEC


@pytest.fixture
def small():
    """Build a tiny random WaveNet."""

    def make(head=None, speakers=0, seed=0, **sizes):
        torch.manual_seed(seed)
        settings = WaveNetConfig(
            residual_channels=8,
            skip_channels=8,
            head_channels=8,
            cycles=1,
            layers_per_cycle=3,
            head=head or MuLaw(classes=16),
            condition=Condition(channels=4),
            speakers=speakers,
            **sizes,
        )
        return WaveNet(settings, SPEC.n_mels, SPEC.hop_length, SPEC.log_floor)

    return make
