"""What happens beside the steps: averaging, checkpoints, checks, and audio to listen to.

Lightning has an averaging callback of its own; ours differs where it matters here. The checkpoint
keeps the raw weights in `state_dict` and the average under `wavewn`, where `bundle` finds it; the
decay warms up, so that short fine-tunings are not averaged with their start; and after training
the module still holds the weights that the optimiser holds.

Checkpoints are written beside their place and renamed, and read with `weights_only=True`.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from wavewn.errors import ConfigError, TrainingError
from wavewn.nn.weight_norm import check_directions
from wavewn.training.clips import Clip, generate, spectrogram_picture
from wavewn.training.module import VocoderModule

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """Ctrl-C was pressed, and the training was saved.

    Attributes:
        checkpoint: From where it can be resumed.
        step: Steps done.
    """

    def __init__(self, checkpoint: Path, step: int) -> None:
        super().__init__(f"stopped at step {step}, saved {checkpoint}")
        self.checkpoint, self.step = checkpoint, step


class Averaging(Callback):
    """Exponential moving average of the parameters; validation runs on it.

    At step s the decay is min(decay, (1 + s) / (10 + s)).

    Args:
        decay: What the decay grows to.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.updated = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the model, or move what a checkpoint brought to the model's device."""
        model = _model(pl_module)
        self.average = {
            name: self.average.get(name, parameter).detach().to(parameter.device, copy=True)
            for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the weights by one step."""
        step = trainer.global_step
        if step <= self.updated:
            return  # gradients are being accumulated
        self.updated = step
        update = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        current = [parameter.detach() for parameter in _model(pl_module).parameters()]
        update(list(self.average.values()), current, step)  # type: ignore[arg-type]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lend the average to the model."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model its own weights back; checkpoints are written after this."""
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        for name, parameter in _model(pl_module).named_parameters():
            own = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(own)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put a whole state of the model, with the average in it, under `wavewn`."""
        state = {**_model(pl_module).state_dict(), **self.average}
        checkpoint.setdefault("wavewn", {})["ema"] = state

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the average from a checkpoint."""
        self.average = dict(checkpoint["wavewn"]["ema"])
        self.updated = checkpoint["wavewn"]["step"]


class Checkpoints(Checkpoint):
    """Saves every so many steps, at the last step, when the time is up, and on Ctrl-C.

    The first Ctrl-C lets the step end, so that what is saved can be resumed bitwise; the second
    stops at once. Lightning runs callbacks of this kind after all others.

    Args:
        path: The one file, replaced each time.
        every: Steps between.

    Raises:
        Interrupted: After Ctrl-C, when the checkpoint lies on the disk.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.saved = 0
        self.asked = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the training starts."""
        self.saved = trainer.global_step

    @contextmanager
    def ctrl_c(self) -> Iterator[None]:
        """Listen for Ctrl-C meanwhile; only the main thread may.

        It encloses `Trainer.fit`, because Lightning puts the handlers back that it found.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("Ctrl-C: the checkpoint is saved after this step; again stops at once")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due."""
        step = trainer.global_step
        if step == self.saved:
            return
        asked = bool(trainer.strategy.reduce_boolean_decision(self.asked, all=False))
        ends = trainer.should_stop or step == trainer.max_steps
        if asked or ends or step % self.every == 0:
            trainer.save_checkpoint(self.path)
            self.saved = step
        if asked:
            raise Interrupted(self.path, step)


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it; reads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`, whole or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError of a full disk
            with suppress(OSError):
                partial.unlink()
            raise TrainingError(
                f"{path}: cannot be written ({str(error):.80}); free some space, then --resume"
            ) from None

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint without running anything in it."""
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


class Directions(Callback):
    """Looks for dead weight-norm directions now and then; it waits for the device.

    Args:
        every: Steps between.

    Raises:
        TrainingError: A direction is zero or not finite.
    """

    def __init__(self, every: int = 500) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the model, and what else is trained."""
        if trainer.global_step % self.every == 0:
            try:
                check_directions(pl_module)
            except ConfigError as error:
                raise TrainingError(f"step {trainer.global_step}: {error}") from None


class StepBar(TQDMProgressBar):
    """Lightning's bar, which for endless data does not know where it ends."""

    @property
    def total_train_batches(self) -> int | float:
        """Batches until `max_steps`."""
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    def init_validation_tqdm(self) -> Tqdm:
        """Give validation a bar that is not shown: it takes seconds, and the loss is in ours."""
        return Tqdm(disable=True)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin where the training does: one that goes on starts no epoch."""
        super().on_train_start(trainer)
        bar = self.train_progress_bar
        bar.total = self.total_train_batches
        bar.initial = bar.n = trainer.global_step * trainer.accumulate_grad_batches
        bar.set_description("train")

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Say "train" where Lightning counts epochs, of which there is one."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("train")


class Clips(Callback):
    """Puts speech generated by the averaged model, and its spectrogram, into TensorBoard.

    Args:
        every: Validations from one time to the next.
        clips: What is generated; the recordings are shown beside, once.
    """

    def __init__(self, every: int, clips: list[Clip]) -> None:
        self.every, self.clips = every, clips
        self.validations = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate, while `Averaging` lends its weights."""
        self.validations += 1
        board = trainer.logger
        if self.validations % self.every or not isinstance(board, TensorBoardLogger):
            return
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, VocoderModule)
        settings, spec = pl_module.recipe.model, pl_module.recipe.mel
        generated = generate(pl_module.model, settings, spec, self.clips, pl_module.speakers)
        shown = {f"clip/{c.name}": one for c, one in zip(self.clips, generated, strict=True)}
        if self.validations == self.every:
            shown |= {f"clip/{c.name}/recording": c.audio for c in self.clips}
        for name, audio in shown.items():
            step = trainer.global_step
            board.experiment.add_audio(name, audio[None], step, sample_rate=spec.sample_rate)
            picture = spectrogram_picture(audio, spec)
            board.experiment.add_image(name, picture, step, dataformats="HWC")


def _model(pl_module: LightningModule) -> torch.nn.Module:
    model = pl_module.model
    assert isinstance(model, torch.nn.Module)
    return model
