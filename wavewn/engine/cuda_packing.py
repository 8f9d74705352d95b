"""What the CUDA kernel is given: the sizes that it is compiled for, and its weights in tiles.

csrc/cuda/shape.hpp has the twins of the sizes here, csrc/cuda/products.hpp says how a tile lies.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.config import MuLaw, WaveNetConfig
from wavewn.engine.nvrtc import KernelSource
from wavewn.engine.packing import HEADS, UPSAMPLINGS, kernel_weights
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError
from wavewn.models.heads import LinearLevels, make_head
from wavewn.nn.linear_prediction import FEATURES, shortest_lag

PRECISIONS = ("float32", "float16")
TILE = 16  # outputs, and inputs, of a tile
LANES = 32
STREAMS = (1, 2, 4, 8)  # of a block; eight is what a tensor core multiplies at once
FEWEST_WARPS, MOST_WARPS = 4, 16
MOST_TILES = 4  # of a warp in a layer's product: each has sums of its own in registers
MOST_CHOICES = 1024  # of a sample: a warp holds them in registers
VOICE_BYTES = 64
FRAME_NUMBERS = 3  # of a predictor beside its weights: scale, its logarithm, gain


@dataclass(frozen=True)
class Sizes:
    """Operands and products of a network, padded to tiles; names as in csrc/cuda/shape.hpp.

    Attributes:
        residual: Channels of the residual, of z, and of each tap.
        skip: Channels of the skips.
        hidden: Channels of the head.
        parameters: Of a sample.
        gate: Inputs of a gate: the condition (learned upsampling only), the older taps, x.
        gate_tiles: Of a gate's outputs, eight channels each.
        warps: Of a block.
    """

    residual: int
    skip: int
    hidden: int
    parameters: int
    gate: int
    gate_tiles: int
    warps: int

    @staticmethod
    def of(settings: WaveNetConfig) -> "Sizes":
        """Compute the sizes of a network."""
        learned = settings.condition.upsampling == "transposed"
        channels = padded(settings.condition.channels) if learned else 0
        residual = padded(settings.residual_channels)
        gate_tiles = -(-settings.residual_channels // 8)
        return Sizes(
            residual=residual,
            skip=padded(settings.skip_channels),
            hidden=padded(settings.head_channels),
            parameters=padded(make_head(settings.head).parameters),
            gate=channels + settings.kernel_size * residual,
            gate_tiles=gate_tiles,
            warps=min(max(gate_tiles, FEWEST_WARPS), MOST_WARPS),
        )

    @property
    def layer_products(self) -> tuple[tuple[int, int], ...]:
        """Tiles of outputs and of inputs of the gate, the residual and the skips."""
        inputs = self.residual // TILE
        return (
            (self.gate_tiles, self.gate // TILE),
            (inputs, inputs),
            (self.skip // TILE, inputs),
        )

    @property
    def head_products(self) -> tuple[tuple[int, int], ...]:
        """The same of the head."""
        return (
            (self.hidden // TILE, self.skip // TILE),
            (self.parameters // TILE, self.hidden // TILE),
        )


def padded(count: int, multiple: int = TILE) -> int:
    """Round up to whole multiples."""
    return -(-count // multiple) * multiple


def kernel_source(
    settings: WaveNetConfig,
    n_mels: int,
    hop_length: int,
    precision: str,
    streams: int,
    shared_limit: int,
) -> KernelSource:
    """Say what to compile for a network.

    Args:
        settings: Of the network.
        n_mels: Mel bands.
        hop_length: Samples a frame.
        precision: One of `PRECISIONS`.
        streams: Of a block, one of `STREAMS`.
        shared_limit: Bytes of shared memory that a block may have; what its operands leave
            holds weights.

    Raises:
        EngineError: The network does not fit.
    """
    sizes, head = Sizes.of(settings), make_head(settings.head)
    products = (*sizes.layer_products * len(settings.dilations), *sizes.head_products)
    for name, count, most in (
        ("residual_channels", settings.residual_channels, MOST_TILES * 8 * sizes.warps),
        ("skip_channels", settings.skip_channels, MOST_TILES * TILE * sizes.warps),
        ("choices of a sample", choices_of(settings), MOST_CHOICES),
    ):
        if count > most:
            raise EngineError(
                f"{name} is {count}, and the CUDA kernel has registers for {most}; "
                "use the graph engine"
            )
    operands = _operand_bytes(settings, sizes, precision, streams)
    if operands > shared_limit:
        raise EngineError(
            f"{streams} streams of this model need {operands} bytes of shared memory, a block has "
            f"{shared_limit}; use the graph engine"
        )
    tile_bytes = TILE * TILE * (2 if precision == "float16" else 4)
    resident = 0
    for outputs, inputs in products:
        if (resident + outputs * inputs) * tile_bytes > shared_limit - operands:
            break
        resident += outputs * inputs
    classes = settings.head.classes if isinstance(settings.head, MuLaw) else 0
    longest = settings.longest_lag
    defines: dict[str, int | float | str] = {
        "STREAMS": streams,
        "THREADS": sizes.warps * LANES,
        "HALF": int(precision == "float16"),
        "AHEAD": _tiles_ahead(sizes, precision, streams),
        "RESIDENT": resident,
        "RESIDUAL": settings.residual_channels,
        "SKIP": settings.skip_channels,
        "HIDDEN": settings.head_channels,
        "TAPS": settings.kernel_size,
        "LAYERS": len(settings.dilations),
        "LAYERS_PER_CYCLE": settings.layers_per_cycle,
        "HOP": hop_length,
        "UPSAMPLING": UPSAMPLINGS.index(settings.condition.upsampling),
        "CHANNELS": settings.condition.channels,
        "MEL_LAYERS": settings.condition.layers,
        "MEL_TAPS": settings.condition.kernel_size,
        "BANDS": n_mels,
        "HEAD": HEADS.index(settings.head.kind),
        "CLASSES": classes,
        "LOG_CLASSES": repr(math.log(max(classes, 1))),
        "COMPONENTS": head.components if isinstance(head, LinearLevels) else 0,
        "PARAMETERS": head.parameters,
        "DRAWS": len(head.noise),
        "FEATURES": FEATURES + bool(longest) if settings.prediction_order else head.input_features,
        "ORDER": settings.prediction_order,
        "LONGEST": longest,
        "LAGS": lags_of(settings),
    }
    return KernelSource(
        defines=tuple(sorted((f"WAVEWN_{name}", value) for name, value in defines.items())),
        threads=sizes.warps * LANES,
        shared_bytes=operands + resident * tile_bytes,
    )


def choices_of(settings: WaveNetConfig) -> int:
    """Count the classes or components that the head chooses among."""
    head = make_head(settings.head)
    return head.components if isinstance(head, LinearLevels) else head.parameters


def lags_of(settings: WaveNetConfig) -> int:
    """Count the lags of the long-term prediction."""
    longest = settings.longest_lag
    return longest - shortest_lag(longest) + 1 if longest else 0


def predictor_width(settings: WaveNetConfig) -> int:
    """Numbers of a frame's predictors; 0 where there are none."""
    order = settings.prediction_order
    return order + lags_of(settings) + FRAME_NUMBERS if order else 0


def _tiles_ahead(sizes: Sizes, precision: str, streams: int) -> int:
    """Tiles that a warp has under way: as many as its registers hold beside its sums."""
    if precision == "float32" and streams == STREAMS[-1]:
        return 2
    tiles = 8 if sizes.warps <= MOST_WARPS // 2 else 2
    return tiles if precision == "float16" else tiles // 2


def _operand_bytes(settings: WaveNetConfig, sizes: Sizes, precision: str, streams: int) -> int:
    """Shared memory that a block needs beside weights; see Shape::shared_bytes."""
    width = 2 if precision == "float16" else 4
    inputs = (sizes.gate, sizes.residual, sizes.skip, sizes.hidden)
    each = sum((padded(count, 64) + TILE) * width for count in inputs)
    each += sizes.parameters * 4 + VOICE_BYTES
    each += padded(predictor_width(settings), 4) * 4
    each += padded(max(settings.prediction_order, 1), 4) * 4
    if settings.prediction_order:
        each += padded(max(settings.longest_lag, 1), 4) * 4
    return streams * each + padded(len(settings.dilations) * 8)


def pack_tiles(weights: WaveNetWeights, precision: str) -> Tensor:
    """Lay the matrices of the samples' network out in the order of use.

    Args:
        weights: From `pack_wavenet`.
        precision: One of `PRECISIONS`.

    Returns:
        [bytes], uint8.

    Raises:
        EngineError: A weight is too large for the precision.
    """
    weights = kernel_weights(weights)
    sizes = Sizes.of(weights.settings)
    R, learned = weights.settings.residual_channels, weights.upsample is not None
    parts = []
    for i, layer in enumerate(weights.layers):
        inputs = [_widened(tap, 0) for tap in layer.gate.split(R)]
        if learned:
            own = weights.projection.matrix[:, 2 * R * i : 2 * R * (i + 1)]
            inputs.insert(0, _widened(own, 0))
        halves = [
            F.pad(half, (0, 8 * sizes.gate_tiles - R)).unflatten(1, (-1, 8))
            for half in torch.cat(inputs).split(R, dim=1)
        ]
        parts.append(torch.stack(halves, dim=2).flatten(1))
        residual, skip = torch.split(
            F.pad(layer.out.matrix, (R + weights.settings.skip_channels - len(layer.out.bias), 0)),
            [R, weights.settings.skip_channels],
            dim=1,
        )  # the last layer has no residual
        parts += [_widened(_widened(part, 0), 1) for part in (residual, skip)]
    parts += [_widened(_widened(part.matrix, 0), 1) for part in (weights.hidden, weights.output)]
    packed = torch.cat([tiles_of(part, precision).flatten() for part in parts])
    if not bool(packed.isfinite().all()):
        raise EngineError(f"a weight is too large for {precision}; use float32")
    return packed.view(torch.uint8)


def tiles_of(matrix: Tensor, precision: str) -> Tensor:
    """Cut a matrix [inputs, outputs], multiples of 16, into tiles; see csrc/cuda/products.hpp.

    Returns:
        [outputs / 16, inputs / 16, 256], float16 or float32.
    """
    tiles = matrix.T.unflatten(0, (-1, 2, 8)).unflatten(3, (-1, 4, 4))
    outputs, inputs = tiles.shape[0], tiles.shape[3]
    if precision == "float16":  # [tile, row, group, inputs, quarter, pair, two]
        order = tiles.unflatten(5, (2, 2)).permute(0, 3, 2, 4, 5, 1, 6).half()
    else:
        order = tiles.permute(0, 3, 1, 2, 4, 5)
    return order.reshape(outputs, inputs, TILE * TILE)


def pack_constants(weights: WaveNetWeights) -> Tensor:
    """Lay out the input's weights and all biases of the samples' network; see Shape."""
    R, S = weights.settings.residual_channels, weights.settings.skip_channels
    residuals = [F.pad(layer.out.bias[:-S], (0, R))[:R] for layer in weights.layers]
    parts = [
        weights.input.matrix,
        weights.input.bias,
        torch.stack(residuals),
        torch.stack([layer.out.bias[-S:] for layer in weights.layers]).sum(0),
        weights.hidden.bias,
        weights.output.bias,
    ]
    return torch.cat([_widened(part, -1).flatten() for part in parts])


def _widened(value: Tensor, axis: int) -> Tensor:
    """Pad an axis with zeros to whole tiles."""
    return F.pad(value.transpose(axis, -1), (0, -value.shape[axis] % TILE)).transpose(axis, -1)
