"""The three flags of a norm, found by measurement.

    causal while training   the future of the input does not move an output in train mode
    streams                 in evaluation, one sample at a time gives what the whole pass gives
    folds away              in evaluation, plain convolutions give what the normed ones give

The first is exact, so one bit of difference is a leak. The others are taken in float64, where
rounding is far below `TOLERANCE` and a real difference far above it.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavewn.nn.norms.stack import CausalStack, Norm, NormedConv

TOLERANCE = 1e-6  # of logits, in float64
PLAIN = Norm("plain")
STREAMED = 64  # samples beyond the receptive field; one at a time takes its time


@dataclass(frozen=True)
class Flags:
    """What was measured, and the flags that follow.

    Attributes:
        leak: How far logits before a change of the input move in train mode, at most.
        leak_nats: The same as a mean Kullback-Leibler divergence.
        batch_leak: How far a signal's logits move when the rest of its batch changes, at most.
        stream_error: Of streaming against the whole pass, both in evaluation, at most.
        train_error: Of streaming in evaluation against the whole pass in train mode, at most.
        fold_error: Of the folded stack against the normed one, at most.
    """

    leak: float
    leak_nats: float
    batch_leak: float
    stream_error: float
    train_error: float
    fold_error: float

    @property
    def causal(self) -> bool:
        """Causal while training, and blind to the rest of the batch."""
        return self.leak == 0 and self.batch_leak == 0

    @property
    def streams(self) -> bool:
        """One sample at a time equals the whole."""
        return self.stream_error <= TOLERANCE

    @property
    def folds(self) -> bool:
        """Plain convolutions do the same."""
        return self.fold_error <= TOLERANCE


@torch.no_grad()
def training_logits(model: CausalStack, classes: Tensor) -> Tensor:
    """Run a copy in train mode, so that statistics and power iterations stay as they are."""
    return copy.deepcopy(model).train()(classes)


def future_leak(model: CausalStack, classes: Tensor) -> tuple[float, float]:
    """Silence the second half of the input and look at the logits of the first half.

    Returns:
        The largest move of a logit, and the mean divergence in nats.
    """
    half = classes.shape[1] // 2
    changed = classes.clone()
    changed[:, half:] = model.classes // 2
    before = training_logits(model, classes)[:, :half]
    after = training_logits(model, changed)[:, :half]
    p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    nats = (p.exp() * (p - q)).sum(-1).mean()
    return (before - after).abs().max().item(), nats.item()


def batch_leak(model: CausalStack, classes: Tensor) -> float:
    """Change all signals of a batch but the first and look at the first one's logits."""
    changed = classes.clone()
    changed[1:] = changed[1:].flip(1)
    before, after = training_logits(model, classes), training_logits(model, changed)
    return (before[0] - after[0]).abs().max().item()


@torch.no_grad()
def streamed(model: CausalStack, classes: Tensor) -> Tensor:
    """Run [batch, time] in evaluation, one sample at a time, in the type of the model."""
    model = copy.deepcopy(model).eval()
    memory = model.memory(len(classes))
    return torch.cat([model(column, memory) for column in classes.split(1, dim=1)], dim=1)


@torch.no_grad()
def folded(layer: NormedConv) -> NormedConv:
    """Read weight and bias off a layer's answers to zeros and impulses, as if it were affine.

    Returns:
        A layer without a norm; it equals `layer` in evaluation if that is affine.
    """
    conv = layer.conv
    plain = NormedConv(PLAIN, conv.in_channels, conv.out_channels, conv.taps, conv.spacing)
    plain = plain.to(next(layer.parameters()).dtype)
    n, taps, length = conv.in_channels, conv.taps, conv.context + 1
    probes = torch.zeros(taps * n + 1, length, n, dtype=plain.conv.weight.dtype)
    for tap in range(taps):
        rows = torch.arange(n)
        probes[tap * n + rows, tap * conv.spacing, rows] = 1
    answers = layer(probes)[:, -1]
    bias = answers[-1]
    weight = (answers[:-1] - bias).view(taps, n, -1).permute(2, 1, 0)
    plain.conv.weight.copy_(weight)
    assert plain.conv.bias is not None
    plain.conv.bias.copy_(bias)
    return plain


@torch.no_grad()
def fold_error(model: CausalStack, classes: Tensor) -> float:
    """Put folded layers in the place of all normed ones and compare the logits."""
    normed = copy.deepcopy(model).eval()
    plain = copy.deepcopy(normed)
    for name, layer in normed.named_modules():
        if isinstance(layer, NormedConv):
            _replace(plain, name, folded(layer))
    return (plain(classes) - normed(classes)).abs().max().item()


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def measure_flags(model: CausalStack, classes: Tensor) -> Flags:
    """Measure all of it; `model` is left as it was.

    Args:
        model: Fresh or trained.
        classes: Speech, [at least 2 signals, time]; longer than the receptive field.
    """
    leak, nats = future_leak(model, classes)
    exact, short = copy.deepcopy(model).double(), classes[:2, : model.receptive_field + STREAMED]
    live = streamed(exact, short)
    with torch.no_grad():
        whole = copy.deepcopy(exact).eval()(short)
    return Flags(
        leak=leak,
        leak_nats=nats,
        batch_leak=batch_leak(model, classes),
        stream_error=(live - whole).abs().max().item(),
        train_error=(live - training_logits(exact, short)).abs().max().item(),
        fold_error=fold_error(exact, short),
    )
