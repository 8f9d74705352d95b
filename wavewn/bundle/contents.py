"""What a bundle says and holds, and the checks that both agree."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle.levelling import check_levellings
from wavewn.bundle.precisions import CALIBRATION, Calibration, check_precisions
from wavewn.config import (
    HiFiGANConfig,
    MelGANConfig,
    ModelConfig,
    ParallelWaveGANConfig,
    SmoothedWaveNetConfig,
    SpectralConfig,
    WaveNetConfig,
    model_config,
)
from wavewn.errors import BundleError, ConfigError
from wavewn.models.generators import Generator, make_generator
from wavewn.models.wavenet import WaveNet
from wavewn.nn.padded import PaddedConv1d
from wavewn.nn.weight_norm import load_state

FORMAT = 1
FIELDS: dict[str, type] = {
    "format": int,
    "model": dict,
    "mel": dict,
    "speakers": list,
    "statistics": dict,
    "licence": str,
    "provenance": dict,
    "verdict": dict,
    "levellings": int,
}
ABSENT: Mapping[str, Any] = {"levellings": 0}  # what older bundles mean that do not say it
MEMORY = 1 << 28  # numbers that a stream remembers, 1 GiB; honest models have below a million
CONSTANTS = 64  # an honest spectral model has fewer than a million bands times bins
SILENCE_ATOL = 1e-3  # a float32 logarithm, taken once in the recipe and once here
VERDICT: Mapping[str, Mapping[str, Any]] = {"float32": {"usable": True}}

Model = WaveNet | Generator


@dataclass(frozen=True)
class Bundle:
    """A model with everything that is needed to use it.

    Attributes:
        model: Plain (weight norm folded), float32, on the CPU, in eval mode.
        mel: The mels that it reads.
        speakers: Names in the order of its embedding; empty where it knows none.
        config: The checked content of config.json.
        manifest: Folder of the corpus as the training's recipe named it; "" where nobody knows.
    """

    model: Model
    mel: MelSpec
    speakers: list[str]
    config: dict[str, Any]
    manifest: str = ""

    @property
    def levellings(self) -> int:
        """How often its audio is levelled to its mel, beside what the model does by itself."""
        stated: int = self.config.get("levellings", ABSENT["levellings"])
        return stated


def make_config(
    settings: ModelConfig,
    mel: MelSpec,
    speakers: Sequence[str],
    licence: str,
    provenance: Mapping[str, Any],
    verdict: Mapping[str, Mapping[str, Any]],
    calibration: Calibration | None,
    levellings: int = 0,
) -> dict[str, Any]:
    """Make the content of config.json."""
    return {
        "format": FORMAT,
        "model": dataclasses.asdict(settings),
        "mel": mel.to_dict(),
        "speakers": list(speakers),
        "statistics": {} if calibration is None else {CALIBRATION: calibration.to_dict()},
        "licence": licence,
        "provenance": dict(provenance),
        "verdict": {name: dict(one) for name, one in verdict.items()},
        "levellings": levellings,
    }


def check_format(found: Any, where: str) -> None:
    """Raise BundleError unless this wavewn reads a format of this number."""
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise BundleError(f"{where}: expected a format number from 1 on, got {found!r}")
    if found > FORMAT:
        raise BundleError(
            f"{where}: has format {found}, this wavewn reads up to {FORMAT}; upgrade wavewn"
        )


def check_config(config: Any, where: str) -> tuple[ModelConfig, MelSpec]:
    """Check every field of a config; return what it describes."""
    if not isinstance(config, dict):
        raise BundleError(f"{where}: expected an object, got {type(config).__name__}")
    check_format(config.get("format"), where)
    config = {**ABSENT, **config}
    odd = sorted(set(FIELDS) ^ set(config))
    if odd:
        state = "is missing" if odd[0] in FIELDS else "is unknown"
        raise BundleError(f"{where}: the field {odd[0]!r} {state}")
    for name, kind in FIELDS.items():
        if not isinstance(config[name], kind):
            raise BundleError(f"{where}: {name} must be {kind.__name__}, got {config[name]!r:.60}")
    try:
        settings, mel = model_config(config["model"]), MelSpec.from_dict(config["mel"])
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from None
    except (OverflowError, ValueError):  # a whole number that no float holds, or no text
        raise BundleError(f"{where}: a number is beyond any machine") from None
    names = config["speakers"]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise BundleError(f"{where}: speakers must be different names, got {names!r:.60}")
    speaking = settings.network if isinstance(settings, SmoothedWaveNetConfig) else settings
    known = speaking.speakers if isinstance(speaking, WaveNetConfig) else 0
    if len(names) != known:
        raise BundleError(f"{where}: the model has {known} speakers, {len(names)} are named")
    check_precisions(config, settings, where)
    check_levellings(config["levellings"], settings, mel, where)
    if config["levellings"]:  # whose constants have memory
        _check_memory(CONSTANTS * mel.n_mels * max(mel.n_fft, mel.win_length), where)
    return settings, mel


def make_model(
    settings: ModelConfig, mel: MelSpec, state: Mapping[str, Tensor], where: str
) -> Model:
    """Build the model that `settings` describe and give it the weights of `state`."""
    check_state(state, settings, mel, where)
    check_finite(state, where)
    return with_weights(fresh_model(settings, mel), state)


def fresh_model(settings: ModelConfig, mel: MelSpec) -> Model:
    """Build a model of any kind, plain and with random weights.

    Raises:
        ConfigError: It does not go with the mel.
    """
    if isinstance(settings, WaveNetConfig):
        return WaveNet(settings, mel.n_mels, mel.hop_length, mel.log_floor)
    return make_generator(settings, mel)


def with_weights(model: Model, state: Mapping[str, Tensor]) -> Model:
    """Give a fresh model its weights, for use and not for training."""
    load_state(cast("nn.Module", model), state)
    return model.eval().requires_grad_(False)


def check_state(
    state: Mapping[str, Tensor], settings: ModelConfig, mel: MelSpec, where: str
) -> None:
    """Check names and shapes against a model without memory, so that no config can claim it."""
    if _least_layers(settings) > len(state):
        raise BundleError(f"{where}: has fewer tensors than the model has layers")
    if isinstance(settings, SmoothedWaveNetConfig):
        rows = (settings.network.kernel_size - 1) * sum(settings.dilations)
        _check_memory(rows * settings.network.residual_channels, where)
    if isinstance(settings, WaveNetConfig):
        rows = (settings.kernel_size - 1) * sum(settings.dilations) + settings.longest_lag
        _check_memory(rows * settings.residual_channels, where)
    if isinstance(settings, SpectralConfig):  # whose constants have memory
        _check_memory(CONSTANTS * mel.n_mels * max(settings.n_fft, mel.win_length), where)
    try:
        with torch.device("meta"):
            probe = cast("nn.Module", fresh_model(settings, mel))
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from None
    except (TypeError, RuntimeError):  # torch's two ways to say that a size overflows
        raise BundleError(f"{where}: the model's sizes are beyond any machine") from None
    heard = (part for part in probe.modules() if isinstance(part, PaddedConv1d))
    _check_memory(sum((part.left + part.right) * part.in_channels for part in heard), where)
    expected = {key: value.shape for key, value in probe.state_dict().items()}
    if expected != {key: value.shape for key, value in state.items()}:
        try:
            load_state(probe, state)
        except ConfigError as error:
            raise BundleError(f"{where}: {error}") from None
    silence = float(state.get("mel_silence", mel.log_floor))
    if not abs(silence - mel.log_floor) < SILENCE_ATOL:
        raise BundleError(
            f"{where}: the model takes {silence:.4f} for silence, its mels have {mel.log_floor:.4f}"
        )


def _least_layers(settings: ModelConfig) -> int:
    """Count layers that must be there, without making any: each has at least one tensor."""
    if isinstance(settings, WaveNetConfig):
        return settings.cycles * settings.layers_per_cycle
    if isinstance(settings, SmoothedWaveNetConfig):
        return settings.network.cycles * settings.network.layers_per_cycle
    if isinstance(settings, HiFiGANConfig):
        each = sum(len(dilations) for dilations in settings.resblock_dilations)
        return len(settings.upsample_rates) * (1 + each)
    if isinstance(settings, MelGANConfig):
        return len(settings.upsample_rates) * (1 + settings.stacks)
    if isinstance(settings, ParallelWaveGANConfig):
        return settings.cycles * settings.layers_per_cycle + len(settings.upsample_rates)
    return len(settings.dilations)


def _check_memory(numbers: int, where: str) -> None:
    if numbers > MEMORY:
        raise BundleError(
            f"{where}: the model's sizes are beyond any machine: a stream would have to remember "
            f"more than {MEMORY:,} numbers"
        )


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise BundleError when a weight is NaN or infinite."""
    bad = [key for key, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise BundleError(f"{where}: {bad[0]!r} holds NaN or infinite weights")
