"""The product w = g * v / ||v||: how it is attached to a layer, checked, set and optimised.

The package tells the whole story; import from `wavewn.nn.weight_norm`.

Source: Salimans & Kingma 2016, arXiv:1602.07868, equations 2 and 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wavewn.errors import ConfigError, ShapeError

NORMED_TYPES = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Linear)

# One kernel forward and one backward instead of a handful. torch's own parametrization rests on
# it, but its name is private: where it is missing the composite form below serves.
_fused = getattr(torch, "_weight_norm", None)


def master(weight: Tensor) -> Tensor:
    """Return `weight` in the type that gains and directions are kept in: float32 or float64."""
    return weight if weight.dtype == torch.float64 else weight.float()


def direction_norm(v: Tensor, dim: int) -> Tensor:
    """Euclidean length of each slice of `v` along `dim`, in float32 or better, keeping dims."""
    return master(v).norm(2, dim=[d for d in range(v.dim()) if d != dim], keepdim=True)


def composite(g: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return g * v / ||v|| by plain operations; any axis."""
    return v * (g / direction_norm(v, dim))


class WeightNorm(nn.Module):
    """The parametrization w = g * v / ||v||, for `torch.nn.utils.parametrize`.

    Args:
        dim: Axis of the weight that counts output channels, not negative.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight. torch's fused product serves the first and the last axis only."""
        if _fused is not None and self.dim in (0, v.dim() - 1):
            return _fused(v, g, self.dim)
        return composite(g, v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return (g, v) with g * v / ||v|| = weight."""
        v = master(weight.detach()).clone()
        return direction_norm(v, self.dim), v


def output_dim(module: nn.Module) -> int:
    """Axis of `module.weight` that counts output channels: 1 for transposed convolutions."""
    return 1 if isinstance(module, nn.ConvTranspose1d) else 0


def is_weight_normed(module: nn.Module) -> bool:
    """Whether `module.weight` is a product of gain and direction."""
    if not parametrize.is_parametrized(module, "weight"):
        return False
    parametrizations: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
    return isinstance(parametrizations["weight"][0], WeightNorm)  # type: ignore[index]


def normed_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the weight-normed modules of `model` by name, each once, in definition order."""
    return {name: m for name, m in model.named_modules() if is_weight_normed(m)}


def gain_and_direction(module: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the parameters (g, v) of a weight-normed module."""
    both = module.parametrizations["weight"]  # type: ignore[index, union-attr]
    return both.original0, both.original1  # type: ignore[union-attr, return-value]


def normed_dim(module: nn.Module) -> int:
    """Axis over which the gain of a weight-normed module counts."""
    return module.parametrizations["weight"][0].dim  # type: ignore[index, union-attr, return-value]


def check_direction(v: Tensor, dim: int, label: str) -> None:
    """Raise ConfigError, naming the rows, when a slice of `v` has no direction."""
    norm = direction_norm(v.detach(), dim).flatten()
    bad = ((norm == 0) | ~norm.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise ConfigError(
            f"weight norm: zero or non-finite direction in '{label}', rows {bad[:8]}; to start a "
            f"layer at zero set its gain g to 0 and leave v random"
        )


def check_directions(model: nn.Module) -> None:
    """Raise ConfigError when any weight-normed layer of `model` has a dead direction.

    Meant for construction, loading and a callback, not for the forward pass: it waits for the
    device.
    """
    for name, module in normed_modules(model).items():
        check_direction(gain_and_direction(module)[1], normed_dim(module), name)


def weight_norm(module: nn.Module, *, name: str = "", dim: int | None = None) -> nn.Module:
    """Attach weight norm to `module.weight`, keeping its value; return the module.

    Args:
        module: Has a `weight` of at least two axes. Half-precision weights and biases become
            float32 masters; autocast rounds what they give.
        name: What an error calls the module.
        dim: Axis of output channels; None takes the module's own (`output_dim`). Foreign
            checkpoints that normalise transposed convolutions per input channel pass 0.

    Raises:
        ConfigError: Already attached, a negative axis (torch reads -1 as "whole tensor"), or a
            zero or non-finite direction.
    """
    label = name or type(module).__name__
    if is_weight_normed(module):
        raise ConfigError(f"{label} already has weight norm; attach it once")
    weight: Tensor = module.weight  # type: ignore[assignment]
    axis = output_dim(module) if dim is None else dim
    if not 0 <= axis < weight.dim() or weight.dim() < 2:
        raise ConfigError(
            f"weight norm of {label} needs an axis in 0..{weight.dim() - 1} of a weight with two "
            f"axes or more, got axis {axis} of shape {list(weight.shape)}"
        )
    check_direction(weight, axis, label)
    for key, value in list(module.named_parameters(recurse=False)):
        if master(value) is not value:
            setattr(module, key, nn.Parameter(master(value.detach()), value.requires_grad))
    parametrize.register_parametrization(module, "weight", WeightNorm(axis), unsafe=True)
    return module


def apply_weight_norm(
    model: nn.Module, *, skip: Callable[[str], bool] = lambda name: False
) -> list[str]:
    """Attach weight norm to every plain convolution and linear layer of `model`.

    A layer whose weight has another parametrization, such as spectral norm, keeps that alone.

    Args:
        model: Built plain and already initialised. Unchanged when this raises.
        skip: Says for a module's name whether it stays plain.

    Returns:
        Names of the modules that now have weight norm.

    Raises:
        ConfigError: There was nothing to attach to, or a layer has a zero direction.
    """
    chosen = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, NORMED_TYPES)
        and not parametrize.is_parametrized(m, "weight")
        and not skip(name)
    }
    if not chosen:
        raise ConfigError(
            "no plain Conv1d, Conv2d, ConvTranspose1d or Linear to attach weight norm to"
        )
    for name, module in chosen.items():
        check_direction(module.weight, output_dim(module), name)
    for name, module in chosen.items():
        weight_norm(module, name=name)
    return list(chosen)


@torch.no_grad()
def set_weight(module: nn.Module, weight: Tensor) -> None:
    """Give `module` this weight, through gain and direction where it has weight norm.

    Raises:
        ShapeError: `weight` has another shape than the module's.
        ConfigError: A direction of it is zero or not finite.
    """
    own: Tensor = module.weight  # type: ignore[assignment]
    if weight.shape != own.shape:
        raise ShapeError(f"the weight must be {list(own.shape)}, got {list(weight.shape)}")
    if not is_weight_normed(module):
        own.copy_(weight)
        return
    check_direction(weight, normed_dim(module), type(module).__name__)
    module.weight = weight.to(own)


def parameter_groups(
    model: nn.Module, *, decay: float = 0.0
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Return optimiser groups in which neither directions, gains nor biases decay.

    Decay of v changes nothing but the effective learning rate, since v is normalised; only plain
    weights of two axes or more decay.
    """
    kept = {id(p) for m in normed_modules(model).values() for p in gain_and_direction(m)}
    plain: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        decays = id(parameter) not in kept and parameter.dim() >= 2
        (plain if decays else free).append(parameter)
    groups = [(plain, decay), (free, 0.0)]
    return [{"params": params, "weight_decay": rate} for params, rate in groups if params]
