"""Settings of the models: frozen dataclasses, checked once where they are made.

A `kind` field tells the members of a union apart in YAML and JSON; it is passed by name only, so
that `MuLaw(64)` has 64 classes. The recipe that composes these with a `MelSpec` and the trainer's
settings lives in `training/recipe.py`, because it needs rooms above this one.
"""

from wavewn.config.adversarial import AdversarialConfig
from wavewn.config.checks import check_at_least, check_finite
from wavewn.config.discriminators import DISCRIMINATORS, DiscriminatorsConfig
from wavewn.config.generators import (
    HiFiGANConfig,
    MelGANConfig,
    ParallelWaveGANConfig,
    SpectralConfig,
)
from wavewn.config.reading import (
    MODELS,
    GeneratorConfig,
    ModelConfig,
    model_config,
    wavenet_config,
)
from wavewn.config.wavenet import (
    Condition,
    Gaussian,
    LogisticMixture,
    MuLaw,
    SmoothedWaveNetConfig,
    WaveNetConfig,
)

__all__ = [
    "DISCRIMINATORS",
    "MODELS",
    "AdversarialConfig",
    "Condition",
    "DiscriminatorsConfig",
    "Gaussian",
    "GeneratorConfig",
    "HiFiGANConfig",
    "LogisticMixture",
    "MelGANConfig",
    "ModelConfig",
    "MuLaw",
    "ParallelWaveGANConfig",
    "SmoothedWaveNetConfig",
    "SpectralConfig",
    "WaveNetConfig",
    "check_at_least",
    "check_finite",
    "model_config",
    "wavenet_config",
]
