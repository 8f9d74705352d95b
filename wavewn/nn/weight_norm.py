"""Weight normalisation through a model's whole life: attach, initialise, train, load, fold.

    w = g * v / ||v||        one gain g per output channel, ||w|| = |g|

The direction and the length of a weight are learned apart. Nothing is shared across a batch or
across time, so the network that is trained is the network that streams. The life of a model:

1. It is built plain and initialised; `apply_weight_norm` then takes g and v from its weights, so
   that no initialisation gets lost. Later changes go through `set_weight`, because writing into
   `module.weight` writes into a temporary.
2. `data_dependent_init` sets gains and biases from one batch.
3. `convert_state_dict` reads and writes every spelling: parametrized (torch's own), hook (the old
   `weight_g`, `weight_v`) and plain.
4. `folded_state_dict` gives plain weights for a freshly built model. Never copy a model and strip
   the copy: torch shares the parametrized class between copies and the original would break.

g and v stay float32 whatever the compute type; the product is cast by autocast.

Source: Salimans & Kingma 2016, arXiv:1602.07868, equations 2 and 3 and section 3.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wavewn.errors import ConfigError

NORMED_TYPES = (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)
_PARAMETRIZED = (".parametrizations.weight.original0", ".parametrizations.weight.original1")
_HOOK = (".weight_g", ".weight_v")


def direction_norm(v: Tensor, dim: int) -> Tensor:
    """Euclidean length of each slice of `v` along `dim`, in float32 or better, keeping dims."""
    v = v.double() if v.dtype == torch.float64 else v.float()
    return v.norm(2, dim=[d for d in range(v.dim()) if d != dim], keepdim=True)


class WeightNorm(nn.Module):
    """The parametrization w = g * v / ||v||, for `torch.nn.utils.parametrize`.

    Args:
        dim: Axis of the weight that counts output channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight. torch's fused product serves the first and the last axis."""
        if self.dim in (0, v.dim() - 1):
            return torch._weight_norm(v, g, self.dim)
        return v * (g / direction_norm(v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return (g, v) with g * v / ||v|| = weight."""
        v = weight.detach().float() if weight.dtype != torch.float64 else weight.detach()
        return direction_norm(v, self.dim), v.clone()


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
    """Return the weight-normed modules of `model` by name, in definition order."""
    return {name: m for name, m in model.named_modules() if is_weight_normed(m)}


def gain_and_direction(module: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the parameters (g, v) of a weight-normed module."""
    both = module.parametrizations["weight"]  # type: ignore[index, union-attr]
    return both.original0, both.original1  # type: ignore[union-attr, return-value]


def weight_norm(module: nn.Module, *, name: str = "", dim: int | None = None) -> nn.Module:
    """Attach weight norm to `module.weight`, keeping its value; return the module.

    Args:
        module: Has a `weight` of at least two axes. A bfloat16 or float16 weight becomes float32.
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
    if weight.dtype != torch.float64:
        module.weight = nn.Parameter(weight.detach().float())
    parametrize.register_parametrization(module, "weight", WeightNorm(axis), unsafe=True)
    return module


def apply_weight_norm(
    model: nn.Module, *, skip: Callable[[str], bool] = lambda name: False
) -> list[str]:
    """Attach weight norm to every convolution and linear layer of `model`.

    Args:
        model: Built plain and already initialised.
        skip: Says for a module's name whether it stays plain.

    Returns:
        Names of the modules that now have weight norm.

    Raises:
        ConfigError: There was nothing to attach to.
    """
    chosen = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, NORMED_TYPES) and not is_weight_normed(m) and not skip(name)
    }
    if not chosen:
        raise ConfigError("no plain Conv1d, ConvTranspose1d or Linear to attach weight norm to")
    for name, module in chosen.items():
        weight_norm(module, name=name)
    return list(chosen)


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
        dim = module.parametrizations["weight"][0].dim  # type: ignore[index, union-attr]
        check_direction(gain_and_direction(module)[1], dim, name)


def set_weight(module: nn.Module, weight: Tensor) -> None:
    """Give `module` this weight, through gain and direction where it has weight norm."""
    with torch.no_grad():
        if is_weight_normed(module):
            check_direction(weight, module.parametrizations["weight"][0].dim, "weight")  # type: ignore
            module.weight = weight
        else:
            module.weight.copy_(weight)  # type: ignore[operator]


def folded_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of `model` with plain float32 weights, for a model built without norm.

    The product is taken in float64 and rounded once. Tensors are detached copies.
    """
    state = convert_state_dict(model.state_dict(), "plain")
    for name, module in normed_modules(model).items():
        g, v = gain_and_direction(module)
        dim = module.parametrizations["weight"][0].dim  # type: ignore[index, union-attr]
        exact = v.detach().double() * (g.detach().double() / direction_norm(v.double(), dim))
        key = f"{name}.weight" if name else "weight"
        state[key] = exact.to(v.dtype)
    return state


def convert_state_dict(
    state: Mapping[str, Tensor], to: str, *, names: list[str] | None = None
) -> dict[str, Tensor]:
    """Spell the weight-normed entries of a state dict another way.

    Args:
        state: Any mixture of the three spellings. It is not changed.
        to: "parametrized", "hook" or "plain".
        names: Modules whose plain weights are split; needed when `state` is plain and `to` is
            not. The gain is taken per row of axis 0, or with the shape that is already there.

    Returns:
        A new dict of detached copies.

    Raises:
        ConfigError: Unknown spelling, or a gain without its direction.
    """
    spellings = {"parametrized": _PARAMETRIZED, "hook": _HOOK, "plain": None}
    if to not in spellings:
        raise ConfigError(f"spelling must be one of {', '.join(spellings)}, got '{to}'")
    result: dict[str, Tensor] = {}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for key, value in state.items():
        for gain_end, direction_end in (_PARAMETRIZED, _HOOK):
            if key.endswith(gain_end):
                name = key.removesuffix(gain_end)
                if name + direction_end not in state:
                    raise ConfigError(f"'{key}' has no '{name + direction_end}' beside it")
                pairs[name] = (value.detach().clone(), state[name + direction_end].detach().clone())
        if not key.endswith(_PARAMETRIZED + _HOOK):
            result[key] = value.detach().clone()
    target = spellings[to]
    for name in names or []:
        if name not in pairs and target is not None and f"{name}.weight" in result:
            weight = result.pop(f"{name}.weight")
            pairs[name] = (direction_norm(weight, 0), weight)
    for name, (g, v) in pairs.items():
        if target is None:
            norm_dims = [d for d in range(v.dim()) if g.shape[d] == 1 and v.shape[d] != 1]
            norm = v.double().norm(2, dim=norm_dims or None, keepdim=True)
            result[f"{name}.weight"] = (v.double() * (g.double() / norm)).to(v.dtype)
        else:
            result[name + target[0]], result[name + target[1]] = g, v
    return result


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load `state`, in any spelling, into `model`, which may have weight norm or not.

    Always strict: a weight that was silently skipped is the worst kind of trained model.

    Raises:
        ConfigError: Missing, unexpected or misshapen entries, or a dead direction.
    """
    names = list(normed_modules(model))
    converted = convert_state_dict(state, "parametrized" if names else "plain", names=names)
    own = model.state_dict()
    problems = [f"missing '{key}'" for key in own if key not in converted]
    problems += [f"unexpected '{key}'" for key in converted if key not in own]
    for key, value in converted.items():
        if key in own and own[key].shape != value.shape:
            shapes = f"{list(own[key].shape)} expected, {list(value.shape)} found"
            hint = ""
            if key.endswith(_PARAMETRIZED[0]):
                hint = " (the gain counts another axis: pass dim to weight_norm)"
            problems.append(f"'{key}' has {shapes}{hint}")
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ConfigError(f"state does not fit the model: {'; '.join(problems[:4])}{more}")
    model.load_state_dict(converted, strict=True)
    check_directions(model)


def parameter_groups(
    model: nn.Module, *, decay: float = 0.0
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Return optimiser groups in which neither directions, gains nor biases decay.

    Decay of v changes nothing but the effective learning rate, since v is normalised; only plain
    weights of two axes or more decay.
    """
    kept = {id(p) for m in normed_modules(model).values() for p in gain_and_direction(m)}
    plain, free = [], []
    for parameter in model.parameters():
        decays = id(parameter) not in kept and parameter.dim() >= 2
        (plain if decays else free).append(parameter)
    groups = [(plain, decay), (free, 0.0)]
    return [{"params": params, "weight_decay": rate} for params, rate in groups if params]


@dataclass
class InitReport:
    """What `data_dependent_init` did: layers in the order of use, channels without signal."""

    layers: list[str] = field(default_factory=list)
    dead: dict[str, list[int]] = field(default_factory=dict)


@torch.no_grad()
def data_dependent_init(
    model: nn.Module,
    run: Callable[[], object],
    *,
    scale: Callable[[str, int], Tensor | float] = lambda name, channels: 1.0,
    minimum: float = 1e-6,
    max_gain: float = 10.0,
) -> InitReport:
    """Set gains and biases so that every layer's output has mean 0 and a chosen deviation.

    One forward pass; each layer sees the outputs of the layers already set.

    Args:
        model: Its weight-normed layers are set; each must have a bias to be centred.
        run: Calls the model on one batch of real data.
        scale: Wanted standard deviation of a layer's output, one number or one per channel.
        minimum: Deviation below which a channel counts as dead and keeps its gain.
        max_gain: Bound of the factor on a gain.

    Returns:
        What was set.

    Raises:
        ConfigError: No layer with a live channel was reached: the batch is silent or `run` does
            not call the model.

    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3, equation 5.
    """
    report = InitReport()
    normed = normed_modules(model)
    names = {id(m): name for name, m in normed.items()}

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor | None:
        name = names[id(module)]
        if name in report.layers:
            return None
        report.layers.append(name)
        flat = output.float().flatten(0, -2)  # channels-last rows
        mean, deviation = flat.mean(0), flat.std(0, correction=0)
        live = deviation > minimum
        if not bool(live.all()):
            report.dead[name] = (~live).nonzero().flatten().tolist()
        wanted = torch.as_tensor(scale(name, flat.shape[1]), device=flat.device)
        factor = torch.where(live, (wanted / deviation.clamp_min(minimum)), 1.0)
        factor = factor.clamp(max=max_gain)
        g = gain_and_direction(module)[0]
        g.mul_(factor.reshape(g.shape))
        result = output.float() * factor
        if module.bias is not None:
            shift = mean * factor
            module.bias.mul_(factor).sub_(shift)  # type: ignore[operator, union-attr]
            result = result - shift
        return result.to(output.dtype)

    with ExitStack() as stack:
        for module in normed.values():
            stack.callback(module.register_forward_hook(hook).remove)
        run()
    alive = [n for n in report.layers if len(report.dead.get(n, [])) < normed[n].weight.shape[0]]
    if not alive:
        raise ConfigError(
            "data-dependent initialisation saw no signal: expected a batch of audible audio, got "
            "silence; check the corpus or the crop length"
        )
    return report
