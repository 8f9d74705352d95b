"""A generator as `OnePassEngine` runs it: copied, in its precision, and laid out for its device.

On a GPU bfloat16 runs with channels innermost, as its multipliers take them, and float32 with
channels outermost, each the way for which cuDNN is known. Neither was measured yet; tests/gpu does.
"""

import copy
from typing import cast

import torch
from torch import nn

from wavewn.engine.onepass_native import run_natively
from wavewn.engine.spectrum import level_natively
from wavewn.engine.spectrum_synthesis import filter_natively
from wavewn.engine.weights import check_plain
from wavewn.models.generators import Generator
from wavewn.models.levelled import Levelled
from wavewn.nn.layout import innermost
from wavewn.nn.packed import pack_layers
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d


def prepared(
    model: Generator, precision: str, device: torch.device, native: str = "", threads: int = 1
) -> Generator:
    """Copy a plain model to a device, its convolutions in this precision.

    Args:
        model: Plain.
        precision: "float32" or "bfloat16".
        device: Where it shall run.
        native: As `OnePassEngine` says.
        threads: Of the native kernel.

    Raises:
        EngineError: It still has weight norm, a parameter is NaN or infinite, or it cannot run
            natively here.
    """
    check_plain(cast("nn.Module", model))
    ours: Generator = copy.deepcopy(model).eval().requires_grad_(False)
    if device.type == "cpu":
        filter_natively(cast("nn.Module", ours), native)
        level_natively(cast("nn.Module", ours), native)
    if native:
        return natively(ours, precision, native, threads)
    turned = device.type != "cpu" and wants_innermost(device, precision)
    for module in ours.modules():
        if not isinstance(module, PaddedConv1d | UpsamplingConv1d):
            continue
        if precision == "bfloat16" and not isinstance(module, PreciseConv1d):
            module.to(torch.bfloat16)
        if turned and module.weight.dim() == 3:  # once, and not in every call
            module.weight.data = innermost(module.weight.data)
    moved: Generator = ours.to(device)  # type: ignore[attr-defined]
    pack_layers(cast("nn.Module", moved))
    return moved


def natively(model: Generator, precision: str, instruction_set: str, threads: int) -> Generator:
    """Let the native kernel run a generator, or the one that is levelled.

    Raises:
        EngineError: It cannot run it here.
    """
    if not isinstance(model, Levelled):
        return run_natively(model, precision, instruction_set, threads)
    inner = cast("Generator", model.generator)
    model.generator = cast("nn.Module", run_natively(inner, precision, instruction_set, threads))
    return model


def wants_innermost(device: torch.device, precision: str) -> bool:
    """Whether the channels of its rows shall lie innermost; see nn/layout.py."""
    return device.type == "cpu" or precision == "bfloat16"
