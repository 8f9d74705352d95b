"""State dicts of weight-normed models: three spellings, one strict loader, folding.

    parametrized    NAME.parametrizations.weight.original0, .original1   torch's keys, and ours
    hook            NAME.weight_g, NAME.weight_v                         torch's old ones
    plain           NAME.weight                                          folded, or never normed

The package tells the whole story; import from `wavewn.nn.weight_norm`.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from wavewn.errors import ConfigError
from wavewn.nn.weight_norm.parametrization import (
    check_direction,
    direction_norm,
    normed_dim,
    normed_modules,
)

_PLAIN = "weight"
_SPLIT = {
    "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    "hook": ("weight_g", "weight_v"),
}
_SHOWN = 4  # problems that an error lists; a foreign file may have hundreds


def _key(name: str, end: str) -> str:
    """Join a module's name, empty for the model itself, and the end of a key."""
    return f"{name}.{end}" if name else end


def _name(key: str, end: str) -> str | None:
    """Return the module's name when `key` ends so, else None."""
    if key == end:
        return ""
    return key.removesuffix(f".{end}") if key.endswith(f".{end}") else None


def _take_pairs(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Return copies of the entries without weight norm, and (g, v) by module name."""
    rest: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    directions: dict[str, Tensor] = {}
    for key, value in state.items():
        for ends in _SPLIT.values():
            for end, found in zip(ends, (gains, directions), strict=True):
                name = _name(key, end)
                if name is not None:
                    found[name] = value.detach().clone()
        if not any(_name(key, end) is not None for ends in _SPLIT.values() for end in ends):
            rest[key] = value.detach().clone()
    alone = sorted(gains.keys() ^ directions.keys())
    if alone:
        raise ConfigError(
            f"gain and direction come in pairs, but '{alone[0] or 'the model'}' has one only"
        )
    for name, g in gains.items():
        if g.dim() != directions[name].dim():
            raise ConfigError(
                f"the gain of '{name}' must have one axis a weight axis (shape [out, 1, ...]), "
                f"got gain {list(g.shape)} and direction {list(directions[name].shape)}"
            )
    return rest, {name: (g, directions[name]) for name, g in gains.items()}


def _fold(name: str, g: Tensor, v: Tensor) -> Tensor:
    """Return g * v / ||v||, taken in float64 and rounded once; the axis is read off the gain."""
    norm = v.double().norm(2, dim=[d for d in range(v.dim()) if g.shape[d] == 1], keepdim=True)
    if not bool(((norm > 0) & norm.isfinite()).all()):
        raise ConfigError(f"weight norm: zero or non-finite direction in '{name}': cannot fold it")
    return (v.double() * (g.double() / norm)).to(v.dtype)


def convert_state_dict(
    state: Mapping[str, Tensor], to: str, *, axes: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Spell the weight-normed entries of a state dict another way.

    Args:
        state: Any mixture of the three spellings. It is not changed.
        to: "parametrized", "hook" or "plain".
        axes: By module name, the axis that counts output channels, for each plain weight that
            shall be split into gain and direction. Other plain weights stay plain.

    Returns:
        A new dict of detached copies. A gain in `state` keeps its shape, and so its axis.

    Raises:
        ConfigError: Unknown spelling, a gain without its direction, a weight that has no
            direction, or an axis for a weight that is not there.
    """
    if to not in (*_SPLIT, "plain"):
        raise ConfigError(f"spelling must be one of parametrized, hook, plain, got '{to}'")
    rest, pairs = _take_pairs(state)
    if to == "plain":
        return rest | {_key(n, _PLAIN): _fold(n, g, v) for n, (g, v) in pairs.items()}
    for name, axis in (axes or {}).items():
        if name in pairs:
            continue
        weight = rest.pop(_key(name, _PLAIN), None)
        if weight is None:
            raise ConfigError(f"no weight '{_key(name, _PLAIN)}' to split into gain and direction")
        check_direction(weight, axis, name)
        pairs[name] = (direction_norm(weight, axis), weight)
    gain_end, direction_end = _SPLIT[to]
    for name, (g, v) in pairs.items():
        rest[_key(name, gain_end)], rest[_key(name, direction_end)] = g, v
    return rest


def folded_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of `model` with plain weights, for a model built without weight norm.

    Weights are float32 like their masters (float64 where the model is). Tensors are detached
    copies and the model is left as it is. A model without weight norm gives its own state.

    Raises:
        ConfigError: A direction is zero or not finite.
    """
    return convert_state_dict(model.state_dict(), "plain")


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load `state`, in any spelling, into `model`, which may have weight norm or not.

    Always strict: a weight that was silently skipped is the worst kind of trained model. Layer by
    layer, gains and directions are split off or folded in as the model needs them.

    Raises:
        ConfigError: Missing, unexpected or misshapen entries, or a dead direction; the model is
            left as it was.
    """
    own = model.state_dict()
    normed = normed_modules(model)
    converted, pairs = _take_pairs(state)
    gain_end, direction_end = _SPLIT["parametrized"]
    for name, module in normed.items():
        weight = converted.pop(_key(name, _PLAIN), None)
        if name not in pairs and weight is not None and weight.dim() > normed_dim(module):
            pairs[name] = (direction_norm(weight, normed_dim(module)), weight)
    for name, (g, v) in pairs.items():
        if name in normed:
            converted[_key(name, gain_end)], converted[_key(name, direction_end)] = g, v
        else:
            converted[_key(name, _PLAIN)] = _fold(name, g, v)
    _check_fit(own, converted)
    for name, module in normed.items():
        check_direction(converted[_key(name, direction_end)], normed_dim(module), name)
    model.load_state_dict(converted, strict=True)


def _check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ConfigError unless both have the same keys and shapes."""
    problems = [f"missing '{key}'" for key in own if key not in state]
    problems += [f"unexpected '{key}'" for key in state if key not in own]
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            wrong = f"'{key}' has {list(own[key].shape)} expected, {list(value.shape)} found"
            if _name(key, _SPLIT["parametrized"][0]) is not None:
                wrong += " (if the gain counts another axis, pass that dim to weight_norm)"
            problems.append(wrong)
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ConfigError(f"state does not fit the model: {'; '.join(problems[:_SHOWN])}{more}")
