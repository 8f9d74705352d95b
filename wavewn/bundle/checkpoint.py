"""Training checkpoints, read as if they were bundles, and written to start a training from."""

import dataclasses
import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle.contents import (
    FORMAT,
    VERDICT,
    Bundle,
    check_config,
    check_format,
    make_model,
)
from wavewn.errors import BundleError, ConfigError
from wavewn.nn.weight_norm import convert_state_dict
from wavewn.torch_file import load_torch_file


def load_checkpoint(path: str | os.PathLike[str], weights: Literal["ema", "raw"] = "ema") -> Bundle:
    """Read a training checkpoint as if it were a bundle. Nothing in it is executed.

    Args:
        path: Written by `wavewn train`.
        weights: "ema" for the averaged weights, "raw" for those that the optimiser holds.

    Raises:
        BundleError: It is missing, broken, or not a checkpoint of wavewn.
    """
    path = Path(path)
    content = _read_pickle(path)
    ours = content.get("wavewn") if isinstance(content, Mapping) else None
    if not isinstance(ours, Mapping):
        raise BundleError(f"{path}: not a checkpoint of `wavewn train`; expected its .ckpt file")
    check_format(ours.get("format"), str(path))
    recipe = ours.get("recipe")
    if not isinstance(recipe, Mapping):
        raise BundleError(f"{path}: the checkpoint holds no recipe")
    state = ours.get("ema") if weights == "ema" else content.get("state_dict")
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise BundleError(f"{path}: the checkpoint holds no {weights} weights")
    if weights == "raw":
        state = {
            key.removeprefix("model."): value
            for key, value in state.items()
            if key.startswith("model.")
        }
    step = ours.get("step")
    mel = recipe.get("mel", {})
    if isinstance(mel, str):
        try:
            mel = MelSpec.preset(mel).to_dict()
        except ConfigError as error:
            raise BundleError(f"{path}: {error}") from None
    config: dict[str, Any] = {
        "format": FORMAT,
        "model": recipe.get("model"),
        "mel": mel,
        "speakers": ours.get("speakers"),
        "statistics": {},
        "licence": ours.get("licence", ""),
        "provenance": {"steps": step, "weights": weights},
        "verdict": dict(VERDICT),
        "levellings": 0,
    }
    settings, spec = check_config(config, str(path))
    try:
        plain = convert_state_dict(state, "plain")
    except (ConfigError, RuntimeError) as error:
        raise BundleError(f"{path}: {error}") from None
    plain = {key: value.float() for key, value in plain.items()}
    model = make_model(settings, spec, plain, str(path))
    config["model"], config["mel"] = dataclasses.asdict(settings), spec.to_dict()
    data = recipe.get("data")
    manifest = data.get("manifest") if isinstance(data, Mapping) else None
    named = manifest if isinstance(manifest, str) else ""
    return Bundle(model, spec, list(config["speakers"]), config, named)


def save_checkpoint(
    path: str | os.PathLike[str], bundle: Bundle, beside: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a checkpoint for `wavewn train --init_from`, whole or not at all.

    Args:
        path: Is replaced if it is there.
        bundle: The model.
        beside: State dicts of what else learned with it, by name, such as "discriminators".

    Raises:
        BundleError: It cannot be written.
    """
    path = Path(path)
    weights = {
        key: value.clone() for key, value in cast("nn.Module", bundle.model).state_dict().items()
    }
    others = {f"{name}.{key}": v for name, state in beside.items() for key, v in state.items()}
    content = {
        "state_dict": {f"model.{key}": value for key, value in weights.items()} | others,
        "wavewn": {
            "format": FORMAT,
            "recipe": {"model": bundle.config["model"], "mel": bundle.config["mel"]},
            "ema": weights,
            "speakers": list(bundle.speakers),
            "licence": bundle.config["licence"],
            "step": 0,
        },
    }
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{path}: the checkpoint cannot be written ({error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _read_pickle(path: Path) -> Any:
    if path.is_dir():
        raise BundleError(f"{path}: expected a checkpoint, a .ckpt file; this is a folder")
    if not path.is_file():
        raise BundleError(f"{path}: no such file; check the path")
    try:
        return load_torch_file(path)
    except pickle.UnpicklingError:
        raise BundleError(
            f"{path}: not a checkpoint of `wavewn train`, it is no torch file or holds more than "
            "tensors and plain values; pickled code is never run"
        ) from None
    except ValueError as error:
        raise BundleError(f"{path}: cannot be read as a checkpoint ({error})") from None
