"""Adversarial training: the Lightning module of one-pass generators.

In a step the discriminators learn to tell a recording from what the generator made of its mel, and
then the generator learns to be taken for the recording, and to be near it. Losses and their
gradients are float32 whatever the precision of the networks.

Two networks that take turns need Lightning's manual optimisation, which leaves four things to us:

- It counts the steps of every optimiser that it wraps. The discriminators' is stepped by the
  strategy below the wrapper, so `max_steps`, checkpoints and averages count generator steps.
- It does not clip. Each network's gradient is clipped here by its own norm.
- DistributedDataParallel waits for the gradients of all parameters, but a backward pass reaches
  one network only. It is kept out; one reduction a network averages the gradients.
- It leaves autocast on in the backward pass, where float32 losses would lose bits.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wavewn.audio.mel import MelSpec
from wavewn.config import AdversarialConfig, WaveNetConfig
from wavewn.data.crops import Batch
from wavewn.data.module import CropsModule
from wavewn.errors import ConfigError
from wavewn.losses import (
    MEL_SCALES,
    STFT_RESOLUTIONS,
    MelLoss,
    MultiResolutionStftLoss,
    MultiScaleMelLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from wavewn.models.discriminators import Discriminators
from wavewn.models.generators import make_generator
from wavewn.nn.layout import innermost
from wavewn.nn.weight_norm import (
    InitReport,
    apply_weight_norm,
    data_dependent_init,
    parameter_groups,
)
from wavewn.training.module import VocoderModule, learning_rate_factor
from wavewn.training.recipe import Recipe

Terms = dict[str, tuple[float, Tensor]]  # of a loss, with their weights


class Adversarial(VocoderModule):
    """Trains a generator against discriminators.

    Args:
        recipe: Of a one-pass generator.

    Raises:
        ConfigError: The generator does not go with the mel.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.adversarial is not None and not isinstance(recipe.model, WaveNetConfig)
        model = make_generator(recipe.model, recipe.mel)
        assert isinstance(model, nn.Module)
        apply_weight_norm(model)
        super().__init__(recipe, model, [])
        self.automatic_optimization = False
        self.game = recipe.adversarial
        self.noise_channels: int = model.noise_channels
        self.discriminators = Discriminators(self.game.discriminators)
        apply_weight_norm(self.discriminators)
        self.mel_distance = MelLoss(recipe.mel)
        self.mel_loss = make_mel_loss(self.game, recipe.mel)
        self.stft_loss = MultiResolutionStftLoss()

    def initialise(self, data: CropsModule) -> InitReport:
        """Set gains and biases from one batch, where the generator says what it wants of them.

        Others keep what they were made with, as published.
        """
        scale: Any = getattr(self.model, "initial_scale", None)
        if scale is None:
            return InitReport()
        batch = data.first_batch()
        return data_dependent_init(self.model, lambda: self.generate(batch, 0, 0), scale=scale)

    def compile_parts(self, backend: str = "inductor") -> None:
        """See `VocoderModule`; a generator's own `learn` stays eager."""
        self.model.compile(backend=backend)
        self.discriminators.compile(backend=backend)

    def check_crops(self, frames: int, valid_frames: int) -> None:
        """Raise ConfigError where a crop is shorter than what the losses look at."""
        game, hop = self.game, self.recipe.mel.hop_length
        transforms = [n_fft for n_fft, _, _ in game.discriminators.resolutions]
        transforms += [n_fft for n_fft, _, _ in STFT_RESOLUTIONS if game.stft_weight]
        if isinstance(self.mel_loss, MultiScaleMelLoss):
            transforms += [n_fft for n_fft, _, _ in self.mel_loss.scales]
        needed = max([n_fft // 2 for n_fft in transforms] + list(game.discriminators.periods) + [0])
        if frames * hop <= needed:
            raise ConfigError(
                f"data.frames is {frames} frames ({frames * hop} samples), but the losses and the "
                f"discriminators look at more than {needed} at once; take longer crops or "
                "shorter transforms"
            )

    def generate(self, batch: Batch, number: int, seed: int) -> Tensor:
        """Make the audio [batch, samples] of a batch, float32, as users will hear it."""
        noise = self.noise(batch, number, seed)
        return self._cut(self.model(_laid(batch.mel), noise), batch)

    def learn(self, batch: Batch, number: int, seed: int) -> tuple[Tensor, Terms]:
        """Make the audio, as the generator wants it made in training, and losses of its own."""
        noise = self.noise(batch, number, seed)
        learn: Any = getattr(self.model, "learn", None)
        if learn is None:
            return self._cut(self.model(_laid(batch.mel), noise), batch), {}
        audio, own = learn(_laid(batch.mel), noise, batch.audio)
        return self._cut(audio, batch), own

    def noise(self, batch: Batch, number: int, seed: int) -> Tensor | None:
        """Draw what drives the generator: a function of the seed and the batch's number."""
        if not self.noise_channels:
            return None
        samples = batch.mel.shape[2] * self.recipe.mel.hop_length
        shape = (len(batch.mel), self.noise_channels, samples)
        return draw_noise(shape, number, seed).to(batch.mel.device)

    def _cut(self, audio: Tensor, batch: Batch) -> Tensor:
        """Take what was recorded out of what was made."""
        begin = self.game.context * self.recipe.mel.hop_length
        return audio[:, begin : begin + batch.audio.shape[1]].float()

    def take_discriminators(self, checkpoint: Mapping[str, Any]) -> bool:
        """Take their weights from a checkpoint; False where it has none that fit."""
        prefix, state = "discriminators.", checkpoint.get("state_dict")
        if not isinstance(state, Mapping):
            return False
        found = {
            str(key).removeprefix(prefix): one
            for key, one in state.items()
            if str(key).startswith(prefix) and isinstance(one, Tensor)
        }
        expected = {key: one.shape for key, one in self.discriminators.state_dict().items()}
        if {key: one.shape for key, one in found.items()} != expected:
            return False
        self.discriminators.load_state_dict(found)
        return True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Let both networks step, and return the generator's loss."""
        self.files = batch.paths
        number = self.global_step * self.trainer.world_size + self.global_rank
        generated, own = self.learn(batch, number, self.recipe.seed)
        judged = self.global_step >= self.game.warmup_steps
        if judged:
            self._step(1, self.discriminators_loss(batch.audio, generated.detach()))
        loss = self.generators_loss(batch, generated, judged, own)
        self._step(0, loss)
        return loss.detach()

    def discriminators_loss(self, audio: Tensor, generated: Tensor) -> Tensor:
        """What the discriminators shall make small."""
        judgements = self.discriminators(torch.cat([audio, generated]))
        real, fake = zip(*(one.scores.chunk(2) for one in judgements), strict=True)
        loss = discriminator_loss(real, fake, self.game.loss)
        self.log("loss/discriminators", loss, batch_size=len(audio))
        return loss

    def generators_loss(self, batch: Batch, generated: Tensor, judged: bool, own: Terms) -> Tensor:
        """What the generator shall make small; `judged` by the discriminators too."""
        audio, game, terms = batch.audio, self.game, dict(own)
        if game.mel_weight:
            terms["mel"] = game.mel_weight, self.mel_loss(generated, audio)
        if game.stft_weight:
            terms["stft"] = game.stft_weight, self.stft_loss(generated, audio)
        if judged:
            with _frozen(self.discriminators):
                fake = self.discriminators(generated)
            if game.adversarial_weight:
                scores = [one.scores for one in fake]
                terms["adversarial"] = game.adversarial_weight, generator_loss(scores, game.loss)
            if game.feature_weight:
                with torch.no_grad():
                    real = self.discriminators(audio)
                maps = ([one.features for one in side] for side in (real, fake))
                terms["features"] = game.feature_weight, feature_matching_loss(*maps)
        loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
        for name, (_, term) in terms.items():
            self.log(f"loss/{name}", term, batch_size=len(audio))
        self.log("loss/train", loss, prog_bar=True, batch_size=len(audio))
        return loss

    def _step(self, network: int, loss: Tensor) -> None:
        """Step the generator (0) or the discriminators (1), and their schedule."""
        self.last_loss = loss.detach()
        optimiser = self.trainer.optimizers[network]
        backward = partial(self._backward, loss, optimiser)
        if network == 0:
            self.optimizers()[0].step(backward)  # type: ignore[index, call-arg, union-attr]
        else:
            self.trainer.strategy.optimizer_step(optimiser, backward)
        self.lr_schedulers()[network].step()  # type: ignore[index, union-attr]

    def _backward(self, loss: Tensor, optimiser: Optimizer) -> None:
        optimiser.zero_grad()
        alone = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
        with alone(), torch.autocast(loss.device.type, enabled=False):
            self.manual_backward(loss)
        if self.trainer.world_size == 1:
            return
        gradients = [p.grad for p in _parameters(optimiser) if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = self.trainer.strategy.reduce(flat, reduce_op="mean")
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient of one network; a GradScaler has been undone.

        Raises:
            TrainingError: It is not finite; with the step and the files of the batch.
        """
        settings, network = self.recipe.trainer_settings, self.trainer.optimizers.index(optimizer)
        name, clip = "generator", settings["gradient_clip_val"]
        if network == 1:
            name, own = "discriminators", self.game.gradient_clip_val
            clip = clip if own is None else own
        self.log(f"gradient_norm/{name}", self.gradient_norm(name, _parameters(optimizer)))
        self.clip_gradients(optimizer, clip, settings.get("gradient_clip_algorithm"))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mel distance of the averaged weights, which selects the best checkpoint."""
        number = batch_idx * self.trainer.world_size + self.global_rank
        loss = self.mel_distance(self.generate(batch, number, self.recipe.seed + 1), batch.audio)
        self.log("loss/valid", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.paths))

    def configure_optimizers(self) -> Any:
        """Adam and a schedule for each network; that of the discriminators begins with them."""
        settings, steps = self.recipe.optimiser, self.recipe.decay_steps
        rates = {"generator": settings.lr, "discriminators": self.game.lr or settings.lr}
        lengths = {"generator": steps, "discriminators": max(steps - self.game.warmup_steps, 1)}
        networks = {"generator": self.model, "discriminators": self.discriminators}
        made = []
        for name, network in networks.items():
            optimiser = torch.optim.AdamW(
                parameter_groups(network, decay=settings.weight_decay),
                lr=rates[name],
                betas=(settings.beta1, settings.beta2),
                foreach=True,
            )
            factor = partial(learning_rate_factor, settings=settings, decay_steps=lengths[name])
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
            scheduler = {"scheduler": schedule, "interval": "step", "name": f"lr/{name}"}
            made.append({"optimizer": optimiser, "lr_scheduler": scheduler})
        return made


def draw_noise(shape: tuple[int, ...], number: int, seed: int) -> Tensor:
    """Draw the normal noise of a batch, always the same for its number and the seed.

    The crops are drawn under the same keys; the counter begins where they never come.
    """
    philox = np.random.Philox(key=[seed, number], counter=[0, 0, 0, 1])
    return torch.from_numpy(np.random.Generator(philox).standard_normal(shape, np.float32))


def make_mel_loss(game: AdversarialConfig, spec: MelSpec) -> nn.Module:
    """Make the distance between mels that a generator is trained by."""
    if game.mel_loss == "single":
        return MelLoss(replace(spec, f_max=spec.sample_rate / 2))
    scales = "light" if game.mel_loss == "multi-scale-light" else "published"
    return MultiScaleMelLoss(spec.sample_rate, MEL_SCALES[scales])


def _laid(mel: Tensor) -> Tensor:
    """Lay a mel so that a generator's convolutions are fastest: nn/layout.py."""
    return innermost(mel) if mel.device.type == "cpu" else mel


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients through `network`, but none to its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _parameters(optimiser: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
