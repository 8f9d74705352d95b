"""Eight bits: a network's matrices and their inputs as whole numbers.

    q    = clamp(round(x * gain))                 round half to even; float32
    y    = float(sum over k of q[k] w[k]) * scale + init

`w` is int8 in -127 .. 127, symmetric, with one `scale` for each output; `q` lies in -127 .. 127
or, behind a rectifier, in 0 .. 255, with one fixed `gain` for each input. The sum is exact. The
step of each input is folded into its row before the weights are rounded, so that a loud channel
does not cost the quiet ones their bits.

The inputs of the gates in the first layers may need more than eight bits: those of a mu-law model
are small differences on top of a loud signal. Such a `fine` product takes two numbers for an input,
which share one pass over the weights:

    s    = x * gain
    q    = clamp(round(s)),  r = clamp(round((s - q) * 128))
    y    = (float(sum of q w) + float(sum of r w) / 128) * scale + init

2026-11-22, a mu-law model of R = 64 and 18 layers, nats above float32: 0.051 without, 0.0041 with
three fine layers, 0.0028 with four, 0.0011 with all.

A gate's sums become z, the input of the layer's output, in whole numbers of 16 bits; twin.py,
`open_whole`, has the equations. 2026-11-22, wavenet-ru-16k: that alone costs 0.00014 nats a sample.

Only the products of the samples' stack are quantised: gates, outputs of layers, hidden, output.
What runs once a frame, the input layer, the residual x, the sum of skips and the head stay float32.
Each step is float32 and rounded on its own, so every machine gives the same bits.
2026-11-22, wavenet-ru-16k, nats a sample above float32: 0.0028 with one gain a layer, 0.0017 with
one a channel; nearly all of it is the rounding of the layers' inputs.

Source: Jacob et al. 2018, arXiv:1712.05877, for the scheme; Xiao et al. 2023, "SmoothQuant",
arXiv:2211.10438, for steps that move into the weights; Colbert et al. 2023, "A2Q",
arXiv:2308.13504, for the bound on a sum.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wavewn.bundle.precisions import Calibration
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError

WEIGHT = 127
SIGNED, UNSIGNED = 127, 255  # largest inputs
FINER = 128  # steps of the second number in one of the first
FAINTEST = 1e-30  # step of a weight that counts; below are denormal numbers, which kernels flush
ACCUMULATOR = 2**31 - 1
PAIR = 128  # largest |w| + |w'| for which vpmaddubsw cannot saturate: 255 * 128 < 2^15


@dataclass(frozen=True)
class Quantised:
    """A matrix of whole numbers; the equations stand in the module docstring.

    Attributes:
        matrix: int8 [inputs, outputs].
        scale: float32 [outputs], from a sum to its value.
        gain: float32 [inputs], from an input to its whole number.
        signed: Whether inputs lie in -127 .. 127, not in 0 .. 255.
        fine: Whether an input is two numbers.
    """

    matrix: Tensor
    scale: Tensor
    gain: Tensor
    signed: bool
    fine: bool = False


def quantise(matrix: Tensor, largest: Tensor, signed: bool, name: str = "matrix") -> Quantised:
    """Round a matrix.

    Args:
        matrix: float32 [inputs, outputs].
        largest: float32 [inputs], the magnitude at which each input is clamped.
        signed: See `Quantised`.
        name: For messages.

    Raises:
        EngineError: A weight is too large for float32 once its input's magnitude is in it, or a
            sum might overflow.
    """
    top = SIGNED if signed else UNSIGNED
    folded = matrix * largest[:, None]
    if not bool(folded.isfinite().all()):
        raise EngineError(f"{name} holds weights that are too large for int8; use float32")
    step = folded.abs().amax(0) / WEIGHT
    faint = step < FAINTEST
    step = step.masked_fill(faint, 0.0)
    whole = (folded / step.masked_fill(faint, 1.0)).round().clamp(-WEIGHT, WEIGHT)
    whole = whole.masked_fill(faint, 0.0).to(torch.int8)
    check_accumulators(whole, name)
    gain = torch.full_like(largest, top) / largest  # `top / largest` would round twice
    return Quantised(whole, step / top, gain, signed)


def quantise_wavenet(weights: WaveNetWeights, calibration: Calibration) -> dict[str, Quantised]:
    """Round every product of the samples' stack.

    Args:
        weights: With the factors of the gates in them (`kernel_weights`).
        calibration: Of this model.

    Returns:
        `layers.I.gate`, `layers.I.out`, `hidden` and `output`, as engines name their products.

    Raises:
        EngineError: See `quantise`; or the calibration is of another model.
    """
    settings = weights.settings
    R, taps = settings.residual_channels, settings.kernel_size
    if [len(layer) for layer in calibration.inputs] != [R] * len(weights.layers):
        raise EngineError(
            f"the calibration must have {len(weights.layers)} layers of {R} magnitudes; "
            "it is of another model"
        )
    products = {}
    for i, layer in enumerate(weights.layers):
        largest = torch.tensor(calibration.inputs[i]).repeat(taps)
        gate = quantise(layer.gate, largest, True, f"layers.{i}.gate")
        products[f"layers.{i}.gate"] = replace(gate, fine=i < calibration.fine)
        # |z| < 1
        products[f"layers.{i}.out"] = quantise(
            layer.out.matrix, torch.ones(R), True, f"layers.{i}.out"
        )
    for name, size in (("hidden", calibration.skip), ("output", calibration.hidden)):
        matrix = getattr(weights, name).matrix
        products[name] = quantise(matrix, torch.full((len(matrix),), size), False, name)
    return products


def check_accumulators(matrix: Tensor, name: str) -> None:
    """Refuse a matrix whose sums could leave int32, whatever the inputs.

    Inputs may come as 0 .. 255, signed ones raised by 128.

    Args:
        matrix: int8 [inputs, outputs].
        name: For the message.

    Raises:
        EngineError: Names the output.
    """
    bound = matrix.long().abs().sum(0) * UNSIGNED
    if bool((bound > ACCUMULATOR).any()):
        worst = int(bound.argmax())
        raise EngineError(
            f"{name}, output {worst}: the largest possible sum {int(bound[worst])} does not fit "
            f"into 32 bits ({ACCUMULATOR}); this model cannot run in int8, use float16"
        )


def saturating_outputs(matrix: Tensor, taps: int = 1) -> Tensor:
    """Tell which outputs need a 32-bit product on AVX2.

    `vpmaddubsw` adds two products of neighbouring inputs in 16 bits and saturates; it is exact
    where |w[2i]| + |w[2i + 1]| <= 128 for all pairs. A pair lies within one tap.

    Args:
        matrix: int8 [taps * channels, outputs].
        taps: Of a gate.

    Returns:
        bool [outputs].
    """
    sizes = matrix.long().abs().unflatten(0, (taps, -1))
    if sizes.shape[1] % 2:
        sizes = torch.nn.functional.pad(sizes, (0, 0, 0, 1))
    pairs = sizes[:, 0::2] + sizes[:, 1::2]
    return (pairs > PAIR).flatten(0, 1).any(0)
