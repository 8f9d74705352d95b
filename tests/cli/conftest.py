"""A tiny random voice, so that the verbs have something to work on."""

import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.bundle import save_bundle
from wavewn.config import Condition, MuLaw, WaveNetConfig
from wavewn.models.wavenet import WaveNet

SPEC = MelSpec(n_mels=8, hop_length=20, win_length=80, n_fft=128)


@pytest.fixture
def spec():
    """The mels of the tiny voice."""
    return SPEC


@pytest.fixture
def model():
    """A WaveNet of two speakers that runs in no time."""
    torch.manual_seed(0)
    settings = WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        cycles=1,
        layers_per_cycle=3,
        head=MuLaw(classes=16),
        condition=Condition(channels=4),
        speakers=2,
    )
    return WaveNet(settings, SPEC.n_mels, SPEC.hop_length, SPEC.log_floor)


@pytest.fixture
def voice(tmp_path, model):
    """The bundle of `model`."""
    save_bundle(tmp_path / "voice", model, SPEC, speakers=["anna", "boris"])
    return tmp_path / "voice"
