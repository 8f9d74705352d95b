"""A recipe: one YAML file that says all about a training.

The file is read by a safe loader as plain data; jsonargparse checks types and unknown keys, lets
the command line override any key (`--data.frames 20`, `--trainer.max_steps 100`) and prints the
whole (`--print_config`). Parsing makes dataclasses and nothing else: no key names a class.

Names of presets and kinds are spelled out before parsing: see `shorthand.py`.
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
    MODELS,
    AdversarialConfig,
    DiscriminatorsConfig,
    ModelConfig,
    WaveNetConfig,
    check_at_least,
    model_config,
)
from wavewn.data.module import DataConfig
from wavewn.errors import ConfigError
from wavewn.training.settings import ClipsConfig, OptimiserConfig
from wavewn.training.shorthand import HEADS, spell_out
from wavewn.yaml_file import load_yaml

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
class Recipe:
    """All about a training.

    Attributes:
        data: Manifest, crops, workers.
        mel: The mel contract, and with it the only sample rate.
        model: Of which kind, and its sizes.
        optimiser: Adam and its schedule.
        clips: What is generated at validation.
        adversarial: Losses and discriminators of a one-pass generator, where None takes the
            defaults; a WaveNet has none.
        trainer: Arguments of Lightning's Trainer.
        ema_decay: Of the moving average of the weights, which is what is validated and exported.
        checkpoint_every: Steps from one checkpoint to the next.
        init_from: Bundle or checkpoint whose weights the training starts from; "" for none.
        seed: Of initial weights and crops.
        compile: Let torch.compile fuse the networks, which takes a minute or more at the start. For
            a GPU: on a CPU it gained nothing.
    """

    data: DataConfig
    mel: MelSpec = field(default_factory=MelSpec)
    model: ModelConfig = field(default_factory=WaveNetConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    adversarial: AdversarialConfig | None = None
    trainer: dict[str, Plain] = field(default_factory=dict)
    ema_decay: float = 0.999
    checkpoint_every: int = 500
    init_from: str = ""
    seed: int = 0
    compile: bool = False

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
        if isinstance(self.model, WaveNetConfig):
            if self.adversarial is not None:
                raise ConfigError(
                    "adversarial is for one-pass generators; model.kind is wavenet, which learns "
                    "by its likelihood alone: leave it out"
                )
            return
        if self.adversarial is None:
            object.__setattr__(self, "adversarial", AdversarialConfig())
        self._check_generator()

    def _check_generator(self) -> None:
        """Refuse settings that mean nothing to a one-pass generator."""
        for name in ("noise", "dropout"):
            if getattr(self.data, name):
                raise ConfigError(
                    f"data.{name} damages the history that a WaveNet is fed; a model of kind "
                    f"{self.model.kind} is fed none: leave it 0"
                )
        if self.optimiser.predictor_steps != OptimiserConfig.predictor_steps:
            raise ConfigError(
                "optimiser.predictor_steps fits a WaveNet's linear prediction; a model of kind "
                f"{self.model.kind} has none: leave it out"
            )
        if self.trainer.get("accumulate_grad_batches", 1) != 1:
            raise ConfigError(
                "trainer.accumulate_grad_batches must be 1 where two networks take turns; raise "
                "data.batch_size"
            )

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
        values = {**dataclasses.asdict(self), "mel": self.mel.to_dict()}
        if self.adversarial is None:
            del values["adversarial"]
        return _plain(values)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Write tuples as lists, which JSON has."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


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
    values = spell_out(values, arguments, path)
    parser = _make_parser(values["model"])
    groups = {"data.": DataConfig, "optimiser.": OptimiserConfig, "clips.": ClipsConfig}
    if "adversarial" in values:
        groups["adversarial."] = AdversarialConfig
    try:
        parsed = parser.parse_args(["--config", json.dumps(values, default=str), *arguments])
    except (ArgumentError, OverflowError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:300]}") from None
    parts = parsed.as_dict()
    parts.pop("config")
    for where, owner in {"": Recipe, **groups}.items():
        _check_given(owner, parts[where[:-1]] if where else parts, f"{path}: {where}")
    try:
        return Recipe(
            data=DataConfig(**parts.pop("data")),
            mel=MelSpec.from_dict(parts.pop("mel")),
            model=model_config(parts.pop("model")),
            optimiser=OptimiserConfig(**parts.pop("optimiser")),
            clips=ClipsConfig(**parts.pop("clips")),
            adversarial=_adversarial(parts.pop("adversarial", None)),
            **parts,
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OverflowError:
        raise ConfigError(f"{path}: a number is beyond any machine") from None


def _check_given(owner: type, values: Mapping[str, Any], where: str) -> None:
    """Refuse null where no setting may be null; jsonargparse lets it pass."""
    for name, hint in get_type_hints(owner).items():
        if values.get(name, 0) is None and NoneType not in get_args(hint):
            raise ConfigError(f"{where}{name} must have a value, got null")


def _adversarial(values: dict[str, Any] | None) -> AdversarialConfig | None:
    if values is None:
        return None
    discriminators = DiscriminatorsConfig(**values.pop("discriminators"))
    return AdversarialConfig(discriminators=discriminators, **values)


def _make_parser(model: dict[str, Any]) -> ArgumentParser:
    """A parser for a recipe with this kind of model and head."""
    parser = ArgumentParser(prog="wavewn train RECIPE", exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(MelSpec, "mel")
    parser.add_class_arguments(MODELS[model["kind"]], "model", skip={"head"})
    if model["kind"] == "wavenet":
        parser.add_class_arguments(HEADS[model["head"]["kind"]], "model.head")
    else:
        parser.add_class_arguments(AdversarialConfig, "adversarial", skip={"discriminators"})
        parser.add_class_arguments(DiscriminatorsConfig, "adversarial.discriminators")
    parser.add_class_arguments(OptimiserConfig, "optimiser")
    parser.add_class_arguments(ClipsConfig, "clips")
    parser.add_argument("--trainer", type=dict[str, Plain], default={})
    simple = ("ema_decay", "checkpoint_every", "init_from", "seed", "compile")
    fields = {entry.name: entry for entry in dataclasses.fields(Recipe)}
    for name in simple:
        parser.add_argument(f"--{name}", type=fields[name].type, default=fields[name].default)
    return parser
