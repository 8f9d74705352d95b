"""Settings of a training beside the model's: the optimiser, and what is generated meanwhile."""

from dataclasses import dataclass

from wavewn.config import check_at_least
from wavewn.errors import ConfigError


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with a warm-up and a cosine decay.

    Attributes:
        lr: Largest learning rate.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        weight_decay: Decoupled; reaches only plain weights, never gains, directions or biases.
        warmup_steps: Steps of linear growth at the start.
        decay_steps: Step at which the cosine ends; None takes trainer.max_steps.
        final: Share of `lr` that is left at the end.
        predictor_steps: Steps that a linear prediction is fitted alone, before the training; each
            costs a tenth of the training's.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: int = 200
    decay_steps: int | None = None
    final: float = 0.01
    predictor_steps: int = 1000

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"optimiser.lr must be above 0, got {self.lr}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimiser.{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"optimiser.final must lie in [0, 1], got {self.final}")
        check_at_least(self, 0, "weight_decay", "warmup_steps", "predictor_steps")
        if self.decay_steps is not None:
            check_at_least(self, 1, "decay_steps")


@dataclass(frozen=True)
class ClipsConfig:
    """Audio and spectrograms of generated speech in TensorBoard.

    Attributes:
        count: Validation utterances of which the beginning is generated.
        seconds: Length of each.
        every: Validations from one time to the next; 0 generates never. The reference engine
            needs minutes for two seconds on a CPU.
    """

    count: int = 2
    seconds: float = 2.0
    every: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 0, "count", "every")
        if self.seconds <= 0:
            raise ConfigError(f"clips.seconds must be above 0, got {self.seconds}")
