"""A recipe: one YAML file that says all about a training.

The file is read by a safe loader as plain data; jsonargparse checks types and unknown keys, lets
the command line override any key (`--data.frames 20`, `--trainer.max_steps 100`) and prints the
whole (`--print_config`). Parsing makes dataclasses and nothing else: no key names a class.

Two conveniences are resolved before parsing. `mel` may be the name of a preset, alone or as
`mel.preset` with changes beside it; `model.head.kind` chooses the head whose keys are then known.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser
from lightning.pytorch import Trainer

from wavewn.audio.mel import MelSpec
from wavewn.config import (
    Gaussian,
    LogisticMixture,
    MuLaw,
    WaveNetConfig,
    check_at_least,
    wavenet_config,
)
from wavewn.data.module import DataConfig
from wavewn.errors import ConfigError
from wavewn.training.yaml_file import load_yaml

MODELS = {"wavenet": WaveNetConfig}
HEADS = {"mu-law": MuLaw, "logistic-mixture": LogisticMixture, "gaussian": Gaussian}

Plain = bool | int | float | str | list[int] | None
# Settings of the Trainer that wavewn makes itself, and those that would cut its one endless epoch
# into pieces that begin with the same batches again.
OURS = {
    "callbacks",
    "check_val_every_n_epoch",
    "default_root_dir",
    "enable_checkpointing",
    "fast_dev_run",
    "limit_train_batches",
    "logger",
    "max_epochs",
    "min_epochs",
    "num_sanity_val_steps",
    "overfit_batches",
    "plugins",
    "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler",
}
TRAINER = {  # what a recipe need not say
    "max_steps": 10000,
    "val_check_interval": 500,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
    "precision": "bf16-mixed",
}


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with a warm-up and a cosine decay.

    Attributes:
        lr: Largest learning rate.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        weight_decay: Decoupled; reaches only plain weights, never gains, directions or biases.
        warmup_steps: Steps of linear growth at the start.
        decay_steps: Step at which the cosine ends; None takes trainer.max_steps.
        final: Share of `lr` that is left at the end.
        predictor_steps: Steps that a linear prediction is fitted alone, before the training; each
            costs a tenth of the training's.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: int = 200
    decay_steps: int | None = None
    final: float = 0.01
    predictor_steps: int = 1000

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"optimiser.lr must be above 0, got {self.lr}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimiser.{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"optimiser.final must lie in [0, 1], got {self.final}")
        check_at_least(self, 0, "weight_decay", "warmup_steps", "predictor_steps")
        if self.decay_steps is not None:
            check_at_least(self, 1, "decay_steps")


@dataclass(frozen=True)
class ClipsConfig:
    """Audio and spectrograms of generated speech in TensorBoard.

    Attributes:
        count: Validation utterances of which the beginning is generated.
        seconds: Length of each.
        every: Validations from one time to the next; 0 generates never. The reference engine
            needs minutes for two seconds on a CPU.
    """

    count: int = 2
    seconds: float = 2.0
    every: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 0, "count", "every")
        if self.seconds <= 0:
            raise ConfigError(f"clips.seconds must be above 0, got {self.seconds}")


@dataclass(frozen=True)
class Recipe:
    """All about a training.

    Attributes:
        data: Manifest, crops, workers.
        mel: The mel contract, and with it the only sample rate.
        model: Sizes and head.
        optimiser: Adam and its schedule.
        clips: What is generated at validation.
        trainer: Arguments of Lightning's Trainer.
        ema_decay: Of the moving average of the weights, which is what is validated and exported.
        checkpoint_every: Steps from one checkpoint to the next.
        init_from: Bundle or checkpoint whose weights the training starts from; "" for none.
        seed: Of initial weights and crops.
    """

    data: DataConfig
    mel: MelSpec = field(default_factory=MelSpec)
    model: WaveNetConfig = field(default_factory=WaveNetConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    trainer: dict[str, Plain] = field(default_factory=dict)
    ema_decay: float = 0.999
    checkpoint_every: int = 500
    init_from: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "checkpoint_every")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must lie in [0, 2 ** 32), got {self.seed}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        known = set(inspect.signature(Trainer).parameters) - OURS
        for key in self.trainer:
            if key not in known:
                why = (
                    "is wavewn's own to set"
                    if key in OURS
                    else "is no setting of Lightning's Trainer"
                )
                raise ConfigError(f"trainer.{key} {why}; there are {', '.join(sorted(known))}")
        for key in ("max_steps", "val_check_interval"):
            value = self.trainer.get(key, TRAINER[key])
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"trainer.{key} must be a number of steps, got {value!r}")

    @property
    def trainer_settings(self) -> dict[str, Any]:
        """Arguments of the Trainer, defaults included."""
        return {**TRAINER, **self.trainer}

    @property
    def decay_steps(self) -> int:
        """Step at which the learning rate has come down."""
        return self.optimiser.decay_steps or int(self.trainer_settings["max_steps"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and `torch.load(weights_only=True)` hold them."""
        return {**dataclasses.asdict(self), "mel": self.mel.to_dict()}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML and command-line overrides.

    Args:
        path: The YAML file.
        overrides: Such as ["--data.frames", "20"]; `--print_config` prints and exits.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown or a value impossible.
    """
    values = load_yaml(path)
    arguments = list(overrides)
    values = _resolve(values, arguments, path)
    parser = _make_parser(values["model"])
    try:
        parsed = parser.parse_args(["--config", json.dumps(values, default=str), *arguments])
    except (ArgumentError, OverflowError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:300]}") from None
    parts = parsed.as_dict()
    parts.pop("config")
    groups = {"data.": DataConfig, "optimiser.": OptimiserConfig, "clips.": ClipsConfig}
    for where, owner in {"": Recipe, **groups}.items():
        _check_given(owner, parts[where[:-1]] if where else parts, f"{path}: {where}")
    try:
        return Recipe(
            data=DataConfig(**parts.pop("data")),
            mel=MelSpec.from_dict(parts.pop("mel")),
            model=wavenet_config(parts.pop("model")),
            optimiser=OptimiserConfig(**parts.pop("optimiser")),
            clips=ClipsConfig(**parts.pop("clips")),
            **parts,
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OverflowError:
        raise ConfigError(f"{path}: a number is beyond any machine") from None


def _check_given(owner: type, values: Mapping[str, Any], where: str) -> None:
    """Refuse null where no setting may be null; jsonargparse lets it pass."""
    for name, hint in get_type_hints(owner).items():
        if values[name] is None and NoneType not in get_args(hint):
            raise ConfigError(f"{where}{name} must have a value, got null")


def _resolve(values: dict[str, Any], arguments: list[str], path: Path) -> dict[str, Any]:
    """Spell out the mel preset and the kinds; takes their overrides out of `arguments`."""
    mel = _take(arguments, "mel") or _take(arguments, "mel.preset") or values.get("mel", {})
    if isinstance(mel, str):
        mel = {"preset": mel}
    model = values.get("model", {})
    head = model.get("head", {}) if isinstance(model, dict) else {}
    groups = {name: values.get(name, {}) for name in ("data", "optimiser", "clips", "trainer")}
    groups |= {"mel": mel, "model": model, "model.head": head}
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise ConfigError(f"{path}: {name} must be a group of keys, got {group!r}")
    preset = mel.get("preset", "wavewn-16k")
    if not isinstance(preset, str):
        raise ConfigError(f"{path}: mel.preset must be a name, got {preset!r}")
    mel = {key: value for key, value in mel.items() if key != "preset"}
    given = _take(arguments, "model.head.kind")
    if given and given != head.get("kind", "mu-law"):
        head = {}  # the other head's keys mean nothing to this one
    head = {**head, "kind": given or head.get("kind", "mu-law")}
    kind = _take(arguments, "model.kind") or model.get("kind", "wavenet")
    for name, chosen, known in (("model", kind, MODELS), ("model.head", head["kind"], HEADS)):
        if not isinstance(chosen, str) or chosen not in known:
            raise ConfigError(
                f"{path}: {name}.kind must be one of {', '.join(known)}, got {chosen}"
            )
    return {
        **values,
        "mel": {**MelSpec.preset(preset).to_dict(), **mel},
        "model": {**model, "kind": kind, "head": head},
    }


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


def _make_parser(model: dict[str, Any]) -> ArgumentParser:
    """A parser for a recipe with this kind of model and head."""
    parser = ArgumentParser(prog="wavewn train RECIPE", exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(MelSpec, "mel")
    parser.add_class_arguments(MODELS[model["kind"]], "model", skip={"head"})
    parser.add_class_arguments(HEADS[model["head"]["kind"]], "model.head")
    parser.add_class_arguments(OptimiserConfig, "optimiser")
    parser.add_class_arguments(ClipsConfig, "clips")
    parser.add_argument("--trainer", type=dict[str, Plain], default={})
    simple = ("ema_decay", "checkpoint_every", "init_from", "seed")
    fields = {entry.name: entry for entry in dataclasses.fields(Recipe)}
    for name in simple:
        parser.add_argument(f"--{name}", type=fields[name].type, default=fields[name].default)
    return parser
