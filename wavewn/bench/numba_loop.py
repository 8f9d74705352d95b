"""Baseline: the whole loop compiled by Numba.

One function, `fastmath`, arrays of float32, rings in one array: what a user gets who knows NumPy
and the network. Products go row by row of the weights (`axpy`), which LLVM turns into vectors of
its choice; tanh is written by exp, for which it has the faster code.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from wavewn.bench.baselines import Baseline, Floats, Ints, stacked
from wavewn.engine.weights import WaveNetWeights


class NumbaLoop(Baseline):
    """The network in `generate_classes`."""

    name = "numba"

    def __init__(self, weights: WaveNetWeights) -> None:
        super().__init__(weights)
        parts = stacked(weights)
        hidden, output = weights.hidden, weights.output
        heads = (hidden.matrix, hidden.bias, output.matrix, output.bias)
        self._weights = (parts["old"], parts["now"], parts["out"], parts["bias"])
        self._heads = tuple(part.numpy() for part in heads)

    def run(self, frames: Floats, noise: Floats) -> Ints:
        """See `Baseline.run`."""
        return generate_classes(  # type: ignore[no-any-return]
            frames, self.ramp, noise, self.table, self.dilations, self.offsets,
            self._weights, self._heads,
        )  # fmt: skip


@numba.njit(fastmath=True)
def generate_classes(frames, ramp, noise, table, dilations, offsets, weights, heads):  # type: ignore[no-untyped-def]
    """Generate a class for each noise; arguments are the arrays of `NumbaLoop`."""
    old, now, out, out_bias = weights
    hidden, hidden_bias, output, output_bias = heads
    layers, R, wide = out.shape
    hop, last = len(ramp), len(table) - 1
    rings = np.zeros((dilations.sum(), R), np.float32)
    a = np.empty(2 * R, np.float32)
    z = np.empty(R, np.float32)
    y = np.empty(wide, np.float32)  # residual, then skip
    h = np.empty(len(hidden_bias), np.float32)
    p = np.empty(len(output_bias), np.float32)
    one = np.float32(1)
    result = np.empty(len(noise), np.int64)
    for t in range(len(noise)):
        frame, weight = t // hop, ramp[t % hop]
        for i in range(R):
            y[i] = table[last, i]
        for i in range(R, wide):
            y[i] = 0
        for layer in range(layers):
            ring = rings[offsets[layer] + t % dilations[layer]]
            before, after = frames[frame, layer], frames[frame + 1, layer]
            for i in range(2 * R):
                a[i] = before[i] + (after[i] - before[i]) * weight
            for k in range(R):
                earlier, x = ring[k], y[k]
                for i in range(2 * R):
                    a[i] += earlier * old[layer, k, i] + x * now[layer, k, i]
                ring[k] = x
            for i in range(R):
                z[i] = (one - one / (one + math.exp(a[i] + a[i])) * 2) / (one + math.exp(-a[R + i]))
            for i in range(wide):
                y[i] += out_bias[layer, i]
            for k in range(R):
                for i in range(wide):
                    y[i] += z[k] * out[layer, k, i]
        h[:] = hidden_bias
        for k in range(wide - R):
            x = max(y[R + k], np.float32(0))
            for i in range(len(h)):
                h[i] += x * hidden[k, i]
        p[:] = output_bias
        for k in range(len(h)):
            x = max(h[k], np.float32(0))
            for i in range(len(p)):
                p[i] += x * output[k, i]
        top = p.max()
        total = np.float32(0)
        for i in range(len(p)):
            total += math.exp(p[i] - top)
            p[i] = total
        threshold = noise[t] * total
        last = 0
        while last < len(p) - 1 and p[last] <= threshold:
            last += 1
        result[t] = last
    return result
