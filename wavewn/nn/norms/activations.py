"""Norms of a layer's output, each over [batch, time, channels].

They differ in what the mean m and the deviation s of y = gain (x - m) / s + bias are taken over:

    batch norm        m, s of each channel over batch and time; in evaluation, running averages
    mean-only         m likewise, s = 1 and no gain; it goes with weight norm
    group norm        m, s over the channels and the time of one signal
    layer norm        m, s over the channels of one row
    RMS norm          m = 0, s = root mean square over the channels of one row

The first three hear the future of the signal, and the first two the rest of the batch as well.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.1  # of the running averages, torch's own and the one of the paper's code


class BatchNorm(nn.BatchNorm1d):
    """Batch norm whose statistics are shared by batch and time.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    frozen = False

    def train(self, mode: bool = True) -> "BatchNorm":
        """Change the mode; a frozen norm keeps to its running statistics."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, time, channels]."""
        return super().forward(x.flatten(0, 1)).view_as(x)


class MeanOnly(nn.Module):
    """Mean-only batch norm: y = x - mean + bias, with a running mean in evaluation.

    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 4.
    """

    running_mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.momentum: float | None = MOMENTUM
        self.seen = 0
        self.frozen = False

    def train(self, mode: bool = True) -> "MeanOnly":
        """Change the mode; a frozen norm keeps to its running mean."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        """Centre [batch, time, channels]."""
        if not self.training:
            return x + (self.bias - self.running_mean)
        mean = x.mean((0, 1))
        self.seen += 1
        share = 1 / self.seen if self.momentum is None else self.momentum
        with torch.no_grad():
            self.running_mean.lerp_(mean, share)
        return x + (self.bias - mean)


class GroupNorm(nn.GroupNorm):
    """Group norm with one group: statistics over the channels and the time of each signal.

    Source: Wu & He 2018, arXiv:1803.08494.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, time, channels]."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class LayerNorm(nn.LayerNorm):
    """Layer norm of each row. Source: Ba et al. 2016, arXiv:1607.06450."""


class RMSNorm(nn.Module):
    """Root-mean-square norm of each row, with a bias. Source: arXiv:1910.07467."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [batch, time, channels]."""
        return F.rms_norm(x, self.weight.shape, self.weight, eps=1e-5) + self.bias


ACTIVATION_NORMS: dict[str, type[nn.Module]] = {
    "batch": BatchNorm,
    "mean-only": MeanOnly,
    "group": GroupNorm,
    "layer": LayerNorm,
    "rms": RMSNorm,
}


def batch_norms(model: nn.Module) -> list[BatchNorm | MeanOnly]:
    """Return the norms of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, BatchNorm | MeanOnly)]


def freeze(model: nn.Module) -> None:
    """Keep all batch norms to their running statistics from now on, in training too."""
    for norm in batch_norms(model):
        norm.frozen = True
        norm.train(False)


@torch.no_grad()
def set_precise_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running averages by the plain mean over batches; the mode is kept.

    Source: Wu & Johnson 2021, arXiv:2105.07576, section 3 (PreciseBN).
    """
    was_training = model.training
    norms = batch_norms(model)
    for norm in norms:
        norm.frozen, norm.momentum = False, None
        if isinstance(norm, BatchNorm):
            norm.reset_running_stats()
        else:
            norm.seen = 0
    model.train()
    for batch in batches:
        model(batch)
    model.train(was_training)
