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

Steps 1 and 3 are `parametrization.py`, step 2 is `data_init.py`, 4 and 5 are `state_dicts.py`.

Source: Salimans & Kingma 2016, arXiv:1602.07868, equations 2 and 3 and section 3.
"""

from wavewn.nn.weight_norm.data_init import InitReport, data_dependent_init
from wavewn.nn.weight_norm.parametrization import (
    WeightNorm,
    apply_weight_norm,
    check_directions,
    gain_and_direction,
    is_weight_normed,
    normed_modules,
    output_dim,
    parameter_groups,
    set_weight,
    weight_norm,
)
from wavewn.nn.weight_norm.state_dicts import convert_state_dict, folded_state_dict, load_state

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
