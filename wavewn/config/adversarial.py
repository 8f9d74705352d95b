"""Settings of the game between a one-pass generator and its discriminators."""

from dataclasses import dataclass, field
from typing import Literal

from wavewn.config.checks import check_at_least, check_finite
from wavewn.config.discriminators import DiscriminatorsConfig
from wavewn.errors import ConfigError

MEL_LOSSES = ("single", "multi-scale", "multi-scale-light")


@dataclass(frozen=True)
class AdversarialConfig:
    """What a generator is pulled by, and how its discriminators learn. The defaults are HiFi-GAN's.

    Attributes:
        discriminators: Which there are, and how wide.
        loss: What is wanted of their scores.
        adversarial_weight: Of the scores in the generator's loss.
        feature_weight: Of feature matching.
        mel_weight: Of the distance between mels.
        mel_loss: Which mels: "single" are the recipe's, but up to half the sample rate; the others
            have windows of several lengths (`wavewn.losses.MEL_SCALES`).
        stft_weight: Of the multi-resolution STFT loss.
        warmup_steps: Steps in which the generator learns alone; the discriminators come after.
        lr: Largest learning rate of the discriminators; None takes optimiser.lr.
        gradient_clip_val: Largest norm of the discriminators' gradient; None takes
            trainer.gradient_clip_val, which is the generator's, and 0 clips nothing.
        context: Mel frames beside a crop, on either side, that the generator hears and that are not
            scored; 0, as published, pads at the ends of a crop as at those of an utterance.
    """

    discriminators: DiscriminatorsConfig = field(default_factory=DiscriminatorsConfig)
    loss: Literal["least-squares", "hinge"] = "least-squares"
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    mel_weight: float = 45.0
    mel_loss: Literal["single", "multi-scale", "multi-scale-light"] = "single"
    stft_weight: float = 0.0
    warmup_steps: int = 0
    lr: float | None = None
    gradient_clip_val: float | None = None
    context: int = 0

    def __post_init__(self) -> None:
        weights = ("adversarial_weight", "feature_weight", "mel_weight", "stft_weight")
        check_finite(self, *weights)
        check_at_least(self, 0, *weights, "warmup_steps", "context")
        if self.loss not in ("least-squares", "hinge"):
            raise ConfigError(f"adversarial.loss must be least-squares or hinge, got {self.loss!r}")
        if self.mel_loss not in MEL_LOSSES:
            raise ConfigError(
                f"adversarial.mel_loss must be one of {', '.join(MEL_LOSSES)}, got "
                f"{self.mel_loss!r}"
            )
        if not self.mel_weight + self.stft_weight and self.warmup_steps:
            raise ConfigError(
                f"adversarial.warmup_steps is {self.warmup_steps}, but without discriminators a "
                "generator learns from mel_weight or stft_weight alone, and both are 0"
            )
        if not self.mel_weight + self.stft_weight + self.adversarial_weight:
            raise ConfigError("adversarial: all weights are 0; give the generator a loss")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"adversarial.lr must be above 0, got {self.lr}")
        if self.gradient_clip_val is not None:
            check_finite(self, "gradient_clip_val")
            check_at_least(self, 0, "gradient_clip_val")
