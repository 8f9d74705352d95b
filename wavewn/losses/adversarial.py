"""Adversarial losses: what a discriminator and what a generator want of the scores.

Each is the sum over discriminators of the mean over a discriminator's scores, as published, so
that a weight from a paper means the same here. `D` is a score of recorded audio, `D'` one of
generated audio:

                     discriminator                       generator
    least-squares    (1 - D)^2 + D'^2                    (1 - D')^2
    hinge            max(0, 1 - D) + max(0, 1 + D')      -D'

Source: Mao et al. 2017, arXiv:1611.04076 (least squares); Lim & Ye 2017, arXiv:1705.02894
(hinge); Larsen et al. 2016, arXiv:1512.09300, and Kumar et al. 2019, arXiv:1910.06711, section
2.3 (feature matching).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.errors import ConfigError

AdversarialKind = Literal["least-squares", "hinge"]


def discriminator_loss(
    real: Sequence[Tensor], fake: Sequence[Tensor], kind: AdversarialKind = "least-squares"
) -> Tensor:
    """Loss of the discriminators, to be given the scores of detached generated audio.

    Args:
        real: Scores of recorded audio, one tensor a discriminator.
        fake: Scores of generated audio in the same order.
        kind: See the module.

    Raises:
        ConfigError: An unknown kind.
    """
    check_kind(kind)
    with torch.autocast(real[0].device.type, enabled=False):
        total = real[0].new_zeros((), dtype=torch.float32)
        for true, false in zip(real, fake, strict=True):
            true, false = true.float(), false.float()
            if kind == "hinge":
                total = total + (1 - true).relu().mean() + (1 + false).relu().mean()
            else:
                total = total + (1 - true).square().mean() + false.square().mean()
    return total


def generator_loss(fake: Sequence[Tensor], kind: AdversarialKind = "least-squares") -> Tensor:
    """Loss of the generator, given the scores of its audio.

    Raises:
        ConfigError: An unknown kind.
    """
    check_kind(kind)
    with torch.autocast(fake[0].device.type, enabled=False):
        total = fake[0].new_zeros((), dtype=torch.float32)
        for false in fake:
            false = false.float()
            total = total + (-false.mean() if kind == "hinge" else (1 - false).square().mean())
    return total


def feature_matching_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Sum over discriminators and layers of the mean absolute difference of their features.

    The recording is what the features are pulled to: no gradient goes there.

    Args:
        real: For each discriminator the feature maps of recorded audio; may have been made
            under `torch.no_grad`, which saves memory and nothing else.
        fake: The same of generated audio.
    """
    with torch.autocast(fake[0][0].device.type, enabled=False):
        total = fake[0][0].new_zeros((), dtype=torch.float32)
        for true_maps, false_maps in zip(real, fake, strict=True):
            for true, false in zip(true_maps, false_maps, strict=True):
                total = total + F.l1_loss(false.float(), true.detach().float())
    return total


def check_kind(kind: str) -> None:
    """Raise ConfigError unless `kind` is one that the losses know."""
    if kind not in ("least-squares", "hinge"):
        raise ConfigError(f"the adversarial loss must be least-squares or hinge, got {kind!r}")
