"""Norms of a weight: relatives of weight norm, as parametrizations of a convolution.

With v the learned tensor [out_channels, in_channels, kernel_size] and v_j the row of output j:

    weight norm        w_j = g_j v_j / ||v_j||_2                   (nn/weight_norm)
    shared L1          w_j = g v_j / ||v_j||_1                     one g a layer
    conditioning       w_j = v_j / ||v_j||_2                       no gain is learned
    standardisation    w_j = g_j (v_j - mean v_j) / ||v_j - mean v_j||_2
    spectral norm      w   = v / sigma_max(v)                      torch's own

None of them sees a signal, so none can couple two signals, or the past with the future.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from wavewn.nn.conv import CausalConv1d
from wavewn.nn.weight_norm import weight_norm

ROW = (1, 2)  # the axes of one output's weight


def l2(v: Tensor) -> Tensor:
    """Return ||v_j||_2, [out_channels, 1, 1]."""
    return v.square().sum(ROW, keepdim=True).sqrt()


class SharedL1(nn.Module):
    """w_j = g v_j / ||v_j||_1 with one gain for the whole layer.

    Every row of |w| then sums to |g|: no output exceeds |g| times the loudest input.

    Source: L1 weight norm and its 1-path-norm, arXiv:2404.19112.
    """

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight."""
        return g * v / v.abs().sum(ROW, keepdim=True)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Start from the directions of `weight` and the mean of its rows' norms."""
        return weight.abs().sum(ROW).mean().reshape(1), weight.clone()


class Conditioned(nn.Module):
    """w_j = v_j / ||v_j||_2: weight norm whose gain stays at one.

    Source: "Weight Conditioning", arXiv:2409.03424 (row equilibration).
    """

    def forward(self, v: Tensor) -> Tensor:
        """Return the weight."""
        return v / l2(v)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Start from the directions of `weight`."""
        return weight.clone()


class Standardised(nn.Module):
    """w_j = g_j (v_j - mean v_j) / ||v_j - mean v_j||_2: weight norm of a centred direction.

    Qiao et al. divide by the deviation, which is the norm over the root of the number of taps;
    that constant goes into the gain, as in the scaled form of Brock et al.

    Source: Qiao et al. 2019, arXiv:1903.10520; Brock et al. 2021, arXiv:2101.08692.
    """

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight."""
        centred = v - v.mean(ROW, keepdim=True)
        return g * centred / l2(centred)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Start from the centred directions of `weight` and the norms of its rows."""
        return l2(weight), weight.clone()


def _attach(kind: type[nn.Module]) -> Callable[[CausalConv1d], nn.Module]:
    return lambda conv: parametrize.register_parametrization(conv, "weight", kind())


WEIGHT_NORMS: dict[str, Callable[[CausalConv1d], nn.Module]] = {
    "plain": lambda conv: conv,
    "weight": weight_norm,
    "shared-l1": _attach(SharedL1),
    "conditioned": _attach(Conditioned),
    "standardised": _attach(Standardised),
    "spectral": spectral_norm,
}


def path_norm(weights: Sequence[Tensor]) -> Tensor:
    """Return the 1-path-norm of a chain: the sum over all paths of the product of |weights|.

    It bounds how far the chain's loudest output moves for an input bounded by one. With
    `SharedL1` it is ||W_L||_1,1 times the product of the other layers' |g|.

    Args:
        weights: [out_channels, in_channels, kernel_size] each, first layer first.
    """
    total = torch.ones(weights[0].shape[1], dtype=weights[0].dtype)
    for weight in weights:
        total = weight.abs().sum(2) @ total
    return total.sum()
