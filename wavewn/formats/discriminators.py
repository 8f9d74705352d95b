"""HiFi-GAN's discriminators, whose keys are ours but for their norms.

Their file spells weight norm and spectral norm by torch's old hooks. Ours, in a training
checkpoint, are parametrizations.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wavewn.errors import ConfigError, FormatError
from wavewn.formats.plain import state_at
from wavewn.nn.weight_norm import convert_state_dict

SPECTRAL = {  # torch's old hook: what its parametrization calls it
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}


def read_discriminators(content: Any, path: Path) -> dict[str, Tensor]:
    """Take `mpd` and `msd` of a checkpoint, in torch's new spelling.

    Args:
        content: {"mpd": state dict, "msd": state dict}.
        path: For messages.

    Raises:
        FormatError: One is missing, or a norm lacks a part.
    """
    found = {}
    for name in ("mpd", "msd"):
        for key, value in respelled(state_at(content, path, (name,)), path).items():
            found[f"{name}.{key}"] = value
    return found


def respelled(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Spell both norms as parametrizations."""
    spectral = {key.rpartition(".")[0] for key in state if key.endswith(".weight_orig")}
    ours, others = {}, {}
    for key, value in state.items():
        layer, _, end = key.rpartition(".")
        if layer in spectral and end in SPECTRAL:
            ours[f"{layer}.{SPECTRAL[end]}"] = value.float()
        else:
            others[key] = value.float()
    try:
        return ours | convert_state_dict(others, "parametrized")
    except (ConfigError, RuntimeError) as error:
        raise FormatError(f"{path}: {error}") from None
