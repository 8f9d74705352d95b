"""What the native engine is given: the sizes of a network and its products, packed once.

A product is a matrix with its bias; csrc/network.hpp says how they lie in the arena.
"""

import dataclasses
import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavewn.bundle.precisions import Calibration
from wavewn.config import MuLaw
from wavewn.engine.quantise import quantise_wavenet
from wavewn.engine.weights import Affine, WaveNetWeights
from wavewn.models.heads import LinearLevels, make_head
from wavewn.nn.linear_prediction import shortest_lag
from wavewn.nn.upsample import linear_ramp

PRECISIONS = ("float32", "float16", "int8")  # these three in the order of csrc/network.hpp
UPSAMPLINGS = ("nearest", "linear", "transposed")
HEADS = ("mu-law", "logistic-mixture", "gaussian")
LOG2_E = math.log2(math.e)
USUAL_CACHE = 1 << 20


def pack_network(
    weights: WaveNetWeights,
    precision: str,
    instruction_set: str,
    threads: int,
    calibration: Calibration | None,
) -> Any:
    """Hand every matrix to the kernel, which copies them into its arena.

    Args:
        weights: From `pack_wavenet`.
        precision: One of `PRECISIONS`.
        instruction_set: One that can run here.
        threads: Of a call.
        calibration: For int8.

    Returns:
        The extension's `Network`.
    """
    from wavewn import _native

    settings = weights.settings
    condition, head = settings.condition, make_head(settings.head)
    longest = settings.longest_lag
    sizes = {
        "residual": settings.residual_channels,
        "skip": settings.skip_channels,
        "hidden": settings.head_channels,
        "taps": settings.kernel_size,
        "mel_layers": condition.layers,
        "mel_taps": condition.kernel_size,
        "bands": weights.n_mels,
        "channels": condition.channels,
        "hop": weights.hop_length,
        "look_ahead": condition.look_ahead,
        "order": settings.prediction_order,
        "longest": longest,
        "shortest": shortest_lag(longest),
        "upsampling": UPSAMPLINGS.index(condition.upsampling),
        "head": HEADS.index(settings.head.kind),
        "classes": settings.head.classes if isinstance(settings.head, MuLaw) else 0,
        "components": head.components if isinstance(head, LinearLevels) else 0,
        "parameters": head.parameters,
        "draws": len(head.noise),
        "features": weights.input.matrix.shape[0],
    }
    numbers = {
        "log_scale_min": getattr(settings.head, "log_scale_min", 0.0),
        "pre_emphasis": settings.pre_emphasis,
        "mel_silence": weights.mel_silence,
        "mel_scale": weights.mel_scale,
    }
    dilations = [layer.dilation for layer in weights.layers]
    speakers = None if weights.speakers is None else weights.speakers.numpy()
    ramp = linear_ramp(weights.hop_length).numpy()
    products = _products(kernel_weights(weights), precision, calibration)
    stack = sum(products[name][0].nbytes for name in products if name.startswith("layers."))
    if precision == "float16":
        stack //= 2
    return _native.Network(
        sizes,
        numbers,
        dilations,
        products,
        speakers,
        ramp,
        PRECISIONS.index(precision),
        instruction_set,
        threads,
        threads > 1 and stack > _second_cache(),
    )


def kernel_weights(weights: WaveNetWeights) -> WaveNetWeights:
    """Take the factors of the gates' powers of two into the matrices.

    tanh(f) sigmoid(g) = (1 - A) / ((1 + A) (1 + B)) with A = 2^(-2 log2(e) f), B = 2^(-log2(e) g).
    """
    R, layers = weights.settings.residual_channels, len(weights.layers)
    scale = torch.tensor([-2 * LOG2_E] * R + [-LOG2_E] * R)
    projection = weights.projection
    return dataclasses.replace(
        weights,
        projection=Affine(
            projection.matrix * scale.repeat(layers), projection.bias * scale.repeat(layers)
        ),
        layers=tuple(
            dataclasses.replace(layer, gate=layer.gate * scale) for layer in weights.layers
        ),
    )


def _products(
    weights: WaveNetWeights, precision: str, calibration: Calibration | None
) -> dict[str, tuple[Any, ...]]:
    """Name every product of the network, as the kernel asks for them.

    Returns:
        (matrix, bias), and for int8 (matrix, bias, scale, gain, signed, fine).
    """
    frames = {f"mel.{i}": conv for i, conv in enumerate(weights.mel)}
    frames |= {"projection": weights.projection, "input": weights.input}
    for name in ("predictor", "pitch", "upsample"):
        if (part := getattr(weights, name)) is not None:
            frames[name] = part
    samples = {"hidden": weights.hidden, "output": weights.output}
    for i, layer in enumerate(weights.layers):
        none = layer.gate.new_zeros(layer.gate.shape[1])
        samples |= {f"layers.{i}.gate": Affine(layer.gate, none), f"layers.{i}.out": layer.out}
    if precision == "float16":
        samples = {
            name: Affine(part.matrix.half().float(), part.bias) for name, part in samples.items()
        }
    found: dict[str, tuple[Any, ...]] = {
        name: (_array(p.matrix), _array(p.bias)) for name, p in (frames | samples).items()
    }
    if precision == "int8":
        assert calibration is not None, "the constructor asks for it"
        for name, whole in quantise_wavenet(weights, calibration).items():
            parts = _array(whole.matrix), found[name][1], _array(whole.scale), _array(whole.gain)
            found[name] = (*parts, whole.signed, whole.fine)
    return found


def _second_cache() -> int:
    """Bytes of a core's own cache; a guess where the system does not say."""
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE") or USUAL_CACHE
    except (ValueError, OSError, AttributeError):
        return USUAL_CACHE


def _array(value: Tensor) -> Any:
    return np.ascontiguousarray(value.numpy())
