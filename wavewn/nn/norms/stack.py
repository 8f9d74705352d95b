"""The one causal stack that all contestants share, and who the contestants are.

A plain stack of our own rather than `nn/wn.py`: that one is conditioned on a mel and knows one
norm, and the study wants neither. Layer l reads the classes of the samples before t:

    a    = norm(W_gate [x(t - (K-1) d), ..., x(t)])       a: [2R]
    z    = tanh(a[:R]) * sigmoid(a[R:])
    x, s = norm(W_out z)                                  x: x + [R], skip: sum of [S]

and the logits are W_last relu(norm(W_head relu(skip))). A norm of weights sits on every
convolution, a norm of outputs behind every convolution but the last, whose logits are free.

All contestants start alike as far as their form allows: the outputs of a layer have the
deviation `start`, set by the gain of the norm or by the data (`make_stack`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.errors import ConfigError
from wavewn.nn.conv import CausalConv1d
from wavewn.nn.norms.activations import ACTIVATION_NORMS
from wavewn.nn.norms.weights import WEIGHT_NORMS
from wavewn.nn.weight_norm import data_dependent_init, folded_state_dict
from wavewn.nn.wn import gated_activation


@dataclass(frozen=True)
class Norm:
    """A contestant.

    Attributes:
        title: What people call it.
        weight: Key of `WEIGHT_NORMS`.
        activation: Key of `ACTIVATION_NORMS`, or "".
        data_init: Gains and biases are set from one batch.
        frozen_after: Share of the training after which statistics are frozen; None is never.
    """

    title: str
    weight: str = "plain"
    activation: str = ""
    data_init: bool = False
    frozen_after: float | None = None


NORMS: dict[str, Norm] = {
    "none": Norm("none"),
    "none-init": Norm("none with data init", data_init=True),
    "weight": Norm("weight norm", "weight"),
    "weight-init": Norm("weight norm with data init", "weight", data_init=True),
    "batch": Norm("batch norm", activation="batch"),
    "batch-frozen": Norm("frozen batch norm", activation="batch", frozen_after=0.2),
    "mean-only": Norm("mean-only batch norm", "weight", "mean-only", data_init=True),
    "layer": Norm("layer norm", activation="layer"),
    "rms": Norm("RMS norm", activation="rms"),
    "group": Norm("group norm over time", activation="group"),
    "spectral": Norm("spectral norm", "spectral"),
    "standardised": Norm("weight standardisation", "standardised"),
    "shared-l1": Norm("L1 weight norm with shared gain", "shared-l1"),
    "conditioned": Norm("weight conditioning", "conditioned"),
}


class NormedConv(nn.Module):
    """A causal convolution and its norm, [batch, time, in] to [batch, time, out].

    Args:
        norm: The contestant.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps.
        dilation: Distance between taps.
        start: Standard deviation that the output starts with.
        free: No norm of the output, as for logits.
    """

    def __init__(
        self,
        norm: Norm,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        dilation: int = 1,
        *,
        start: float = 1.0,
        free: bool = False,
    ) -> None:
        super().__init__()
        self.start = start
        self.conv = CausalConv1d(in_channels, out_channels, kernel_size, dilation)
        WEIGHT_NORMS[norm.weight](self.conv)
        self.norm: nn.Module | None = None
        if norm.activation and not free:
            self.conv.bias = None  # the norm has one; before a mean is taken it would do nothing
            self.norm = ACTIVATION_NORMS[norm.activation](out_channels)
            gain = getattr(self.norm, "weight", None)
            if gain is not None:
                nn.init.constant_(gain, start)

    def forward(self, x: Tensor, history: Tensor | None = None) -> Tensor:
        """Filter and normalise; `history` as in `CausalConv1d`."""
        y = self.conv(x, history)
        return y if self.norm is None else self.norm(y)


class CausalStack(nn.Module):
    """Classes of past samples in, logits of the next sample out.

    Args:
        norm: The contestant.
        classes: Of mu-law.
        residual_channels: R.
        skip_channels: S.
        kernel_size: K.
        dilations: One a layer.
    """

    def __init__(
        self,
        norm: Norm,
        classes: int,
        residual_channels: int,
        skip_channels: int,
        kernel_size: int,
        dilations: Sequence[int],
    ) -> None:
        super().__init__()
        R, S = residual_channels, skip_channels
        self.classes = classes
        self.embed = nn.Embedding(classes, R)
        self.gates = nn.ModuleList(
            NormedConv(norm, R, 2 * R, kernel_size, dilation) for dilation in dilations
        )
        start = len(dilations) ** -0.5  # so that the sum over the layers starts near one
        self.outs = nn.ModuleList(NormedConv(norm, R, R + S, start=start) for _ in dilations)
        self.head = NormedConv(norm, S, S)
        self.last = NormedConv(norm, S, classes, start=0.1, free=True)

    @property
    def contexts(self) -> list[int]:
        """Rows of the past that each layer reads."""
        return [gate.conv.context for gate in self.gates]  # type: ignore[union-attr, misc]

    @property
    def receptive_field(self) -> int:
        """Inputs that one output sees."""
        return 1 + sum(self.contexts)

    def memory(self, batch: int) -> list[Tensor]:
        """Make the memory of a stream before its first sample: a history a layer."""
        like = self.embed.weight
        return [like.new_zeros(batch, rows, like.shape[1]) for rows in self.contexts]

    def forward(self, classes: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """Run a whole signal, or the next chunk of a stream.

        Args:
            classes: [batch, time], int64; row t holds the class of the sample before t.
            memory: Of the stream, updated in place; None starts from silence.

        Returns:
            Logits, [batch, time, classes].
        """
        x = self.embed(classes)
        skip: Tensor | None = None
        R = x.shape[-1]
        for i, (gate, out) in enumerate(zip(self.gates, self.outs, strict=True)):
            y = out(gated_activation(gate(x, None if memory is None else memory[i])))
            if memory is not None:
                memory[i] = torch.cat([memory[i], x], dim=1)[:, x.shape[1] :]
            residual, own = y.split([R, y.shape[-1] - R], dim=-1)
            x = x + residual
            skip = own if skip is None else skip + own
        assert skip is not None
        return self.last(F.relu(self.head(F.relu(skip))))


def make_stack(
    norm: Norm,
    classes: int,
    residual_channels: int,
    skip_channels: int,
    kernel_size: int,
    dilations: Sequence[int],
    *,
    seed: int,
    batch: Tensor,
) -> CausalStack:
    """Build and initialise a contestant; a function of its arguments alone.

    With one seed all contestants draw the same weights. "None" with data initialisation is the
    folded "weight norm" with it: both start as the very same function.

    Args:
        norm: The contestant.
        classes: As in `CausalStack`, like the sizes that follow.
        residual_channels: R.
        skip_channels: S.
        kernel_size: K.
        dilations: One a layer.
        seed: Of the weights.
        batch: Classes [batch, time] of training speech, longer than the receptive field; the
            initialisation looks at it.

    Raises:
        ConfigError: The batch is too short.
    """
    sizes = (classes, residual_channels, skip_channels, kernel_size, dilations)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CausalStack(norm, *sizes)
        if not norm.data_init:
            return model
        if batch.shape[1] <= model.receptive_field:
            raise ConfigError(
                f"initialisation from data needs more than {model.receptive_field} samples a "
                f"signal, got {batch.shape[1]}; take longer crops"
            )
        if norm.weight == "plain":
            torch.manual_seed(seed)
            normed = CausalStack(Norm("", "weight"), *sizes)
        else:
            normed = model
    starts = {name: m.start for name, m in normed.named_modules() if isinstance(m, NormedConv)}
    data_dependent_init(
        normed,
        lambda: normed(batch),
        scale=lambda name, channels: starts[name.removesuffix(".conv")],
        skip_left=model.receptive_field / batch.shape[1],
    )
    if normed is not model:
        model.load_state_dict(folded_state_dict(normed))
    return model
