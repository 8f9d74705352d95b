"""The samples' stack in every precision, teacher-forced and in plain torch.

This is what the native engine's lower precisions are held to, and what verdicts are measured with:
the same on every machine, whether or not the native engine is there. The precisions are

    float32   as it is
    float16   weights rounded to half, everything else float32
    half      what AVX512-FP16 does: inputs rounded to half too, fused products summed in half, 32
              inputs at a time, and these sums in float32
    int8      as quantise.py specifies it, operation by operation: given the same inputs, a
              product and `open_whole` give the kernel's bits

Whole rows go through layer after layer, so a second of audio takes seconds, not minutes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.engine.quantise import FINER, SIGNED, UNSIGNED, Calibration, Quantised, quantise_wavenet
from wavewn.engine.weights import WaveNetWeights
from wavewn.nn.upsample import upsample_linear

# Of 2^r, |r| <= 1/2, from r^0 on. Largest relative error of `exp2`: 1.8 * 2^-24.
EXP2 = tuple(
    float.fromhex(digits)
    for digits in (
        "0x1p+0",
        "0x1.62e43p-1",
        "0x1.ebfbd6p-3",
        "0x1.c6aee6p-5",
        "0x1.3b2d38p-7",
        "0x1.5f3f78p-10",
        "0x1.420a8cp-13",
    )
)
LOG2_E = math.log2(math.e)
LIMIT = 40.0  # of the gates' exponents
UNIT = 2048.0  # int8: of a gate's exponents in whole numbers, of which WORD is the largest
WORD = 32767
CHORD, CHORDS, TOP = 512, 64, 16320
CHUNK = 32  # inputs summed in half
GATE = ".gate"  # ends the names of gates

Product = Callable[[Tensor, Tensor], Tensor]  # (inputs, init) -> outputs


def exp2(x: Tensor) -> Tensor:
    """2^x, float32: a polynomial for the fraction, each operation rounded on its own."""
    whole = x.round()
    rest = x - whole
    square = rest * rest
    low, middle, high = (EXP2[i + 1] * rest + EXP2[i] for i in (1, 3, 5))
    return torch.ldexp(((high * square + middle) * square + low) * rest + EXP2[0], whole)


def activate(gate: Tensor) -> Tensor:
    """tanh times sigmoid of a gate [..., 2R] whose factors are in the weights.

    z = (1 - A) / ((1 + A) (1 + B)), A = 2^f, B = 2^g.
    """
    a, b = exp2(gate.clamp(-LIMIT, LIMIT)).chunk(2, dim=-1)
    return (1 - a) / ((1 + a) * (1 + b))


def chord_knots() -> Tensor:
    """TOP tanh(f / (2 log2(e))) at the ends of the chords, int64 [CHORDS + 1].

    Each is moved outwards by half of what the chords beside it lack in their middles.
    """
    ends = torch.arange(2 * CHORDS + 1, dtype=torch.float64) * (CHORD / 2 / UNIT)
    true = TOP * torch.tanh(ends / (2 * LOG2_E))
    lack = true[1::2] - (true[:-1:2] + true[2::2]) / 2
    knots = true[::2].clone()
    knots[1:-1] += (lack[1:] + lack[:-1]) / 4
    return knots.round().long()


def open_whole(gate: Tensor) -> Tensor:
    """What int8 makes of a gate [..., 2R]: z in steps of 1 / SIGNED; see csrc/gates.hpp.

    t = clamp(round(UNIT f)) and u likewise of g; T is TOP tanh in chords, with its argument's sign;
    z = round(round(-T(t) (TOP - T(u)) / 2^15) / 2^7) / SIGNED.
    """
    whole = (gate * UNIT).round().clamp(-WORD, WORD).long()
    knots, chord, rest = chord_knots(), whole.abs() // CHORD, whole.abs() % CHORD
    rise = (knots[chord + 1] - knots[chord]) * rest // CHORD
    tanh, sigmoid = (whole.sign() * (knots[chord] + rise)).chunk(2, dim=-1)
    z = (-tanh * (TOP - sigmoid) + (1 << 14)) >> 15
    return ((z + 64) >> 7).float() / SIGNED


def whole_numbers(x: Tensor, product: Quantised) -> Tensor:
    """Inputs [..., inputs] as the whole numbers that stand for them, in float32."""
    low, high = (-SIGNED, SIGNED) if product.signed else (0, UNSIGNED)
    return (x * product.gain).round().clamp(low, high)


def int8_product(x: Tensor, product: Quantised, init: Tensor) -> Tensor:
    """[..., inputs] to [..., outputs]; float64 holds every sum exactly."""
    whole = whole_numbers(x, product)
    matrix = product.matrix.double()
    sums = (whole.double() @ matrix).float()
    if product.fine:
        rest = ((x * product.gain - whole) * FINER).round().clamp(-SIGNED, SIGNED)
        sums += (rest.double() @ matrix).float() / FINER
    return sums * product.scale + init


def half_product(x: Tensor, matrix: Tensor, init: Tensor) -> Tensor:
    """[..., inputs] to [..., outputs] as AVX512-FP16 has it.

    A fused product is made in float32 and rounded again, which differs from one rounding once in
    thousands.
    """
    x, matrix = x.half().float(), matrix.half().float()
    total = torch.zeros_like(init.expand(*x.shape[:-1], -1))
    for first in range(0, len(matrix), CHUNK):
        chunk = torch.zeros_like(total)
        for k in range(first, min(first + CHUNK, len(matrix))):
            chunk = torch.addcmul(chunk, x[..., k, None], matrix[k]).half().float()
        total += chunk
    return total + init


def make_products(
    weights: WaveNetWeights, precision: str, calibration: Calibration | None = None
) -> dict[str, Product]:
    """Name the products of the stack in a precision; those of gates give z.

    Args:
        weights: With the factors of the gates in them (`kernel_weights`).
        precision: One of those above.
        calibration: For int8.
    """
    if precision == "int8":
        assert calibration is not None, "int8 needs a calibration"
        quantised = quantise_wavenet(weights, calibration)
        return {
            name: _opened(_int8(product), open_whole) if name.endswith(GATE) else _int8(product)
            for name, product in quantised.items()
        }
    matrices = {"hidden": weights.hidden.matrix, "output": weights.output.matrix}
    for i, layer in enumerate(weights.layers):
        matrices |= {f"layers.{i}{GATE}": layer.gate, f"layers.{i}.out": layer.out.matrix}
    make = _half if precision == "half" else _plain
    if precision == "float16":
        matrices = {name: matrix.half().float() for name, matrix in matrices.items()}
    return {
        name: _opened(make(matrix), activate) if name.endswith(GATE) else make(matrix)
        for name, matrix in matrices.items()
    }


def run_stack(
    weights: WaveNetWeights,
    products: dict[str, Product],
    features: Tensor,
    condition: Tensor,
    note: Callable[[str, Tensor], None] | None = None,
) -> Tensor:
    """Give the parameters of every sample, as `WaveNet.answer` before it moves them.

    Args:
        weights: As given to `make_products`.
        products: Its answer.
        features: [batch, F * hop_length, features], as in `Heard`.
        condition: [batch, 1 + F, channels], likewise.
        note: Told the name and the inputs of each product; the gates' without their older taps.

    Returns:
        [batch, F * hop_length, parameters].
    """
    R, taps = weights.settings.residual_channels, weights.settings.kernel_size
    hear = note or (lambda name, x: None)
    gates = _gates(weights, condition)
    x = features @ weights.input.matrix + weights.input.bias
    skip: Tensor | float = 0.0
    for i, layer in enumerate(weights.layers):
        init = gates(i)
        past = [F.pad(x, (0, 0, (taps - 1 - k) * layer.dilation, 0)) for k in range(taps)]
        hear(f"layers.{i}.gate", x)
        inputs = torch.cat([tap[:, : x.shape[1]] for tap in past], dim=-1)
        z = products[f"layers.{i}.gate"](inputs, init)
        hear(f"layers.{i}.out", z)
        out = products[f"layers.{i}.out"](z, layer.out.bias)
        if i + 1 < len(weights.layers):
            x, out = x + out[..., :R], out[..., R:]
        skip = skip + out
    assert isinstance(skip, Tensor), "a stack has layers"
    skip = skip.relu()
    hear("hidden", skip)
    hidden = products["hidden"](skip, weights.hidden.bias).relu()
    hear("output", hidden)
    return products["output"](hidden, weights.output.bias)


def _gates(weights: WaveNetWeights, condition: Tensor) -> Callable[[int], Tensor]:
    """Return what gives the condition of a layer, [batch, F * hop_length, 2R]."""
    hop, width = weights.hop_length, 2 * weights.settings.residual_channels
    kind = weights.settings.condition.upsampling
    if weights.upsample is not None:
        both = torch.cat([condition[:, :-1], condition[:, 1:]], dim=-1)
        spread = both @ weights.upsample.matrix + weights.upsample.bias
        condition = spread.unflatten(-1, (hop, -1)).flatten(1, 2)

    def own(i: int) -> Tensor:
        part = slice(i * width, (i + 1) * width)
        frames = condition @ weights.projection.matrix[:, part] + weights.projection.bias[part]
        if kind == "linear":
            return upsample_linear(frames, hop)
        return frames if kind == "transposed" else frames[:, 1:].repeat_interleave(hop, dim=1)

    return own


def _opened(product: Product, activation: Callable[[Tensor], Tensor]) -> Product:
    return lambda x, init: activation(product(x, init))


def _int8(product: Quantised) -> Product:
    return lambda x, init: int8_product(x, product, init)


def _half(matrix: Tensor) -> Product:
    return lambda x, init: half_product(x, matrix, init)


def _plain(matrix: Tensor) -> Product:
    return lambda x, init: x @ matrix + init
