"""Whether bfloat16 is good enough for a one-pass model: measured on speech, never guessed.

The measure is the ratio of the audio in float32 to what bfloat16 changes of it. It is taken over
all recordings together, so that silence, where any change is small, does not count for more.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wavewn.engine.call import Engine
from wavewn.engine.onepass import OnePassEngine
from wavewn.errors import EngineError
from wavewn.models.generators import Generator
from wavewn.state import StreamState

LEAST_DB = 40.0


def measure_bfloat16(model: Generator, mels: Sequence[Tensor]) -> dict[str, dict[str, Any]]:
    """Compare bfloat16 with float32.

    Args:
        model: Plain, and levelled as its users will hear it.
        mels: Of recordings, [1, bands, frames] each.

    Returns:
        The verdict as config.json has it.

    Raises:
        EngineError: There are no mels, or NaN comes up in float32.
    """
    if not mels:
        raise EngineError("a verdict needs at least 1 recording")
    plain, rounded = OnePassEngine(model), OnePassEngine(model, "bfloat16")
    signal = noise = 0.0
    for mel in mels:
        true = _speak(plain, mel)
        signal += float(true.square().sum())
        try:
            noise += float((_speak(rounded, mel) - true).square().sum())
        except EngineError:  # NaN, which float32 had none of
            noise = math.inf
    verdict: dict[str, dict[str, Any]] = {"float32": {"usable": True}}
    verdict["bfloat16"] = judge(_decibels(signal, noise))
    return verdict


def judge(snr_db: float | None) -> dict[str, Any]:
    """Turn a ratio into a verdict; None where nothing sounded or nothing changed."""
    if snr_db is None:
        return {"usable": False, "reason": "the recordings gave nothing to compare"}
    if not math.isfinite(snr_db):
        return {"usable": False, "reason": "NaN or infinity came up"}
    found: dict[str, Any] = {"usable": snr_db >= LEAST_DB, "snr_db": round(snr_db, 1)}
    if not found["usable"]:
        found["reason"] = (
            f"{snr_db:.1f} dB from float32 on recordings, {LEAST_DB:g} dB are asked for"
        )
    return found


def _decibels(signal: float, noise: float) -> float | None:
    if math.isinf(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if signal and noise else None


def _speak(engine: Engine, mel: Tensor) -> Tensor:
    state = StreamState.zeros(engine.layout, 1)
    return torch.cat([engine.generate(state, mel), engine.finish(state)], dim=1)
