"""Shorthand of recipes, resolved before they are parsed.

`mel`, `model` and `adversarial.discriminators` may be the name of a preset, alone or as `preset`
with changes beside it; `mel` and `model` may also name what `--init-from` takes, a bundle or a
checkpoint, and are then those of that model. `model.kind` and `model.head.kind` choose the model
and the head whose keys are then known. Where an override names a preset or another kind, the file's
keys are dropped.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavewn.audio.mel import MelSpec
from wavewn.audio.mel_presets import PRESETS as MELS
from wavewn.bundle import Bundle
from wavewn.config import DISCRIMINATORS, MODELS, Gaussian, LogisticMixture, MuLaw
from wavewn.config.presets import PRESETS, preset_config
from wavewn.errors import ConfigError, WavewnError
from wavewn.shipped import shipped
from wavewn.source import open_source

HEADS = {"mu-law": MuLaw, "logistic-mixture": LogisticMixture, "gaussian": Gaussian}


def spell_out(values: dict[str, Any], arguments: list[str], path: Path) -> dict[str, Any]:
    """Return the values of a recipe with every preset and kind spelled out.

    Args:
        values: As the file gives them.
        arguments: Overrides; those of presets and kinds are taken out.
        path: Of the file, for messages.

    Raises:
        ConfigError: A preset or kind is unknown, or a group is none.
    """
    for name in ("data", "optimiser", "clips", "trainer"):
        _check_group(values.get(name, {}), name, path)
    mel, preset = _preset(values, "mel", "wavewn-16k", arguments, path)
    kind, model = _model(values, arguments, path)
    made = None if preset in MELS else _made(preset)
    spec = MelSpec.preset(preset) if made is None else made.mel
    values = {**values, "mel": {**spec.to_dict(), **mel}}
    if kind != "wavenet":
        game = values.get("adversarial", {})
        _check_group(game, "adversarial", path)
        given, preset = _preset(game, "adversarial.discriminators", "hifigan", arguments, path)
        if preset not in DISCRIMINATORS:
            raise ConfigError(
                f"{path}: adversarial.discriminators.preset must be one of "
                f"{', '.join(DISCRIMINATORS)}, got {preset}"
            )
        given = {**dataclasses.asdict(DISCRIMINATORS[preset]), **given}
        game = {**game, "discriminators": given}
        return {**values, "model": model, "adversarial": game}
    if "adversarial" in values:
        raise ConfigError(f"{path}: adversarial is for one-pass generators, model.kind is wavenet")
    head = model.get("head", {})
    _check_group(head, "model.head", path)
    head_kind = _kind(head, "model.head", "mu-law", HEADS, arguments, path)
    if head_kind != head.get("kind", "mu-law"):
        head = {}
    return {**values, "model": {**model, "head": {**head, "kind": head_kind}}}


def _model(values: dict[str, Any], arguments: list[str], path: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind of the model and its settings."""
    model, preset = _preset(values, "model", "", arguments, path)
    settings: dict[str, Any] = {}
    made = _made(preset) if preset and preset not in PRESETS else None
    if made is not None:
        settings = dataclasses.asdict(made.model.settings)
        if settings["kind"] not in MODELS:
            raise ConfigError(
                f"{path}: model {preset} is of kind {settings['kind']}, which wavewn runs and does "
                f"not train; it trains {', '.join(MODELS)}"
            )
    elif preset:
        try:
            settings = dataclasses.asdict(preset_config(preset))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    default = settings.get("kind", "wavenet")
    kind = _kind(model, "model", default, MODELS, arguments, path)
    if preset and kind != default:
        raise ConfigError(
            f"{path}: model.preset {preset} is of kind {default}, model.kind says {kind}; take "
            "one of them out"
        )
    if kind != model.get("kind", default):
        model = {}  # the other model's keys mean nothing to this one
    return kind, {**settings, **model, "kind": kind}


def _made(name: str) -> Bundle | None:
    """Read the bundle or checkpoint of that name; None where there is none."""
    try:
        place = Path(name) if Path(name).exists() else shipped("pretrained", name)
    except WavewnError:
        return None
    return open_source(place)


def _check_group(group: Any, name: str, path: Path) -> None:
    if not isinstance(group, dict):
        raise ConfigError(f"{path}: {name} must be a group of keys, got {group!r}")


def _preset(
    owner: dict[str, Any], name: str, default: str, arguments: list[str], path: Path
) -> tuple[dict[str, Any], str]:
    """Return the changes to a preset, and its name."""
    group = owner.get(name.rpartition(".")[2], {})
    group = _take(arguments, name) or _take(arguments, f"{name}.preset") or group
    if isinstance(group, str):
        group = {"preset": group}
    _check_group(group, name, path)
    preset = group.get("preset", default)
    if not isinstance(preset, str):
        raise ConfigError(f"{path}: {name}.preset must be a name, got {preset!r}")
    return {key: value for key, value in group.items() if key != "preset"}, preset


def _kind(
    group: dict[str, Any],
    name: str,
    default: str,
    known: Mapping[str, type],
    arguments: list[str],
    path: Path,
) -> str:
    """Return which member of a union is wanted."""
    kind = _take(arguments, f"{name}.kind") or group.get("kind", default)
    if not isinstance(kind, str) or kind not in known:
        raise ConfigError(f"{path}: {name}.kind must be one of {', '.join(known)}, got {kind}")
    return kind


def _take(arguments: list[str], key: str) -> str | None:
    """Remove `--key value` or `--key=value` from `arguments`; return the last value."""
    value = None
    for index in reversed(range(len(arguments))):
        name, equals, after = arguments[index].partition("=")
        if name != f"--{key}" or (not equals and index + 1 == len(arguments)):
            continue
        value = value or (after if equals else arguments[index + 1])
        del arguments[index : index + (1 if equals else 2)]
    return value
