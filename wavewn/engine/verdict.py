"""Which precisions are good enough for a WaveNet: measured on speech, never guessed.

(bfloat16 of one-pass models is judged in onepass_verdict.py.) The measure is the teacher-forced
negative log-likelihood. A precision is usable where it lies within `TOLERANCE` of float32's. Every
second piece calibrates, the others judge, so no precision is judged by what it was fitted to. All
is measured with the torch twin, so a verdict does not depend on the machine that exported.

Pieces are the beginnings of recordings: there a stream's history is silence, as in use. Crops from
within speech will not do: with their past cut off, what is left of the linear prediction came out a
hundred times too large, and it alone fixed int8's range (2026-11-22, wavenet-ru-16k: 3736 for 27).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wavewn.bundle.precisions import Calibration
from wavewn.engine.packing import kernel_weights
from wavewn.engine.twin import Product, make_products, run_stack
from wavewn.engine.weights import WaveNetWeights, pack_wavenet
from wavewn.errors import EngineError
from wavewn.models.heads import LinearLevels
from wavewn.models.wavenet import Heard, WaveNet

TOLERANCE = 0.005  # nats a sample
HEADROOM = 1.5  # of int8's range above what calibration saw; 2026-11-22: 0.0017 nats at 1, 0.0006
FINE = 4  # leading layers whose inputs are made finer where int8 would not do; then all are
QUIET = 1e-3  # share of its layer's loudest channel that a channel is given at least
LARGEST = 1e15  # magnitude that is no sign of a broken model
HALF_PRODUCTS = 2e9  # that the emulation of half products may take: seconds, not minutes


@dataclass(frozen=True)
class Piece:
    """The beginning of a recording.

    Attributes:
        audio: [1, frames * hop_length].
        mel: [1, bands, frames + look_ahead].
        speaker: int64 [1] where the model knows speakers.
    """

    audio: Tensor
    mel: Tensor
    speaker: Tensor | None = None


@torch.no_grad()
def calibrate(model: WaveNet, pieces: Iterable[Piece]) -> Calibration:
    """Find the range that int8 must represent: the largest magnitudes in the pieces, and headroom.

    A quantile instead of the maximum is worse: 0.0028 nats a sample above float32 with the maximum,
    0.0066 with 0.9999, 0.017 with 0.999 (2026-11-22, wavenet-ru-16k, one gain a layer).

    Args:
        model: Plain.
        pieces: At least one.
    """
    weights = kernel_weights(pack_wavenet(model))
    products = make_products(weights, "float32")
    seen: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        largest = x.abs().amax((0, 1))
        seen[name] = torch.maximum(seen[name], largest) if name in seen else largest

    for piece in pieces:
        heard, _ = _hear(model, piece)
        run_stack(weights, products, heard.features, heard.condition, note)
    if not seen or not all(bool((one < LARGEST).all()) for one in seen.values()):
        raise EngineError(
            "no finite activations to calibrate with; is the model broken, or is there no speech?"
        )
    inputs = [seen[f"layers.{i}.gate"] for i in range(len(weights.layers))]
    return Calibration(
        tuple(tuple(_magnitudes(one)) for one in inputs),
        max(_magnitudes(seen["hidden"])),
        max(_magnitudes(seen["output"])),
    )


@torch.no_grad()
def measure(
    model: WaveNet, pieces: Sequence[Piece]
) -> tuple[dict[str, dict[str, Any]], Calibration]:
    """Calibrate with every second piece and judge each precision by the others.

    Returns:
        The verdict as config.json has it, and the calibration.

    Raises:
        EngineError: There are fewer than two pieces.
    """
    if len(pieces) < 2:
        raise EngineError(f"a verdict needs at least 2 recordings, got {len(pieces)}")
    weights = kernel_weights(pack_wavenet(model))
    calibration = calibrate(model, pieces[::2])
    layers = len(weights.layers)
    finer = [replace(calibration, fine=count) for count in (0, min(FINE, layers), layers)]
    judges = pieces[1::2]
    plain = make_products(weights, "float32")
    nats = _nats(model, weights, plain, judges)
    verdict: dict[str, dict[str, Any]] = {"float32": {"usable": True, "nats": round(nats, 5)}}
    half = _half_excess(model, weights, judges)
    products = make_products(weights, "float16")
    excess = _nats(model, weights, products, judges) - nats
    # the worse of the two ways in which machines multiply
    verdict["float16"] = judge(excess if abs(half) <= abs(excess) else half)
    for calibration in finer:
        try:
            products = make_products(weights, "int8", calibration)
        except EngineError as error:
            verdict["int8"] = {"usable": False, "reason": str(error)}
            break
        verdict["int8"] = judge(_nats(model, weights, products, judges) - nats)
        if verdict["int8"]["usable"]:
            break
    return verdict, calibration


def judge(excess: float) -> dict[str, Any]:
    """Turn nats a sample above float32 into a verdict."""
    if not math.isfinite(excess):
        return {"usable": False, "reason": "its likelihood is not a finite number"}
    found: dict[str, Any] = {"usable": abs(excess) <= TOLERANCE, "excess_nats": round(excess, 5)}
    if not found["usable"]:
        found["reason"] = (
            f"{excess:+.4f} nats a sample from float32 on calibration data, {TOLERANCE} are allowed"
        )
    return found


def _hear(model: WaveNet, piece: Piece) -> tuple[Heard, Tensor]:
    levels = model.levels(piece.audio)
    return model.hear(levels, piece.mel, piece.speaker), levels


def _nats(
    model: WaveNet, weights: WaveNetWeights, products: dict[str, Product], pieces: Sequence[Piece]
) -> float:
    """Mean negative log-likelihood a sample."""
    total, samples = 0.0, 0
    for piece in pieces:
        heard, levels = _hear(model, piece)
        total -= float(_log_prob(model, weights, products, heard, levels).double().sum())
        samples += levels.numel()
    return total / samples


def _log_prob(
    model: WaveNet,
    weights: WaveNetWeights,
    products: dict[str, Product],
    heard: Heard,
    levels: Tensor,
) -> Tensor:
    """[1, samples]."""
    parameters = run_stack(weights, products, heard.features, heard.condition)
    if heard.location is not None and heard.scale is not None:
        assert isinstance(model.head, LinearLevels), "settings allow no other head"
        parameters = model.head.relocate(parameters, heard.location, heard.scale)
    return model.head.log_prob(parameters, levels)


def _half_excess(model: WaveNet, weights: WaveNetWeights, pieces: Sequence[Piece]) -> float:
    """As `_nats` of half products, less that of float32, on the middles of the pieces.

    A middle begins with empty layers, but the predictions have heard all that was before.
    """
    hop = weights.hop_length
    costs = sum(layer.gate.numel() + layer.out.matrix.numel() for layer in weights.layers)
    costs += weights.hidden.matrix.numel() + weights.output.matrix.numel()
    frames = max(1, int(HALF_PRODUCTS / costs / hop / len(pieces)))
    half, plain = (make_products(weights, precision) for precision in ("half", "float32"))
    total, samples = 0.0, 0
    for piece in pieces:
        heard, levels = _hear(model, piece)
        first = max(0, (levels.shape[1] // hop - frames) // 2)
        rows = slice(first * hop, (first + frames) * hop)
        parts = {
            name: None if (value := getattr(heard, name)) is None else value[:, rows]
            for name in ("location", "scale")
        }
        middle = Heard(
            heard.features[:, rows], heard.condition[:, first : first + frames + 1], **parts
        )
        for products, sign in ((half, -1), (plain, 1)):
            log_prob = _log_prob(model, weights, products, middle, levels[:, rows])
            total += sign * float(log_prob.double().sum())
        samples += middle.features.shape[1]
    return total / samples


def _magnitudes(seen: Tensor) -> list[float]:
    """Round up a little, so that config.json stays short."""
    floor = max(QUIET * float(seen.max()), QUIET)
    return [float(f"{HEADROOM * max(one, floor):.4g}") for one in seen.tolist()]
