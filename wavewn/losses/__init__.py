"""What a one-pass vocoder is trained to make small: adversarial and spectral losses.

All compute in float32, whatever autocast does to the networks around them.
"""

from wavewn.losses.adversarial import (
    AdversarialKind,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from wavewn.losses.spectral import (
    MEL_SCALES,
    STFT_RESOLUTIONS,
    MelLoss,
    MultiResolutionStftLoss,
    MultiScaleMelLoss,
)

__all__ = [
    "MEL_SCALES",
    "STFT_RESOLUTIONS",
    "AdversarialKind",
    "MelLoss",
    "MultiResolutionStftLoss",
    "MultiScaleMelLoss",
    "discriminator_loss",
    "feature_matching_loss",
    "generator_loss",
]
