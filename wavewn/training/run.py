"""A training from its recipe to its last checkpoint.

A run lives in one folder:

    recipe.yaml             what was asked for, overrides included
    checkpoints/last.ckpt   from where `--resume` goes on
    checkpoints/best.ckpt   lowest validation loss
    events.out.tfevents.*   for TensorBoard
"""

import ctypes
import logging
import platform
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from wavewn.bundle import Bundle, load_checkpoint
from wavewn.config import WaveNetConfig, model_config
from wavewn.data.module import CropsModule
from wavewn.errors import ConfigError, TrainingError
from wavewn.lock import lock
from wavewn.nn.weight_norm import load_state
from wavewn.source import open_source
from wavewn.torch_file import load_torch_file
from wavewn.training.adversarial import Adversarial
from wavewn.training.callbacks import (
    Averaging,
    Checkpoints,
    Clips,
    Directions,
    StepBar,
    WholeFiles,
)
from wavewn.training.clips import read_clips
from wavewn.training.licence import Licence
from wavewn.training.likelihood import Likelihood
from wavewn.training.module import VocoderModule
from wavewn.training.recipe import Recipe

logger = logging.getLogger(__name__)

KEEP_MEMORY_BYTES = 2**31 - 4096  # the largest value that mallopt takes


def train(
    recipe: Recipe,
    out: Path,
    *,
    folder: Path = Path(),
    resume: Path | str | None = None,
    init_from: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train, and return the best checkpoint, or the last where none was validated.

    Args:
        recipe: All about it.
        out: Folder of the run.
        folder: What relative paths of the recipe start from.
        resume: A checkpoint, or "auto" for the last one of `out`, if there is one.
        init_from: Bundle (folder or shipped name) or checkpoint, from the current folder on; None
            takes the recipe's.
        callbacks: More of them.

    Raises:
        ConfigError: The recipe contradicts the corpus, the checkpoint or the machine, or `out`
            cannot be written.
        DataError: The manifest or a recording is not usable.
        TrainingError: `out` holds another training, the disk is full, or the loss is not finite
            any more.
        Interrupted: Ctrl-C; the training was saved.
        WavewnError: Another process is training into `out`.
    """
    last = out / "checkpoints" / "last.ckpt"
    checkpoint = _find_checkpoint(last, resume)
    keep_memory()
    seed_everything(recipe.seed, workers=False, verbose=False)
    data = make_data(recipe, folder)
    module: VocoderModule
    if isinstance(recipe.model, WaveNetConfig):
        module = Likelihood(recipe, data.speakers)
    else:
        module = Adversarial(recipe)
    module.check_crops(recipe.data.frames, data.valid_frames)
    terms = ""  # of the weights that the training starts from
    if checkpoint is not None:
        terms = _check_same_model(module, checkpoint)
    elif init_from:
        terms = start_from(module, init_from)
    elif recipe.init_from:
        terms = start_from(module, recipe.init_from, folder)
    else:
        for name, channels in module.initialise(data).dead.items():
            logger.warning("initialisation: %s has %d silent channels", name, len(channels))
    if recipe.compile:
        module.compile_parts()
    _make_folder(last.parent)
    best = ModelCheckpoint(
        dirpath=last.parent,
        filename="best",
        monitor="loss/valid",
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
    clips = recipe.clips
    beside: list[Callback] = [Averaging(recipe.ema_decay), Directions(), LearningRateMonitor()]
    beside.append(Licence(data.licence, terms))
    if clips.count and clips.every:
        beside.append(Clips(clips.every, read_clips(data, clips.count, clips.seconds)))
    if recipe.trainer_settings.get("enable_progress_bar", True):
        beside.append(StepBar(refresh_rate=1 if sys.stderr.isatty() else 20))  # a log is no screen
    saving = Checkpoints(last, recipe.checkpoint_every)
    beside += [*callbacks, saving, best]
    trainer = _make_trainer(recipe, out, beside)
    writer = lock(out / ".lock") if trainer.is_global_zero else nullcontext()
    with writer, warnings.catch_warnings(), saving.ctrl_c():
        if trainer.is_global_zero:
            _write_recipe(recipe, out / "recipe.yaml", folder)
        # Ours is resumable by its construction, and a second worker would not be used.
        warnings.filterwarnings("ignore", ".*dataloader is not resumable.*")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return last.with_name("best.ckpt") if Path(best.best_model_path).is_file() else last


def make_data(recipe: Recipe, folder: Path) -> CropsModule:
    """Serve crops with as many frames beside them as the model wants.

    Errors are those of `train`.
    """
    if isinstance(recipe.model, WaveNetConfig):
        lead, look_ahead = recipe.model.condition.lead, recipe.model.condition.look_ahead
    else:
        assert recipe.adversarial is not None
        lead = look_ahead = recipe.adversarial.context
    return CropsModule(
        recipe.data, folder, recipe.mel, lead=lead, look_ahead=look_ahead, seed=recipe.seed
    )


def keep_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the kernel.

    The activations of a step are freed and asked for again at the next, and without this each of
    them comes back as fresh pages that the kernel has to clear: a step of 16 layers of 32
    channels on 64,000 samples took 1.10 s instead of 0.95 s on one Zen 4 core (2026-11-21).
    Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    libc.mallopt(m_mmap_threshold, KEEP_MEMORY_BYTES)
    libc.mallopt(m_trim_threshold, KEEP_MEMORY_BYTES)
    libc.mallopt(m_top_pad, 64 << 20)


def start_from(module: VocoderModule, source: Path | str, folder: Path = Path()) -> str:
    """Give `module` the weights of a bundle or a checkpoint (its average), for fine-tuning.

    From a checkpoint come the discriminators too, where they are those of the recipe.

    Returns:
        The licence of these weights.

    Raises:
        ConfigError: The weights belong to another model or another mel.
        BundleError: There is no such thing, or it is broken.
    """
    found = read_weights(source, folder)
    if found.mel.without_chain() != module.recipe.mel.without_chain():
        raise ConfigError(
            f"--init-from {source}: its mels are not the recipe's; take them into the recipe with "
            f"--mel {source} (sample rate {found.mel.sample_rate}, hop {found.mel.hop_length})"
        )
    if found.mel != module.recipe.mel:
        logger.warning("%s: its audio was filtered or levelled first; is this corpus, too?", source)
    try:
        load_state(module.model, cast("nn.Module", found.model).state_dict())
    except ConfigError as error:
        raise ConfigError(
            f"--init-from {source}: another model than the recipe's (--model {source} takes its "
            f"settings): {error}"
        ) from None
    if isinstance(module, Adversarial) and (folder / source).is_file():
        if not module.take_discriminators(load_torch_file(folder / source)):
            logger.info("%s has no discriminators like the recipe's: they start anew", source)
    return str(found.config["licence"])


def read_weights(source: Path | str, folder: Path = Path()) -> Bundle:
    """Read a bundle (a folder or a shipped name) or a checkpoint, whosever it is.

    Raises:
        BundleError: There is nothing of that name, or it is broken.
    """
    path = folder / source
    return open_source(path if path.exists() else Path(source))


def _find_checkpoint(last: Path, resume: Path | str | None) -> Path | None:
    """The checkpoint to go on from; None for a new training, which must not replace another."""
    if resume is None:
        if last.exists():
            raise TrainingError(
                f"{last.parent.parent} already holds a training; add --resume to go on with it, "
                "or choose another --out"
            )
        return None
    if resume == "auto":
        return last if last.exists() else None
    if not Path(resume).is_file():
        raise TrainingError(f"--resume {resume}: there is no such checkpoint")
    return Path(resume)


def _make_folder(folder: Path) -> None:
    """Find out before the training, not after its first hours, whether `folder` can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f"--out: cannot write into {folder}: {error}") from None


def _write_recipe(recipe: Recipe, path: Path, folder: Path) -> None:
    """Keep the recipe so that it can be given to `wavewn train` from the current folder."""
    values = recipe.to_dict()
    values["data"]["manifest"] = str(folder / recipe.data.manifest)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    partial.replace(path)


def _check_same_model(module: VocoderModule, checkpoint: Path) -> str:
    """Refuse a checkpoint of another model; return the licence of its weights."""
    recipe, found = module.recipe, load_checkpoint(checkpoint)
    if model_config(found.config["model"]) != recipe.model or found.mel != recipe.mel:
        raise ConfigError(
            f"{checkpoint} was trained with other model or mel settings than the recipe's; "
            f"use {checkpoint.parent.parent / 'recipe.yaml'}, or start anew with --init-from"
        )
    if isinstance(module, Adversarial):
        if not module.take_discriminators(load_torch_file(checkpoint)):
            raise ConfigError(
                f"{checkpoint} was trained with other discriminators than the recipe's; use "
                f"{checkpoint.parent.parent / 'recipe.yaml'}, or start anew with --init-from"
            )
    if found.speakers != module.speakers:
        raise ConfigError(
            f"{checkpoint} was trained with the speakers {', '.join(found.speakers)}, the manifest "
            f"names {', '.join(module.speakers)}; resume with the manifest that it began with"
        )
    return str(found.config["licence"])


def _make_trainer(recipe: Recipe, out: Path, callbacks: list[Callback]) -> Trainer:
    settings = recipe.trainer_settings
    if recipe.adversarial is not None:  # it clips each network by itself, Lightning would refuse
        settings = {k: v for k, v in settings.items() if not k.startswith("gradient_clip")}
    if settings["precision"] == "bf16-mixed" and not torch.cuda.is_available():
        logger.info("bfloat16 on the CPU: fast where the CPU has AVX512-BF16 or AMX")
    try:
        trainer = Trainer(
            **settings,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=out,
            logger=TensorBoardLogger(out, name="", version=""),
            callbacks=callbacks,
            plugins=[WholeFiles()],
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from None
    known = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    if recipe.adversarial is not None and not known:
        raise ConfigError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, under which two networks "
            "cannot train in turns; take ddp"
        )
    return trainer
