"""A WaveNet's weights folded so that a layer is one product; what steps.py reads.

What a layer leaves to the next and the gate of that next layer are linear in the same things:

    x' = x + z W_res + b                            the next layer's input, [R]
    a' = cond + x' W_now + x'_old W_old             its gate, [2R]

and so both are one product of one row:

    [a' | x'] = [cond | 0] + [x | z | 1 | x'_old] @ [[W_now,       I    ],
                                                     [W_res W_now, W_res],
                                                     [b W_now,     b    ],
                                                     [W_old,       0    ]]

The network's input is a layer, too: its features stand where z does, and its x is zero. The skips
of all layers are one product of all z. About half as many weights again are read as in the
reference, by three kernels a layer instead of five: a lonely stream's samples on a GPU are a chain
of small kernels, and what they take is their number.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.engine.weights import Affine, WaveNetWeights

ONES = 16  # columns of a row that hold its 1, a whole vector; the others are zero


@dataclass(frozen=True)
class FoldedWeights:
    """Matrices that stand on the right of a row vector, float32.

    Attributes:
        layers: [layers, 2R + ONES + (K - 1) R, 3R], as above.
        skip: From the z of all layers and a 1, [layers * R + ONES, S].
        hidden: [S + ONES, A].
        output: [A + ONES, parameters], widened.
        projection: From the condition [C] to [a | 0] of all layers, layers x 3R.
    """

    layers: Tensor
    skip: Tensor
    hidden: Tensor
    output: Tensor
    projection: Affine


def folded(weights: WaveNetWeights) -> FoldedWeights:
    """Fold weights that are `halved` and `aligned` (reference.py)."""
    R, S = weights.input.matrix.shape[1], weights.hidden.matrix.shape[0]
    count = len(weights.layers)
    before = weights.input.matrix
    sources = [Affine(F.pad(before, (0, 0, 0, R - len(before))), weights.input.bias)]
    sources += [Affine(x.out.matrix[:, :R], x.out.bias[:R]) for x in weights.layers[:-1]]
    layers = [
        _layer(source, layer.gate, first=i == 0)
        for i, (source, layer) in enumerate(zip(sources, weights.layers, strict=True))
    ]
    skip = Affine(
        torch.cat([layer.out.matrix[:, -S:] for layer in weights.layers]),
        torch.stack([layer.out.bias[-S:] for layer in weights.layers]).double().sum(0).float(),
    )
    matrix, bias = weights.projection.matrix, weights.projection.bias
    wide = [F.pad(part.unflatten(-1, (count, -1)), (0, R)).flatten(-2) for part in (matrix, bias)]
    return FoldedWeights(
        layers=torch.stack(layers),
        skip=_joined(skip),
        hidden=_joined(weights.hidden),
        output=_joined(weights.output),
        projection=Affine(*wide),
    )


def _layer(source: Affine, gate: Tensor, first: bool) -> Tensor:
    """Fold what makes a layer's input [R, R] into its gate [K * R, 2R]."""
    R = source.bias.shape[0]
    old, now = gate.double().split([len(gate) - R, R])
    kept = torch.zeros_like(now[:, :R]) if first else torch.eye(R).to(now)
    inputs = torch.cat([kept, _joined(source).double()])
    matrix = torch.cat([inputs @ now, inputs], dim=1)
    return torch.cat([matrix, F.pad(old, (0, R))]).float()


def _joined(part: Affine) -> Tensor:
    """[inputs, outputs] and a bias as one matrix [inputs + ONES, outputs]."""
    return torch.cat([part.matrix, F.pad(part.bias[None], (0, 0, 0, ONES - 1))])
