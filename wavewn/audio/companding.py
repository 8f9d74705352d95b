"""Companding and emphasis: the domain in which a vocoder models its samples.

Mu-law spends its classes where speech spends its samples, near zero. Pre-emphasis whitens the
spectrum, so that the noise of those classes is shaped like speech when the inverse filter runs
over the output.

Both filters carry their memory as an argument (`previous`), and both give the very same bits
whatever the chunking: every output is made by the same two float32 operations, one rounded
product and one rounded sum.

Source: ITU-T G.711 (mu-law); van den Oord et al. 2016, "WaveNet", section 2.2, arXiv:1609.03499.
"""

import math

import torch
from torch import Tensor

from wavewn.errors import ConfigError, ShapeError


def mu_law_compand(x: Tensor, classes: int) -> Tensor:
    """Map [-1, 1] to [-1, 1] so that small values take more room; values beyond are clamped."""
    mu = _mu(classes)
    x = x.clamp(-1.0, 1.0)
    return x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)


def mu_law_expand(y: Tensor, classes: int) -> Tensor:
    """Invert `mu_law_compand`; values outside [-1, 1] are clamped."""
    mu = _mu(classes)
    y = y.clamp(-1.0, 1.0)
    return y.sign() * torch.expm1(y.abs() * math.log1p(mu)) / mu


def mu_law_encode(x: Tensor, classes: int) -> Tensor:
    """Quantise audio in [-1, 1] to int64 classes 0 .. classes - 1, the nearest after companding."""
    mu = _mu(classes)
    levels = torch.floor((mu_law_compand(x, classes) + 1.0) * (0.5 * mu) + 0.5)
    return levels.clamp(0, mu).to(torch.int64)


def mu_law_decode(c: Tensor, classes: int) -> Tensor:
    """Give the float32 audio in the middle of each class."""
    return mu_law_expand(c.to(torch.float32) * (2.0 / _mu(classes)) - 1.0, classes)


def pre_emphasis(x: Tensor, coefficient: float, previous: Tensor | None = None) -> Tensor:
    """Filter with y[t] = x[t] - coefficient * x[t - 1]. Differentiable.

    Args:
        x: [batch, samples].
        coefficient: In [0, 1).
        previous: [batch], the input sample just before `x`. None means silence.

    Returns:
        [batch, samples].

    Raises:
        ConfigError: `coefficient` lies outside [0, 1).
        ShapeError: `x` or `previous` does not have the shape above.
    """
    previous = _check_filter(x, coefficient, previous)
    if x.shape[1] == 0:
        return x
    delayed = torch.cat([previous.unsqueeze(1), x[:, :-1]], dim=1)
    return x - delayed * coefficient


@torch.no_grad()
def de_emphasis(y: Tensor, coefficient: float, previous: Tensor | None = None) -> Tensor:
    """Invert `pre_emphasis`: x[t] = y[t] + coefficient * x[t - 1]. Carries no gradient.

    One sample is computed by torch on the tensor's own device, which is what a stream of single
    samples needs; more samples go through scipy's recursive filter on the CPU. The bits are the
    same: both do one float32 product and one float32 sum per sample, in this order.

    Args:
        y: [batch, samples], float32.
        coefficient: In [0, 1).
        previous: [batch], the *output* sample just before `y`. None means silence.

    Returns:
        [batch, samples].

    Raises:
        ConfigError: `coefficient` lies outside [0, 1).
        ShapeError: `y` or `previous` does not have the shape or dtype above.
    """
    previous = _check_filter(y, coefficient, previous)
    if y.dtype != torch.float32 or previous.dtype != torch.float32:
        raise ShapeError(f"de_emphasis needs float32, got {y.dtype} and {previous.dtype}")
    if y.shape[1] == 0:
        return y
    carry = previous.unsqueeze(1) * coefficient
    if y.shape[1] == 1:
        return y + carry

    import numpy as np
    from scipy.signal import lfilter

    feedback = np.array([1.0, -coefficient], dtype=np.float32)
    one = np.ones(1, dtype=np.float32)
    x, _ = lfilter(one, feedback, y.cpu().numpy(), axis=1, zi=carry.cpu().numpy())
    return torch.from_numpy(x).to(y.device)


def _mu(classes: int) -> int:
    if classes < 2:
        raise ConfigError(f"mu-law needs at least 2 classes, got {classes}")
    return classes - 1


def _check_filter(x: Tensor, coefficient: float, previous: Tensor | None) -> Tensor:
    if not 0 <= coefficient < 1:
        raise ConfigError(f"an emphasis coefficient must lie in [0, 1), got {coefficient}")
    if x.dim() != 2:
        raise ShapeError(f"audio must be [batch, samples], got {list(x.shape)}")
    if previous is None:
        return x.new_zeros(x.shape[0])
    if previous.shape != x.shape[:1]:
        raise ShapeError(
            f"previous must be [batch] = [{x.shape[0]}], got {list(previous.shape)}; "
            "it is one sample per row"
        )
    return previous
