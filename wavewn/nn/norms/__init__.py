"""Normalisers side by side on one causal stack, and what each does to causality.

`NORMS` names the contestants, `make_stack` builds and initialises one, `measure_flags` finds out
whether it is causal while training, streams, and folds away. `weights.py` and `activations.py`
hold the equations. wavewn's own models use weight norm (`nn/weight_norm`) alone; this is here so
that the reason can be measured (`wavewn study weight-norm`).
"""

from wavewn.nn.norms.activations import batch_norms, freeze, set_precise_statistics
from wavewn.nn.norms.flags import Flags, measure_flags
from wavewn.nn.norms.stack import NORMS, CausalStack, Norm, NormedConv, make_stack
from wavewn.nn.norms.weights import path_norm

__all__ = [
    "NORMS",
    "CausalStack",
    "Flags",
    "Norm",
    "NormedConv",
    "batch_norms",
    "freeze",
    "make_stack",
    "measure_flags",
    "path_norm",
    "set_precise_statistics",
]
