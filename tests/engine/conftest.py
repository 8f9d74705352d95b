"""Small WaveNets, one with each switch on, and the engines that run them."""

import pytest
import torch

from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw, WaveNetConfig
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.models.wavenet import WaveNet

BANDS = 6
HOP = 20
SILENCE = -11.5

# name: head, kernel size, upsampling, look-ahead, speakers, order and lag of the
# linear prediction
VARIANTS = {
    "mu-law": (MuLaw(classes=64), 2, "linear", 2, 0, 0, 0),
    "mixture": (LogisticMixture(components=3), 3, "nearest", 0, 3, 0, 0),
    "gaussian": (Gaussian(), 2, "transposed", 2, 3, 0, 0),
    "mu-law-3-taps": (MuLaw(), 3, "transposed", 1, 0, 0, 0),
    "gaussian-3-taps": (Gaussian(), 3, "linear", 0, 0, 0, 0),
    "mixture-1-tap": (LogisticMixture(components=2), 1, "linear", 2, 0, 0, 0),
    "mixture-predicted": (LogisticMixture(components=2), 2, "linear", 2, 0, 16, 32),
    "gaussian-predicted": (Gaussian(), 3, "transposed", 1, 3, 1, 8),
    "gaussian-order-above-a-hop": (Gaussian(), 2, "nearest", 1, 0, 27, 0),
}


def settings_of(name: str, layers_per_cycle: int = 3) -> WaveNetConfig:
    head, kernel_size, upsampling, look_ahead, speakers, order, lag = VARIANTS[name]
    return WaveNetConfig(
        residual_channels=8,
        skip_channels=12,
        head_channels=16,
        kernel_size=kernel_size,
        cycles=2,
        layers_per_cycle=layers_per_cycle,
        head=head,
        condition=Condition(channels=10, look_ahead=look_ahead, upsampling=upsampling),
        speakers=speakers,
        speaker_channels=4,
        prediction_order=order,
        longest_lag=lag,
    )


def make_model(settings: WaveNetConfig) -> WaveNet:
    torch.manual_seed(1)
    model = WaveNet(settings, BANDS, HOP, SILENCE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        if model.condition.upsample is not None:
            weight = model.condition.upsample.conv.weight
            weight.add_(0.05 * torch.randn_like(weight))
    return model


@pytest.fixture(params=list(VARIANTS))
def model(request):
    return make_model(settings_of(request.param))


@pytest.fixture
def engine(model):
    return ReferenceEngine(pack_wavenet(model))


@pytest.fixture(scope="session")
def voice():
    """The engine of one WaveNet, for what does not depend on its switches."""
    return ReferenceEngine(pack_wavenet(make_model(settings_of("mu-law"))))


@pytest.fixture
def plain_model():
    """The model of `voice`, fresh."""
    return make_model(settings_of("mu-law"))


@pytest.fixture
def wide_model():
    """Dilations on both sides of a hop, and below half of it."""
    return make_model(settings_of("mu-law-3-taps", layers_per_cycle=6))


@pytest.fixture
def mel_of():
    def make(batch, frames, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, BANDS, frames, generator=generator) * 2 - 6

    return make


@pytest.fixture
def speaker_of():
    def make(engine, batch):
        speakers = engine.weights.settings.speakers
        return torch.arange(batch) % speakers if speakers else None

    return make
