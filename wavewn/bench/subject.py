"""What is measured: WaveNets of known shapes with random weights, or a user's own.

The shapes are those by which the fast WaveNets of others are quoted (nv-wavenet's sizes); the
network between mel and stack is ours. Weights do not change the speed, so that they may be random.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wavewn.bench.bound import measure_bound, missing, weight_bytes
from wavewn.bundle import Calibration, calibration_of
from wavewn.config import Condition, WaveNetConfig
from wavewn.engine.verdict import Piece, calibrate
from wavewn.engine.weights import WaveNetWeights, pack_wavenet
from wavewn.errors import ConfigError
from wavewn.models.smoothed_wavenet import SmoothedWaveNet
from wavewn.models.wavenet import WaveNet
from wavewn.vocoder import Vocoder

# All have dilations from 1, kernel size 2, 256 mu-law classes, 80 mel bands, 200 samples a frame.
SHAPES = {
    "S": WaveNetConfig(
        residual_channels=32, skip_channels=64, head_channels=64, cycles=2, layers_per_cycle=8
    ),
    "M": WaveNetConfig(
        residual_channels=64, skip_channels=256, head_channels=256, cycles=2, layers_per_cycle=10
    ),
    "L": WaveNetConfig(
        residual_channels=128, skip_channels=256, head_channels=256, cycles=3, layers_per_cycle=10
    ),
}
BANDS = 80
HOP_LENGTH = 200
SAMPLE_RATE = 16_000
SILENCE = -11.5  # nats
MOST_FRAMES = 20_000  # of a run: their mels must fit the memory
CALIBRATION_FRAMES = 4  # weights that are random need no more


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        shape: S, M or L, or where the user's model lies.
        weights: What the engines run.
        sample_rate: In Hz.
        fixed: Whether it is one of `SHAPES`, which are quoted at 24 kHz, too.
        calibration: What int8 needs, or None.
        fewest_frames: Of a run.
    """

    shape: str
    weights: WaveNetWeights
    sample_rate: int
    fixed: bool
    calibration: Calibration | None
    fewest_frames: int = 1

    @property
    def upsampling(self) -> str:
        """How frames become samples."""
        return self.weights.settings.condition.upsampling

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.weights.hop_length

    @property
    def most_frames(self) -> int:
        """Of a run."""
        return MOST_FRAMES

    def bound(self, precision: str, threads: int, streams: int) -> float | None:
        """See `race.Course.bound`."""
        if missing():
            return None
        return measure_bound(weight_bytes(self.weights, precision), threads, streams)

    def mel(self, streams: int, frames: int) -> Tensor:
        """Make up [streams, bands, frames], from silence to 8 nats above it."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(streams, self.weights.n_mels, frames, generator=generator)
        return self.weights.mel_silence + 8 * noise

    def speaker(self, streams: int) -> Tensor | None:
        """Choose a speaker for each stream, where the model knows any."""
        speakers = self.weights.settings.speakers
        return torch.arange(streams) % speakers if speakers else None


def make_subject(
    shape: str, upsampling: Literal["nearest", "linear", "transposed"] = "linear"
) -> Subject:
    """Make one of `SHAPES` with random weights.

    Raises:
        ConfigError: No such shape.
    """
    if shape not in SHAPES:
        raise ConfigError(f"no shape {shape!r}; choose from {', '.join(SHAPES)}")
    settings = dataclasses.replace(SHAPES[shape], condition=Condition(upsampling=upsampling))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WaveNet(settings, BANDS, HOP_LENGTH, SILENCE)
        frames = CALIBRATION_FRAMES
        audio = 2 * torch.rand(1, frames * HOP_LENGTH) - 1
        mel = SILENCE + 8 * torch.rand(1, BANDS, frames + settings.condition.look_ahead)
    calibration = calibrate(model, [Piece(audio, mel)])
    return Subject(shape, pack_wavenet(model), SAMPLE_RATE, True, calibration)


def subject_of(vocoder: Vocoder, name: str) -> Subject:
    """Measure a user's own model, with its own mels.

    Raises:
        ConfigError: It is no WaveNet.
    """
    model = vocoder.model
    if isinstance(model, SmoothedWaveNet):  # without its condition network: some hundredths
        model = model.network
    if not isinstance(model, WaveNet):
        raise ConfigError(f"{name} is no WaveNet, but {model.settings.kind}; name another")
    calibration = calibration_of(vocoder.config)
    return Subject(name, pack_wavenet(model), vocoder.sample_rate, False, calibration)
