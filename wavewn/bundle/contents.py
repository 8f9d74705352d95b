"""What a bundle says and holds, and the checks that both agree."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle.precisions import CALIBRATION, Calibration, check_precisions
from wavewn.config import WaveNetConfig, wavenet_config
from wavewn.errors import BundleError, ConfigError
from wavewn.models.wavenet import WaveNet
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
}
MEMORY = 1 << 28  # numbers in the rings of a stream, 1 GiB; honest models have below a million
SILENCE_ATOL = 1e-3  # a float32 logarithm, taken once in the recipe and once here
VERDICT: Mapping[str, Mapping[str, Any]] = {"float32": {"usable": True}}


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

    model: WaveNet
    mel: MelSpec
    speakers: list[str]
    config: dict[str, Any]
    manifest: str = ""


def make_config(
    settings: WaveNetConfig,
    mel: MelSpec,
    speakers: Sequence[str],
    licence: str,
    provenance: Mapping[str, Any],
    verdict: Mapping[str, Mapping[str, Any]],
    calibration: Calibration | None,
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
    }


def check_format(found: Any, where: str) -> None:
    """Raise BundleError unless this wavewn reads a format of this number."""
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise BundleError(f"{where}: expected a format number from 1 on, got {found!r}")
    if found > FORMAT:
        raise BundleError(
            f"{where}: has format {found}, this wavewn reads up to {FORMAT}; upgrade wavewn"
        )


def check_config(config: Any, where: str) -> tuple[WaveNetConfig, MelSpec]:
    """Check every field of a config; return what it describes."""
    if not isinstance(config, dict):
        raise BundleError(f"{where}: expected an object, got {type(config).__name__}")
    check_format(config.get("format"), where)
    odd = sorted(set(FIELDS) ^ set(config))
    if odd:
        state = "is missing" if odd[0] in FIELDS else "is unknown"
        raise BundleError(f"{where}: the field {odd[0]!r} {state}")
    for name, kind in FIELDS.items():
        if not isinstance(config[name], kind):
            raise BundleError(f"{where}: {name} must be {kind.__name__}, got {config[name]!r:.60}")
    kind = config["model"].get("kind")
    if kind != "wavenet":
        raise BundleError(f"{where}: model.kind is {kind!r}, this wavewn knows 'wavenet'")
    try:
        settings, mel = wavenet_config(config["model"]), MelSpec.from_dict(config["mel"])
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from None
    except OverflowError:  # a whole number that no float holds
        raise BundleError(f"{where}: a number is beyond any machine") from None
    names = config["speakers"]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise BundleError(f"{where}: speakers must be different names, got {names!r:.60}")
    if len(names) != settings.speakers:
        raise BundleError(
            f"{where}: the model has {settings.speakers} speakers, {len(names)} are named"
        )
    check_precisions(config, settings, where)
    return settings, mel


def make_model(
    settings: WaveNetConfig, mel: MelSpec, state: dict[str, Tensor], where: str
) -> WaveNet:
    """Build the model that `settings` describe and give it the weights of `state`."""
    check_state(state, settings, mel, where)
    check_finite(state, where)
    model = WaveNet(settings, mel.n_mels, mel.hop_length, mel.log_floor)
    load_state(model, state)
    return model.eval().requires_grad_(False)


def check_state(
    state: Mapping[str, Tensor], settings: WaveNetConfig, mel: MelSpec, where: str
) -> None:
    """Check names and shapes against a model without memory, so that no config can claim it."""
    if settings.cycles * settings.layers_per_cycle > len(state):
        raise BundleError(f"{where}: has fewer tensors than the model has layers")
    rows = (settings.kernel_size - 1) * sum(settings.dilations) + settings.longest_lag
    if rows * settings.residual_channels > MEMORY:
        raise BundleError(f"{where}: the model's sizes are beyond any machine: {rows} past samples")
    try:
        with torch.device("meta"):
            probe = WaveNet(settings, mel.n_mels, mel.hop_length, mel.log_floor)
    except (TypeError, RuntimeError):  # torch's two ways to say that a size overflows
        raise BundleError(f"{where}: the model's sizes are beyond any machine") from None
    expected = {key: value.shape for key, value in probe.state_dict().items()}
    if expected != {key: value.shape for key, value in state.items()}:
        try:
            load_state(probe, state)
        except ConfigError as error:
            raise BundleError(f"{where}: {error}") from None
    silence = float(state["mel_silence"])
    if not abs(silence - mel.log_floor) < SILENCE_ATOL:
        raise BundleError(
            f"{where}: the model takes {silence:.4f} for silence, its mels have {mel.log_floor:.4f}"
        )


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise BundleError when a weight is NaN or infinite."""
    bad = [key for key, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise BundleError(f"{where}: {bad[0]!r} holds NaN or infinite weights")
