"""Maximum likelihood: the Lightning module of autoregressive models, and their initialisation.

The loss is the mean negative logarithm of the probability of a sample, in nats; it is float32
whatever the precision of the network. A sample counts once its linear prediction, and that of the
residuals which the prediction's start has spoilt, is whole. It need not hear its whole receptive
field: from a history that was cut the model learns how to begin a vowel. One crop in ten starts
its utterance, so that a history of zeros means silence where the mel says so.
2026-11-22, festvox-ru, 1,000 steps: counted only once the receptive field lay inside the crop, a
voice with linear prediction fell silent between the pulses that it should have begun.
"""

import os
from collections.abc import Callable
from math import ceil

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from tqdm import tqdm

from wavewn.config import WaveNetConfig
from wavewn.data.crops import Batch
from wavewn.data.module import CropsModule
from wavewn.errors import ConfigError, TrainingError
from wavewn.models.wavenet import Heard, WaveNet
from wavewn.nn.linear_prediction import aperiodicity, predictor_log_prob
from wavewn.nn.weight_norm import (
    InitReport,
    apply_weight_norm,
    data_dependent_init,
    parameter_groups,
)
from wavewn.training.module import VocoderModule, learning_rate_factor
from wavewn.training.recipe import Recipe

PREDICTOR_SHARE = 0.3  # of the linear prediction in the loss: see nn/linear_prediction.py
PITCH_SHARE = 10.0  # of the aperiodicity in that


def output_scale(settings: WaveNetConfig, name: str, channels: int) -> Tensor | float:
    """Wanted deviation of a layer's output at the start, for `data_dependent_init`.

    Each of the L layers adds 1/sqrt(2L) to the residual stream and 1/sqrt(L) to the skips, so
    that both sums stay near one; the head starts almost uniform.
    """
    layers = len(settings.dilations)
    if name.endswith(".out"):
        scale = torch.full((channels,), layers**-0.5)
        scale[: channels - settings.skip_channels] = (2 * layers) ** -0.5
        return scale
    scales = {"output": 0.1, "stack.condition": 0.5}
    scales |= {"predictor.projection": 0.2, "pitch.projection": 0.05}
    return scales.get(name, 1.0)


def initialise(
    module: "Likelihood", batch: Batch, batches: Callable[[int], Batch] | None = None
) -> InitReport:
    """Set gains and biases from one batch, on the CPU and in float32, before Lightning starts.

    Every rank computes the same; DistributedDataParallel then sends rank 0's weights to all.

    Args:
        module: Its model is changed.
        batch: Of crops that start anywhere, with an undamaged history.
        batches: The batch of a step; with it a linear prediction is fitted alone first, so that
            the stack never hears residuals of a wrong scale.
    """
    model = module.model
    settings = model.settings

    def hear() -> Heard:
        return module.hear(model.levels(batch.audio), batch)

    def scale(name: str, channels: int) -> Tensor | float:
        return output_scale(settings, name, channels)

    # Rows that see the zeros before the crop are not counted, but half of it always is.
    skip_left = min(model.receptive_field / batch.audio.shape[1], 0.5)
    report = data_dependent_init(model, hear, scale=scale, skip_left=skip_left)
    if batches is not None and model.predictor is not None:
        fit_predictor(module, batches)
    with torch.no_grad():
        heard = hear()
    rest = data_dependent_init(model, lambda: model.answer(heard), scale=scale, skip_left=skip_left)
    report.layers += rest.layers
    report.dead |= rest.dead
    report.capped |= rest.capped
    return report


def fit_predictor(module: "Likelihood", batches: Callable[[int], Batch]) -> None:
    """Train the mel network and the predictors by their own likelihood, without the stack."""
    model, settings = module.model, module.recipe.optimiser
    parts = [part for part in (model.condition, model.predictor, model.pitch) if part is not None]
    home, device = next(model.parameters()).device, device_of(module.recipe)
    model.to(device)
    parameters = [p for part in parts for p in part.parameters()]
    optimiser = torch.optim.Adam(parameters, settings.lr, (settings.beta1, settings.beta2))
    steps = settings.predictor_steps
    silent = os.environ.get("LOCAL_RANK", "0") != "0"  # Lightning starts one process a device
    bar = tqdm(range(steps), "predictor", mininterval=5, disable=silent)
    for step in bar:
        factor = learning_rate_factor(step, settings, steps)
        optimiser.param_groups[0]["lr"] = settings.lr * factor
        batch = batches(step).to(device)
        levels = model.levels(batch.audio)
        loss = module.predictor_loss(batch, levels, module.hear(levels, batch))
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"the predictor's loss is {loss.item()} at step {step} of its fit, "
                f"on {', '.join(batch.paths)}; lower optimiser.lr"
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        bar.set_postfix(nats=f"{loss.item():.3f}", refresh=False)
    optimiser.zero_grad()
    model.to(home)


def device_of(recipe: Recipe) -> torch.device:
    """Where this process will train: a batch that suits a GPU would keep a CPU busy for long."""
    wanted = recipe.trainer_settings.get("accelerator", "auto")
    if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


class Likelihood(VocoderModule):
    """Trains a WaveNet on teacher-forced crops.

    Args:
        recipe: Sizes, optimiser, seed.
        speakers: Names in the order of the embedding; they go into the checkpoint.

    Raises:
        ConfigError: The model has another number of speakers than the corpus.
    """

    model: WaveNet

    def __init__(self, recipe: Recipe, speakers: list[str]) -> None:
        settings = recipe.model
        assert isinstance(settings, WaveNetConfig)
        if settings.speakers not in (0, len(speakers)):
            raise ConfigError(
                f"model.speakers is {settings.speakers}, but the manifest names {len(speakers)}; "
                f"set it to {len(speakers)}, or to 0 for a model that does not tell them apart"
            )
        spec = recipe.mel
        model = WaveNet(settings, spec.n_mels, spec.hop_length, spec.log_floor)
        apply_weight_norm(model)
        super().__init__(recipe, model, speakers if settings.speakers else [])
        self.unscored = 2 * settings.prediction_order  # samples
        self.begun = ceil(settings.longest_lag / spec.hop_length)  # frames without a whole past

    def initialise(self, data: CropsModule) -> InitReport:
        """See the function of that name."""
        return initialise(self, data.first_batch(), data.training_crops().batch)

    def compile_parts(self, backend: str = "inductor") -> None:
        """See `VocoderModule`."""
        self.model.stack.compile(backend=backend)

    def check_crops(self, frames: int, valid_frames: int) -> None:
        """See `check_crop`."""
        self.check_crop(frames, "data.frames")
        self.check_crop(valid_frames, "a validation crop")

    def check_crop(self, frames: int, name: str) -> None:
        """Raise ConfigError where a crop is too short for any of its samples to be scored."""
        hop_length = self.recipe.mel.hop_length
        samples, needed = frames * hop_length, max(self.unscored, self.begun * hop_length)
        if samples <= needed:
            raise ConfigError(
                f"{name} is {frames} frames ({samples} samples), but a sample counts once "
                f"{needed} others precede it; take longer crops"
            )

    def hear(self, levels: Tensor, batch: Batch) -> Heard:
        """Make what the stack goes by in a batch."""
        speaker = batch.speaker if self.speakers else None
        damage = (batch.keep, batch.noise)
        lead = self.model.condition.lead
        return self.model.hear(levels, batch.mel, speaker, lead, batch.starts, damage)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log probability, nats a sample, float32."""
        levels = self.model.levels(batch.audio)
        return self.network_loss(levels, self.hear(levels, batch), batch.starts)

    def network_loss(self, levels: Tensor, heard: Heard, starts: Tensor) -> Tensor:
        """As `loss`, of what was heard."""
        parameters = self.model.answer(heard)
        with torch.autocast(levels.device.type, enabled=False):
            return self._mean(self.model.head.log_prob(parameters.float(), levels), starts)

    def predictor_loss(self, batch: Batch, levels: Tensor, heard: Heard) -> Tensor:
        """Mean negative log density of the linear prediction alone, and aperiodicity; float32."""
        assert heard.location is not None and heard.scale is not None
        log_prob = predictor_log_prob(levels, heard.location, heard.scale)
        loss = self._mean(log_prob, batch.starts)
        if heard.lags is None:
            return loss
        left = aperiodicity(levels, heard.lags, self.model.settings.longest_lag)[:, self.begun :]
        return loss + PITCH_SHARE * left.mean()

    def _mean(self, log_prob: Tensor, starts: Tensor) -> Tensor:
        position = torch.arange(log_prob.shape[1], device=log_prob.device)
        scored = (position >= self.unscored) | starts[:, None]
        return -(log_prob * scored).sum() / scored.sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss; Lightning does the rest."""
        first = batch_idx % self.trainer.accumulate_grad_batches == 0
        self.files = batch.paths if first else self.files + batch.paths
        levels = self.model.levels(batch.audio)
        heard = self.hear(levels, batch)
        loss = self.network_loss(levels, heard, batch.starts)
        self.last_loss = loss.detach()
        self.log("loss/train", loss, prog_bar=True, batch_size=len(batch.paths))
        if heard.location is None:
            return loss
        alone = self.predictor_loss(batch, levels, heard)
        self.log("loss/predictor", alone, batch_size=len(batch.paths))
        return loss + PREDICTOR_SHARE * alone

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of the averaged weights, which selects the best checkpoint."""
        self.log(
            "loss/valid",
            self.loss(batch),
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch.paths),
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and stop where the gradient is not finite: before it reaches the weights.

        Raises:
            TrainingError: With the step and the files of the batch.
        """
        self.log("gradient_norm", self.gradient_norm("model", self.parameters()))
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam and the schedule, stepped every step."""
        settings = self.recipe.optimiser
        optimiser = torch.optim.AdamW(
            parameter_groups(self.model, decay=settings.weight_decay),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            foreach=True,
        )
        decay_steps = self.recipe.decay_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(step, settings, decay_steps)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
