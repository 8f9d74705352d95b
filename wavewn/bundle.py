"""A model on disk: a folder with `config.json`, `model.safetensors` and a model card.

    config.json        format number, model settings, MelSpec, speakers, statistics, licence,
                       provenance, verdict for each precision
    model.safetensors  plain weights, weight norm folded; matrices as float16 or float32, vectors
                       and scalars always as float32
    README.md          the model card

Bundles and training checkpoints come from strangers: no pickle is ever executed, every field is
checked before memory is spent on it, and whatever is wrong is one `BundleError`. A bundle is
written beside its place and renamed, so it is there whole or not at all.
"""

import dataclasses
import json
import os
import pickle
import shutil
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import WaveNetConfig, wavenet_config
from wavewn.errors import BundleError, ConfigError
from wavewn.models.wavenet import WaveNet
from wavewn.nn.weight_norm import convert_state_dict, folded_state_dict, load_state

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
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
CONFIG_BYTES = 1 << 20  # no honest config.json is longer
STORED = {"float16": torch.float16, "float32": torch.float32}
MADE_CARD = "<!-- Made by `wavewn export`. Without this line the card is yours and is kept. -->"
SILENCE_ATOL = 1e-3  # a float32 logarithm, taken once in the recipe and once here


@dataclass(frozen=True)
class Bundle:
    """A model with everything that is needed to use it.

    Attributes:
        model: Plain (weight norm folded), float32, on the CPU, in eval mode.
        mel: The mels that it reads.
        speakers: Names in the order of its embedding; empty where it knows none.
        config: The checked content of config.json.
    """

    model: WaveNet
    mel: MelSpec
    speakers: list[str]
    config: dict[str, Any]


def save_bundle(
    folder: str | os.PathLike[str],
    model: WaveNet,
    mel: MelSpec,
    *,
    speakers: Sequence[str] = (),
    licence: str = "",
    provenance: Mapping[str, Any] | None = None,
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
        dtype: Storage of the matrices.
        force: Replace a bundle that is already there.

    Raises:
        BundleError: Something lies there already, the model does not go with `mel` or
            `speakers`, a weight is not finite, or the folder cannot be written.
    """
    folder = Path(folder)
    check_target(folder, force)
    if dtype not in STORED:
        raise BundleError(f"dtype must be one of {', '.join(STORED)}, got {dtype!r}")
    config = _config(model.settings, mel, speakers, licence, provenance or {})
    _check_config(config, str(folder))
    state = folded_state_dict(model)
    _check_state(state, model.settings, mel, str(folder))
    stored = {
        key: value.to(STORED[dtype] if value.dim() > 1 else torch.float32).contiguous()
        for key, value in state.items()
    }
    _check_finite(stored, f"{folder}: as {dtype}")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(stored, partial / WEIGHTS)
        (partial / CARD).write_text(model_card(folder.name, config), encoding="utf-8")
        _replace(folder, partial)
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
    settings, mel = _check_config(config, str(config_path))
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
    model = _make_model(settings, mel, state, str(path / WEIGHTS))
    return Bundle(model, mel, list(config["speakers"]), config)


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
    _check_format(ours.get("format"), str(path))
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
    config: dict[str, Any] = {
        "format": FORMAT,
        "model": recipe.get("model"),
        "mel": MelSpec.preset(mel).to_dict() if isinstance(mel, str) else mel,
        "speakers": ours.get("speakers"),
        "statistics": {},
        "licence": "",
        "provenance": {"steps": step, "weights": weights},
        "verdict": dict(VERDICT),
    }
    settings, spec = _check_config(config, str(path))
    try:
        plain = convert_state_dict(state, "plain")
    except (ConfigError, RuntimeError) as error:
        raise BundleError(f"{path}: {error}") from None
    plain = {key: value.float() for key, value in plain.items()}
    model = _make_model(settings, spec, plain, str(path))
    config["model"], config["mel"] = dataclasses.asdict(settings), spec.to_dict()
    return Bundle(model, spec, list(config["speakers"]), config)


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


def model_card(name: str, config: Mapping[str, Any]) -> str:
    """Write the model card of a bundle from its config."""
    model, mel = config["model"], config["mel"]
    layers = model["cycles"] * model["layers_per_cycle"]
    facts = {
        "Model": f"WaveNet, {layers} layers, R={model['residual_channels']}, "
        f"S={model['skip_channels']}, head {model['head']['kind']}",
        "Mels": f"{mel['n_mels']} bands, {mel['f_min']:g} to {mel['f_max']:g} Hz, "
        f"hop {mel['hop_length']}, at {mel['sample_rate']} Hz",
        "Speakers": ", ".join(config["speakers"]) or "one",
        "Licence": config["licence"] or "not stated",
        **{str(key).replace("_", " "): value for key, value in config["provenance"].items()},
    }
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    usage = f"wavewn synth {name} recording.wav -o out"
    return f"{MADE_CARD}\n\n# {name}\n\n{lines}\n\n```bash\n{usage}\n```\n"


VERDICT: Mapping[str, Mapping[str, Any]] = {"float32": {"usable": True}}


def _config(
    settings: WaveNetConfig,
    mel: MelSpec,
    speakers: Sequence[str],
    licence: str,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": dataclasses.asdict(settings),
        "mel": mel.to_dict(),
        "speakers": list(speakers),
        "statistics": {},
        "licence": licence,
        "provenance": dict(provenance),
        "verdict": dict(VERDICT),
    }


def _check_format(found: Any, where: str) -> None:
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise BundleError(f"{where}: expected a format number from 1 on, got {found!r}")
    if found > FORMAT:
        raise BundleError(
            f"{where}: has format {found}, this wavewn reads up to {FORMAT}; upgrade wavewn"
        )


def _check_config(config: Any, where: str) -> tuple[WaveNetConfig, MelSpec]:
    """Check every field of a config; return what it describes."""
    if not isinstance(config, dict):
        raise BundleError(f"{where}: expected an object, got {type(config).__name__}")
    _check_format(config.get("format"), where)
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
    if not all(isinstance(one, dict) for one in config["verdict"].values()):
        raise BundleError(f"{where}: verdict must give an object for each precision")
    try:
        settings, mel = wavenet_config(config["model"]), MelSpec.from_dict(config["mel"])
    except ConfigError as error:
        raise BundleError(f"{where}: {error}") from None
    names = config["speakers"]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise BundleError(f"{where}: speakers must be different names, got {names!r:.60}")
    if len(names) != settings.speakers:
        raise BundleError(
            f"{where}: the model has {settings.speakers} speakers, {len(names)} are named"
        )
    return settings, mel


def _make_model(
    settings: WaveNetConfig, mel: MelSpec, state: dict[str, Tensor], where: str
) -> WaveNet:
    _check_state(state, settings, mel, where)
    _check_finite(state, where)
    model = WaveNet(settings, mel.n_mels, mel.hop_length, mel.log_floor)
    load_state(model, state)
    return model.eval().requires_grad_(False)


def _check_state(
    state: Mapping[str, Tensor], settings: WaveNetConfig, mel: MelSpec, where: str
) -> None:
    """Check names and shapes against a model without memory, so that no config can claim it."""
    if settings.cycles * settings.layers_per_cycle > len(state):
        raise BundleError(f"{where}: has fewer tensors than the model has layers")
    with torch.device("meta"):
        probe = WaveNet(settings, mel.n_mels, mel.hop_length, mel.log_floor)
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


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    bad = [key for key, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise BundleError(f"{where}: {bad[0]!r} holds NaN or infinite weights")


def _read_pickle(path: Path) -> Any:
    if not path.is_file():
        raise BundleError(f"{path}: no such file; check the path")
    errors = (RuntimeError, EOFError, struct.error, OSError, ValueError, KeyError, IndexError)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message advises to switch the protection off.
        raise BundleError(
            f"{path}: it is not a torch file, or holds more than tensors and plain values; "
            "pickled code is never run"
        ) from None
    except (*errors, TypeError, AttributeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{path}: cannot be read as a checkpoint ({first})") from None


def _replace(folder: Path, partial: Path) -> None:
    """Put `partial` in the place of `folder`, carrying over what is not ours to replace."""
    if not folder.exists():
        partial.rename(folder)
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
        old.rename(folder)
        raise
    shutil.rmtree(old)
