"""The folder of a bundle: written whole, read from end to end."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle.card import MADE_CARD, model_card
from wavewn.bundle.contents import (
    VERDICT,
    Bundle,
    Model,
    check_config,
    check_finite,
    check_state,
    make_config,
    make_model,
)
from wavewn.bundle.precisions import Calibration
from wavewn.errors import BundleError
from wavewn.nn.weight_norm import folded_state_dict

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONFIG_BYTES = 1 << 20  # no honest config.json is longer
STORED = {"float16": torch.float16, "float32": torch.float32}


def save_bundle(
    folder: str | os.PathLike[str],
    model: Model,
    mel: MelSpec,
    *,
    speakers: Sequence[str] = (),
    licence: str = "",
    provenance: Mapping[str, Any] | None = None,
    verdict: Mapping[str, Mapping[str, Any]] = VERDICT,
    calibration: Calibration | None = None,
    levellings: int = 0,
    dtype: Literal["float16", "float32"] = "float32",
    force: bool = False,
) -> None:
    """Write a model as a bundle, whole or not at all.

    Args:
        folder: Is made. With `force` a bundle that lies there is replaced; its other files, and
            a model card that somebody wrote by hand, are kept.
        model: With or without weight norm; it is not changed.
        mel: The mels that it reads.
        speakers: As many names as the model has speakers.
        licence: Under which the weights may be used.
        provenance: How the model came to be; values that JSON holds. The card shows them.
        verdict: On each precision that was measured.
        calibration: What int8 needs; without it int8 must not be called usable.
        levellings: How often the audio is levelled to its mel (nn/levelling.py).
        dtype: Storage of the matrices.
        force: Replace a bundle that is already there.

    Raises:
        BundleError: Something lies there already, the model does not go with `mel`, `speakers` or
            `levellings`, a weight is not finite, or the folder cannot be written.
    """
    folder = Path(folder)
    check_target(folder, force)
    if dtype not in STORED:
        raise BundleError(f"dtype must be one of {', '.join(STORED)}, got {dtype!r}")
    config = make_config(
        model.settings,
        mel,
        speakers,
        licence,
        provenance or {},
        verdict,
        calibration,
        levellings,
    )
    check_config(config, str(folder))
    state = folded_state_dict(cast("nn.Module", model))
    check_state(state, model.settings, mel, str(folder))
    stored = {
        key: value.to(STORED[dtype] if value.dim() > 1 else torch.float32).contiguous()
        for key, value in state.items()
    }
    check_finite(stored, f"{folder}: as {dtype}")
    place = folder.resolve()  # behind a link, and with a name even for "."
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        (partial / CONFIG).write_text(_json(config), encoding="utf-8")
        (partial / WEIGHTS).write_bytes(save(stored))
        (partial / CARD).write_text(model_card(place.name, config), encoding="utf-8")
        _replace(place, partial, force)
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise BundleError(f"{folder}: the bundle cannot be written ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check it from end to end.

    Raises:
        BundleError: It is missing, truncated, newer than this wavewn, or contradicts itself.
    """
    path = Path(path)
    config_path = path / CONFIG
    if not config_path.exists() and (path / "checkpoints").is_dir():
        raise BundleError(
            f"{path}: this is the folder of a training, not a bundle; name one of its checkpoints, "
            f"such as {path / 'checkpoints' / 'best.ckpt'}, or make a bundle of it with "
            "`wavewn export`"
        )
    try:
        with config_path.open("rb") as file:
            text = file.read(CONFIG_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: expected a bundle, a folder with {CONFIG} and {WEIGHTS} "
            f"({error.strerror}); check the path"
        ) from None
    if len(text) > CONFIG_BYTES:
        raise BundleError(f"{config_path}: longer than {CONFIG_BYTES} bytes, not a bundle's")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{config_path}: not JSON ({error}); it may be truncated, copy the bundle again"
        ) from None
    settings, mel = check_config(config, str(config_path))
    try:
        stored = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path / WEIGHTS}: cannot be read ({error}); it may be truncated, copy the bundle "
            "again"
        ) from None
    odd = [key for key, value in stored.items() if not value.is_floating_point()]
    if odd:
        raise BundleError(f"{path / WEIGHTS}: {odd[0]!r} is {stored[odd[0]].dtype}, not a float")
    state = {key: value.float() for key, value in stored.items()}
    model = make_model(settings, mel, state, str(path / WEIGHTS))
    return Bundle(model, mel, list(config["speakers"]), config)


def check_target(folder: Path, force: bool) -> None:
    """Refuse to write a bundle over what is there.

    Raises:
        BundleError: `folder` exists and `force` is off, or it is something else than a bundle.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not force:
        raise BundleError(f"{folder} exists already; choose another folder, or pass --force")
    if not (folder / CONFIG).is_file():
        raise BundleError(f"{folder} is not a bundle and is not replaced; choose another folder")


def _json(config: Mapping[str, Any]) -> str:
    """Write JSON with a list of numbers on one line."""
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    # A text in JSON holds no line break, so what matches is never one.
    return re.sub(r"\[\n[-+.,\deE\s]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _replace(folder: Path, partial: Path, force: bool) -> None:
    """Put `partial` in the place of `folder`, carrying over what is not ours to replace."""
    if not force or not folder.exists():
        partial.rename(folder)  # fails where another process has been quicker
        return
    for entry in folder.iterdir():
        made_card = entry.name == CARD and MADE_CARD in entry.read_text("utf-8", "replace")
        if entry.name in (CONFIG, WEIGHTS) or made_card:
            continue
        copy = shutil.copytree if entry.is_dir() else shutil.copy2
        copy(entry, partial / entry.name)
    old = folder.with_name(f"{partial.name}.old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if folder.exists():  # another process has been quicker, and its bundle is whole
            shutil.rmtree(old)
        else:
            old.rename(folder)
        raise
    shutil.rmtree(old)
