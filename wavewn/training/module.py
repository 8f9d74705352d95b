"""What all trainings of vocoders share, whatever their loss: schedule, checks, checkpoints."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from wavewn.data.module import CropsModule
from wavewn.errors import TrainingError
from wavewn.nn.weight_norm import InitReport
from wavewn.training.recipe import Recipe
from wavewn.training.settings import OptimiserConfig

FORMAT = 1  # of what a checkpoint holds under "wavewn"


def learning_rate_factor(step: int, settings: OptimiserConfig, decay_steps: int) -> float:
    """Share of the learning rate at `step`: linear warm-up times cosine decay."""
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / decay_steps)))
    return warm * (settings.final + (1 - settings.final) * cosine)


class VocoderModule(LightningModule):
    """A vocoder that trains by a recipe.

    Moving averages, stopping and checkpoints are callbacks.

    Args:
        recipe: All about the training.
        model: What is trained, averaged and exported; with weight norm.
        speakers: Names in the order of its embedding; they go into the checkpoint.

    Attributes:
        files: Of the batches since the last step, for error messages.
        last_loss: Of which the gradient is taken, for error messages.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, speakers: list[str]) -> None:
        super().__init__()
        self.recipe, self.model, self.speakers = recipe, model, speakers
        self.files: list[str] = []
        self.last_loss = torch.zeros(())

    def initialise(self, data: CropsModule) -> InitReport:
        """Set gains and biases from data, on the CPU and in float32, before Lightning starts."""
        raise NotImplementedError

    def compile_parts(self, backend: str = "inductor") -> None:
        """Have torch.compile fuse what costs most; keys and weights stay as they are."""
        raise NotImplementedError

    def check_crops(self, frames: int, valid_frames: int) -> None:
        """Raise ConfigError where crops, or those for validation, are too short to learn from."""
        raise NotImplementedError

    def gradient_norm(self, name: str, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Return the length of the gradient of the network `name`; this waits for the device once.

        Raises:
            TrainingError: It is not finite, or the loss is not, whose gradient may look sound; with
                the step and the files of the batch.
        """
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        sound = norm.isfinite() & self.last_loss.isfinite()
        if not scaled and not bool(sound):  # a GradScaler expects overflows, and skips
            raise TrainingError(
                f"step {self.global_step}: the loss of the {name} is {self.last_loss.item()}, "
                f"its gradient {norm.item()}; the weights were not changed. Files of the batch: "
                f"{', '.join(self.files)}. Listen to them; if they are sound, lower optimiser.lr "
                "and go on with --resume"
            )
        return norm

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `bundle` needs to read the file without this class."""
        checkpoint.setdefault("wavewn", {}).update(
            format=FORMAT,
            recipe=self.recipe.to_dict(),
            speakers=list(self.speakers),
            step=int(self.global_step),
        )
