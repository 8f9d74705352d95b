"""How often the audio of a bundle's model is levelled to its mel (nn/levelling.py)."""

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import ModelConfig, SpectralConfig
from wavewn.errors import BundleError, ConfigError
from wavewn.models.generators import Generator
from wavewn.models.levelled import Levels
from wavewn.models.spectral import Spectral
from wavewn.models.wavenet import WaveNet
from wavewn.nn.levelling import check_levelling

if TYPE_CHECKING:
    from wavewn.bundle.contents import Bundle


def check_levellings(count: Any, settings: ModelConfig, mel: MelSpec, where: str) -> None:
    """Raise BundleError unless a bundle of such a model may say this number."""
    try:
        check_levelling(mel, count)
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from None
    if count and isinstance(settings, SpectralConfig):
        raise BundleError(
            f"{where}: levellings must be 0 for a spectral model, which levels its audio by "
            f"itself, got {count}; its model.levellings is the place"
        )


def levelled(
    bundle: "Bundle", wanted: int | None = None
) -> tuple[WaveNet | Generator, Levels | None]:
    """Give a bundle's model, and what levels its audio beside it.

    Args:
        bundle: It is not changed.
        wanted: How often; None is what the bundle says. A spectral model levels by itself: it is
            given with other settings, and the same weights.

    Raises:
        ConfigError: Audio cannot be levelled so often, or not to such mels.
    """
    model = bundle.model
    count = bundle.levellings if wanted is None else wanted
    check_levelling(bundle.mel, count)
    if not isinstance(model, Spectral):
        return model, Levels(bundle.mel, count) if count else None
    if wanted is not None:
        model = copy.copy(model)
        model.settings = replace(model.settings, levellings=wanted)
    return model, None
