"""Heads: what a network's last row says about the next sample.

A head turns parameters into a distribution: `log_prob` for training, `sample(parameters, noise)`
for generation. It owns no weights and draws no random numbers. `noise` names what it needs for a
sample, in order, as `wavewn.noise.draw_noise` spells it.

A sample travels as a *level*, one float in [-1, 1] (pre-emphasised if the model says so): what
the network is fed, through `features`, and what it puts out, through `decode`.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn import config
from wavewn.audio.companding import mu_law_compand, mu_law_expand

LINEAR_GAIN = 8.0  # brings speech in the linear domain to the size of companded speech


class Head(Protocol):
    """What every head offers."""

    noise: tuple[str, ...]
    parameters: int
    input_features: int

    def encode(self, audio: Tensor) -> Tensor:
        """Audio [...] to levels [...], the nearest that the head can put out."""

    def decode(self, level: Tensor) -> Tensor:
        """Levels [...] to audio [...] in [-1, 1]."""

    def features(self, level: Tensor) -> Tensor:
        """Levels [...] to network inputs [..., input_features]; 0 gives zeros."""

    def damaged(self, level: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Multiply companded levels by `keep` and add noise: small where the signal is small."""

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """Natural logarithm of the probability of `level` [...]; float32."""

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Map parameters [..., parameters] and noise [..., len(self.noise)] to levels [...]."""


class MuLawHead:
    """Softmax over mu-law classes; a level is the companded value of a class.

    Temperature divides the logits.

    Source: van den Oord et al. 2016, arXiv:1609.03499, section 2.2; ITU-T G.711 for the curve.
    """

    noise: tuple[str, ...] = ("uniform",)
    input_features = 2  # the level and its expansion: the net predicts best in a linear domain

    def __init__(self, settings: config.MuLaw) -> None:
        self.classes = self.parameters = settings.classes

    def classes_of(self, level: Tensor) -> Tensor:
        """Levels to int64 classes."""
        return ((level.clamp(-1, 1) + 1) * ((self.classes - 1) / 2)).round().long()

    def levels_of(self, index: Tensor) -> Tensor:
        """Classes to float32 levels."""
        return index.float() * (2 / (self.classes - 1)) - 1

    def encode(self, audio: Tensor) -> Tensor:
        """See `Head.encode`."""
        compand = mu_law_compand(audio.clamp(-1, 1), self.classes)
        return self.levels_of(self.classes_of(compand))

    def decode(self, level: Tensor) -> Tensor:
        """See `Head.decode`."""
        return mu_law_expand(level, self.classes)

    def features(self, level: Tensor) -> Tensor:
        """See `Head.features`."""
        return torch.stack([level, LINEAR_GAIN * mu_law_expand(level, self.classes)], dim=-1)

    def damaged(self, level: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """See `Head.damaged`; a level is companded already."""
        return (keep * level + noise).clamp(-1, 1)

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """See `Head.log_prob`."""
        flat = F.cross_entropy(
            parameters.float().flatten(0, -2), self.classes_of(level).flatten(), reduction="none"
        )
        return -flat.view(level.shape)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Invert the cumulative distribution at the uniform noise."""
        if temperature == 0:
            return self.levels_of(parameters.argmax(-1))
        cumulative = torch.softmax(parameters.float() / temperature, dim=-1).cumsum(-1)
        threshold = noise[..., :1] * cumulative[..., -1:]
        index = (cumulative <= threshold).sum(-1).clamp_max(self.classes - 1)
        return self.levels_of(index)


class LinearLevels:
    """What the heads over a continuous sample share: a level is the sample itself.

    Their parameters end with `components` means, then as many log scales.
    """

    input_features = 1
    components = 1

    def encode(self, audio: Tensor) -> Tensor:
        """See `Head.encode`."""
        return audio.clamp(-1, 1)

    def decode(self, level: Tensor) -> Tensor:
        """See `Head.decode`."""
        return level

    def features(self, level: Tensor) -> Tensor:
        """See `Head.features`."""
        return LINEAR_GAIN * level[..., None]

    def damaged(self, level: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """See `Head.damaged`; the curve is that of 256 classes."""
        return mu_law_expand((keep * mu_law_compand(level, 256) + noise).clamp(-1, 1), 256)

    def relocate(self, parameters: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """Read means and scales in units of `scale` around `location`, and give them in levels.

        Args:
            parameters: [..., parameters].
            location: [...].
            scale: [...], positive.

        Returns:
            [..., parameters], float32.
        """
        weights = parameters.shape[-1] - 2 * self.components
        weight, mean, log_scale = parameters.float().split(
            [weights, self.components, self.components], dim=-1
        )
        location, scale = location[..., None], scale[..., None]
        return torch.cat([weight, location + scale * mean, log_scale + scale.log()], dim=-1)


class LogisticMixtureHead(LinearLevels):
    """Mixture of logistics, integrated over the 65,536 steps of 16-bit audio.

    Parameters are [components] logits, means, log scales. Temperature multiplies the scales and
    divides the logits.

    Source: Salimans et al. 2017, "PixelCNN++", arXiv:1701.05517, section 2.1; for speech, van den
    Oord et al. 2017, arXiv:1711.10433, section 2.
    """

    noise: tuple[str, ...] = ("uniform", "logistic")
    half_step = 1 / 65535

    def __init__(self, settings: config.LogisticMixture) -> None:
        self.components = settings.components
        self.log_scale_min = settings.log_scale_min
        self.parameters = 3 * settings.components

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """Probability mass of the 16-bit step around `level`; the outermost steps are open."""
        logits, mean, log_scale = parameters.float().chunk(3, dim=-1)
        log_scale = log_scale.clamp_min(self.log_scale_min)
        x = level.float()[..., None]
        inverse = torch.exp(-log_scale)
        upper = (x - mean + self.half_step) * inverse
        lower = (x - mean - self.half_step) * inverse
        # sigmoid(upper) - sigmoid(lower), without cancellation in either tail
        width = 2 * self.half_step * inverse
        log_mass = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        log_mass = torch.where(x <= -1 + self.half_step, F.logsigmoid(upper), log_mass)
        log_mass = torch.where(x >= 1 - self.half_step, F.logsigmoid(-lower), log_mass)
        return torch.logsumexp(F.log_softmax(logits, dim=-1) + log_mass, dim=-1)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Choose a component by the uniform noise, then scale the logistic noise."""
        logits, mean, log_scale = parameters.float().chunk(3, dim=-1)
        if temperature == 0:
            index = logits.argmax(-1, keepdim=True)
        else:
            cumulative = torch.softmax(logits / temperature, dim=-1).cumsum(-1)
            threshold = noise[..., :1] * cumulative[..., -1:]
            index = (cumulative <= threshold).sum(-1, keepdim=True).clamp_max(self.components - 1)
        mean = mean.gather(-1, index)[..., 0]
        scale = log_scale.gather(-1, index)[..., 0].clamp_min(self.log_scale_min).exp()
        return (mean + temperature * scale * noise[..., 1]).clamp(-1, 1)


class GaussianHead(LinearLevels):
    """One Gaussian; parameters are mean and log scale, temperature multiplies the scale.

    `log_prob` is a density, so it may be positive.

    Source: Ping, Peng & Chen 2018, "ClariNet", arXiv:1807.07281, section 3.1.
    """

    noise: tuple[str, ...] = ("normal",)
    parameters = 2

    def __init__(self, settings: config.Gaussian) -> None:
        self.log_scale_min = settings.log_scale_min

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """See `Head.log_prob`."""
        mean, log_scale = parameters.float().unbind(-1)
        log_scale = log_scale.clamp_min(self.log_scale_min)
        z = (level.float() - mean) * torch.exp(-log_scale)
        return -0.5 * z * z - log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Scale the normal noise."""
        mean, log_scale = parameters.float().unbind(-1)
        scale = log_scale.clamp_min(self.log_scale_min).exp()
        return (mean + temperature * scale * noise[..., 0]).clamp(-1, 1)


def make_head(settings: config.MuLaw | config.LogisticMixture | config.Gaussian) -> Head:
    """Return the head of these settings."""
    if isinstance(settings, config.MuLaw):
        return MuLawHead(settings)
    if isinstance(settings, config.LogisticMixture):
        return LogisticMixtureHead(settings)
    return GaussianHead(settings)
