"""Settings of WaveNet."""

import math
from dataclasses import dataclass, field
from typing import Literal

from wavewn.config.checks import check_at_least, check_finite
from wavewn.errors import ConfigError


@dataclass(frozen=True)
class MuLaw:
    """Softmax over mu-law classes.

    Attributes:
        classes: Number of classes; mu is one less.
    """

    kind: Literal["mu-law"] = field(default="mu-law", kw_only=True)
    classes: int = 256

    def __post_init__(self) -> None:
        check_at_least(self, 2, "classes")


@dataclass(frozen=True)
class LogisticMixture:
    """Mixture of logistics over samples quantised to 16 bits.

    Attributes:
        components: Logistics in the mixture.
        log_scale_min: Lower bound of the logarithm of a scale.
    """

    kind: Literal["logistic-mixture"] = field(default="logistic-mixture", kw_only=True)
    components: int = 10
    log_scale_min: float = -12.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "components")
        check_finite(self, "log_scale_min")


@dataclass(frozen=True)
class Gaussian:
    """One Gaussian per sample.

    Attributes:
        log_scale_min: Lower bound of the logarithm of the standard deviation.
    """

    kind: Literal["gaussian"] = field(default="gaussian", kw_only=True)
    log_scale_min: float = -9.0

    def __post_init__(self) -> None:
        check_finite(self, "log_scale_min")


@dataclass(frozen=True)
class Condition:
    """The network between mel frames and the stack.

    Attributes:
        channels: Width at frame rate.
        layers: Convolutions at frame rate, at least 1.
        kernel_size: Taps of each, at least 1.
        look_ahead: Mel frames after the current one that a frame's output sees; at most
            `layers * (kernel_size - 1)`. 0 makes the vocoder causal.
        upsampling: How frames become samples. "nearest" and "linear" commute with the 1x1
            projections into the layers; "transposed" is learned.
    """

    channels: int = 64
    layers: int = 2
    kernel_size: int = 3
    look_ahead: int = 2
    upsampling: Literal["nearest", "linear", "transposed"] = "linear"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "channels", "layers", "kernel_size")
        check_at_least(self, 0, "look_ahead")
        if self.upsampling not in ("nearest", "linear", "transposed"):
            raise ConfigError(
                f"Condition.upsampling must be nearest, linear or transposed, got "
                f"{self.upsampling!r}"
            )
        if self.lead < 1:
            raise ConfigError(
                f"Condition.look_ahead is {self.look_ahead} frames, but {self.layers} layers of "
                f"{self.kernel_size} taps span only {self.layers * (self.kernel_size - 1)}; add "
                f"layers or taps"
            )

    @property
    def lead(self) -> int:
        """Frames before a crop that its first frame and the one before it see; at least 1."""
        return self.layers * (self.kernel_size - 1) - self.look_ahead + 1


@dataclass(frozen=True)
class WaveNetConfig:
    """A WaveNet: gated dilated causal stack, conditioning, head.

    Attributes:
        residual_channels: Width of the residual stream (R).
        skip_channels: Width of the summed skip outputs (S).
        head_channels: Width of the hidden layer between skips and head (A).
        kernel_size: Taps of each dilated convolution.
        cycles: How often the dilations 1, 2, 4, ... repeat.
        layers_per_cycle: Layers in a cycle; the last dilates by 2 ** (layers_per_cycle - 1).
        head: The distribution of a sample.
        condition: The mel network.
        pre_emphasis: Coefficient of the filter 1 - a / z in whose domain samples are modelled;
            the inverse runs on the output. 0 turns it off.
        prediction_order: Order of the linear prediction from the mel (nn/linear_prediction.py)
            whose residual the network models; 0 turns it off. Not for the mu-law head, whose
            classes cannot be moved.
        longest_lag: Samples that a pitch period may last at most, for the long-term prediction of
            that residual; the shortest is an eighth of it. 0 turns it off.
        speakers: Rows of the speaker embedding; 0 means one unnamed speaker.
        speaker_channels: Width of the speaker embedding.
    """

    kind: Literal["wavenet"] = field(default="wavenet", kw_only=True)
    residual_channels: int = 32
    skip_channels: int = 64
    head_channels: int = 128
    kernel_size: int = 2
    cycles: int = 2
    layers_per_cycle: int = 9
    head: MuLaw | LogisticMixture | Gaussian = field(default_factory=MuLaw)
    condition: Condition = field(default_factory=Condition)
    pre_emphasis: float = 0.85
    prediction_order: int = 0
    longest_lag: int = 0
    speakers: int = 0
    speaker_channels: int = 16

    def __post_init__(self) -> None:
        names = ("residual_channels", "skip_channels", "head_channels", "kernel_size", "cycles")
        check_at_least(self, 1, *names, "layers_per_cycle", "speaker_channels")
        check_at_least(self, 0, "speakers", "prediction_order", "longest_lag")
        if self.longest_lag and not (self.prediction_order and self.longest_lag >= 8):
            raise ConfigError(
                f"WaveNetConfig.longest_lag is {self.longest_lag}: expected at least 8 samples, "
                "with a prediction_order above 0 whose residual is predicted; or 0 for none"
            )
        if self.prediction_order and isinstance(self.head, MuLaw):
            raise ConfigError(
                f"WaveNetConfig.prediction_order is {self.prediction_order}, but the classes of a "
                "mu-law head cannot be moved by a prediction; set it to 0, or take the "
                "logistic-mixture or gaussian head"
            )
        if not 0 <= self.pre_emphasis < 1:
            raise ConfigError(
                f"WaveNetConfig.pre_emphasis must lie in [0, 1), got {self.pre_emphasis}"
            )

    @property
    def dilations(self) -> tuple[int, ...]:
        """Distance between two taps of each layer, in samples."""
        return tuple(2**i for i in range(self.layers_per_cycle)) * self.cycles


@dataclass(frozen=True)
class SmoothedWaveNetConfig:
    """A WaveNet whose samples hear mels that a network stretched (models/smoothed_wavenet.py).

    Attributes:
        network: Sizes, head, pre-emphasis; its frames are samples, which it hears as they are.
        condition_context: Mel frames that the first convolution sees on either side.
        upsample_rates: Their product is the hop length of the mel.
        band_taps: Bands that each step of the stretching mixes, an odd number: it then rectifies
            and knows no context. 0: rows are repeated, and smoothed over time.
    """

    network: WaveNetConfig
    kind: Literal["smoothed-wavenet"] = field(default="smoothed-wavenet", kw_only=True)
    condition_context: int = 2
    upsample_rates: tuple[int, ...] = (4, 4, 4, 4)
    band_taps: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 0, "condition_context", "band_taps")
        if self.band_taps and (self.condition_context or not self.band_taps % 2):
            raise ConfigError(
                f"SmoothedWaveNetConfig.band_taps is {self.band_taps}: expected 0, or an odd "
                "number and a condition_context of 0"
            )
        if not self.upsample_rates or min(self.upsample_rates) < 1:
            raise ConfigError(
                "SmoothedWaveNetConfig.upsample_rates must be whole numbers from 1 on, got "
                f"{self.upsample_rates}"
            )
        condition, network = self.network.condition, self.network
        if condition.look_ahead or network.prediction_order:
            raise ConfigError(
                "SmoothedWaveNetConfig.network must look ahead by no frame and predict nothing: "
                "its frames are samples"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.upsample_rates)

    @property
    def dilations(self) -> tuple[int, ...]:
        """Distance between two taps of each layer, in samples."""
        return self.network.dilations
