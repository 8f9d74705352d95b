"""Weight normalisation through a model's whole life: attach, initialise, train, load, fold.

    w = g * v / ||v||        one gain g per output channel, ||w|| = |g|

The direction and the length of a weight are learned apart. Nothing is shared across a batch or
across time, so the network that is trained is the network that streams. The life of a model:

1. It is built plain and initialised; `apply_weight_norm` then takes g and v from its weights, so
   that no initialisation gets lost. Later changes go through `set_weight`, because writing into
   `module.weight` writes into a temporary.
2. `data_dependent_init` sets gains and biases from one batch.
3. `parameter_groups` keeps weight decay off directions, gains and biases.
4. `load_state` reads every spelling: parametrized (torch's own), hook (the old `weight_g`,
   `weight_v`) and plain; `convert_state_dict` writes them.
5. `folded_state_dict` gives plain weights for a freshly built model. Never copy a model and strip
   the copy: torch shares the parametrized class between copies and the original would break.

g and v stay float32 whatever the compute type; the product is cast by autocast. An average of a
model's parameters (EMA) averages g and v apart, as the paper's authors do: ||mean(v)|| is then at
most mean(||v||), which is harmless because only the direction of v counts.

This file is the door; the parts lie in `parametrization.py`, `data_init.py` and
`weight_state.py`, because one file of all would be too long to read.

Source: Salimans & Kingma 2016, arXiv:1602.07868, equations 2 and 3 and section 3.
"""

from torch import nn

from wavewn.nn.data_init import InitReport, data_dependent_init
from wavewn.nn.parametrization import (
    WeightNorm,
    apply_weight_norm,
    check_directions,
    gain_and_direction,
    is_weight_normed,
    normed_modules,
    output_dim,
    set_weight,
    weight_norm,
)
from wavewn.nn.weight_state import convert_state_dict, folded_state_dict, load_state

__all__ = [
    "InitReport",
    "WeightNorm",
    "apply_weight_norm",
    "check_directions",
    "convert_state_dict",
    "data_dependent_init",
    "folded_state_dict",
    "gain_and_direction",
    "is_weight_normed",
    "load_state",
    "normed_modules",
    "output_dim",
    "parameter_groups",
    "set_weight",
    "weight_norm",
]


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
