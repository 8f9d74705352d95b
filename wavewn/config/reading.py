"""From plain values, as JSON and `dataclasses.asdict` give them, to checked settings."""

import dataclasses
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from wavewn.config.generators import (
    HiFiGANConfig,
    MelGANConfig,
    ParallelWaveGANConfig,
    SpectralConfig,
)
from wavewn.config.wavenet import SmoothedWaveNetConfig, WaveNetConfig
from wavewn.errors import ConfigError

GeneratorConfig = (
    HiFiGANConfig | MelGANConfig | ParallelWaveGANConfig | SpectralConfig | SmoothedWaveNetConfig
)
ModelConfig = WaveNetConfig | GeneratorConfig
MODELS: dict[str, type] = {  # that are trained
    "wavenet": WaveNetConfig,
    "hifigan": HiFiGANConfig,
    "melgan": MelGANConfig,
    "parallel-wavegan": ParallelWaveGANConfig,
    "spectral": SpectralConfig,
}
RUNNABLE = MODELS | {"smoothed-wavenet": SmoothedWaveNetConfig}  # read from other programs


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read the settings of a model of any kind; its `kind` says which.

    What is missing takes its default.

    Raises:
        ConfigError: The kind or a key is unknown, or a value is of the wrong type or impossible.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in RUNNABLE:
        raise ConfigError(f"model.kind must be one of {', '.join(RUNNABLE)}, got {kind!r}")
    return _read_settings(RUNNABLE[kind], values, "model")  # type: ignore[no-any-return]


def wavenet_config(values: Mapping[str, Any]) -> WaveNetConfig:
    """Read a WaveNet's settings from plain values, as JSON and `dataclasses.asdict` give them.

    What is missing takes its default.

    Raises:
        ConfigError: A key is unknown, or a value is of the wrong type or impossible.
    """
    return _read_settings(WaveNetConfig, values, "model")  # type: ignore[no-any-return]


def _read_settings(owner: type, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a group of settings, got {values!r}")
    hints = get_type_hints(owner)
    unknown = sorted(str(key) for key in values if key not in hints)
    if unknown:
        raise ConfigError(
            f"{where} has no setting {', '.join(map(repr, unknown))}; "
            f"its settings are {', '.join(sorted(hints))}"
        )
    settings = {
        key: _read_value(hints[key], value, f"{where}.{key}") for key, value in values.items()
    }
    return owner(**settings)


def _read_value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where} must be one of {list(get_args(hint))}, got {value!r}")
        return value
    if get_origin(hint) in (Union, UnionType):
        kinds = {get_args(get_type_hints(one)["kind"])[0]: one for one in get_args(hint)}
        kind = value.get("kind") if isinstance(value, Mapping) else value
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(f"{where}.kind must be one of {', '.join(kinds)}, got {kind!r}")
        hint = kinds[kind]
    if dataclasses.is_dataclass(hint):
        return _read_settings(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        one = get_args(hint)[0]
        return tuple(_read_value(one, item, f"{where}[{i}]") for i, item in enumerate(value))
    if hint is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{where} must be true or false, got {value!r}")
        return value
    allowed = (int, float) if hint is float else (hint,)
    right = isinstance(value, allowed) and not isinstance(value, bool)
    if not right or not math.isfinite(value):
        raise ConfigError(f"{where} must be {hint.__name__}, finite; got {value!r}")
    return float(value) if hint is float else value
