"""The bound: how many samples a second the weights alone allow.

Each sample needs each weight once, for one multiplication. So a pass that only reads as many
bytes as the weights occupy, wherever in the caches they then lie, is what a kernel of one stream
cannot beat, and its share of that bound says how little it does besides. A kernel that reads some
weights less often (the older taps of a layer are known `dilation` samples before) may come to
more than 1.

For several streams the bound is that of one times the streams of a pass: the weights are read
once for all of them. Arithmetic then costs more than reading, so the share falls with the number
of streams without anything being wrong. Threads share the streams, each reading all weights; of
a single stream they share the layers, each reading its part.
"""

from __future__ import annotations

from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError

BYTES = {"float32": 4, "float16": 2, "int8": 1}  # of a weight
SECONDS = 0.1  # of a measurement


def weight_bytes(weights: WaveNetWeights, precision: str) -> int:
    """Count the bytes that a sample reads: matrices of this precision, biases, int8's scales."""
    affines = [layer.out for layer in weights.layers] + [weights.hidden, weights.output]
    matrices = sum(affine.matrix.numel() for affine in affines)
    matrices += sum(layer.gate.numel() for layer in weights.layers)
    rows = sum(affine.bias.numel() for affine in affines)
    scales = rows + sum(layer.gate.shape[1] for layer in weights.layers)
    return BYTES[precision] * matrices + 4 * (rows + (scales if precision == "int8" else 0))


def measure_bound(bytes_read: int, threads: int, streams: int) -> float:
    """Measure how many samples a second reading so many bytes for each sample allows.

    Args:
        bytes_read: From `weight_bytes`.
        threads: That share the work.
        streams: That are advanced together.

    Raises:
        EngineError: The extension with the plain pass is not built.
    """
    if reason := missing():
        raise EngineError(f"the bound needs wavewn's compiled extension: {reason}")
    from wavewn import _native  # type: ignore[attr-defined]

    readers = threads if streams == 1 else min(threads, streams)
    block = bytes_read // threads if streams == 1 else bytes_read
    rate: float = _native.read_rate(block, SECONDS, readers)
    return rate / (readers * block) * streams


def missing() -> str:
    """Say why the plain pass is not there; empty if it is."""
    try:
        from wavewn import _native  # type: ignore[attr-defined]
    except ImportError as error:
        return str(error)
    return "" if hasattr(_native, "read_rate") else "it is older than the benchmark; build it anew"
