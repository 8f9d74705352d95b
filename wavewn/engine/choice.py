"""Which engine runs a model, and in which precision.

"auto" goes by the device, the machine and what the bundle says about its own precisions, never by
timing: a model on a machine always gives the same samples. What is passed over is logged with the
reason. What is named runs, or raises.
"""

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import torch

from wavewn.bundle.precisions import Calibration
from wavewn.engine.call import Engine
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError

ENGINES = ("native", "reference")  # fastest first
PRECISIONS = ("int8", "float16", "float32")  # fastest first

logger = logging.getLogger(__name__)


def make_engine(
    weights: WaveNetWeights,
    engine: str = "auto",
    precision: str = "auto",
    *,
    device: torch.device | str = "cpu",
    threads: int = 1,
    verdict: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: Calibration | None = None,
) -> Engine:
    """Make the engine that is asked for.

    Args:
        weights: From `pack_wavenet`.
        engine: "auto" or one of `ENGINES`.
        precision: "auto" or one of `PRECISIONS`; "auto" is float32 in the reference engine, and
            in the native one the fastest that `verdict` calls usable.
        device: Where the model shall run.
        threads: That the native engine may use; the samples do not depend on it.
        verdict: By precision, as a bundle's config.json has it.
        calibration: Likewise; int8 needs it.

    Raises:
        EngineError: No such engine or precision, or it cannot run here.
    """
    _check_choice("engine", engine, ENGINES)
    _check_choice("precision", precision, PRECISIONS)
    if threads < 1:
        raise EngineError(f"threads must be at least 1, got {threads}")
    reason = why_not_native(torch.device(device))
    if engine == "native" and reason:
        raise EngineError(f"the native engine cannot run here: {reason}")
    if engine == "reference" or reason:
        if precision not in ("auto", "float32"):
            why = f", and the native engine cannot run here: {reason}" if engine == "auto" else ""
            raise EngineError(f"the reference engine runs float32 alone, not {precision}{why}")
        if engine == "auto":
            logger.info("the native engine was passed over: %s", reason)
        return ReferenceEngine(weights, device)
    from wavewn.engine.native import NativeEngine

    if precision == "auto":
        precision = usable_precision(verdict or {})
    elif verdict and verdict.get(precision, {}).get("usable") is False:
        logger.warning("%s is used although the bundle's verdict speaks against it", precision)
    return NativeEngine(weights, precision, threads=threads, calibration=calibration)


def why_not_native(device: torch.device) -> str:
    """Say why the native engine cannot run on a device; an empty string if it can."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    if importlib.util.find_spec("wavewn.engine.native") is None:
        return "it is not part of this installation"
    from wavewn.engine.native import available

    return available()


def usable_precision(verdict: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the fastest precision that a verdict calls usable, float32 if it calls none so."""
    for precision in PRECISIONS[:-1]:
        if precision not in verdict:
            logger.info("%s was passed over: the bundle has no verdict on it", precision)
        elif not verdict[precision].get("usable"):
            reason = verdict[precision].get("reason", "it strays too far from float32")
            logger.info("%s was passed over: %s", precision, reason)
        else:
            return precision
    return PRECISIONS[-1]


def _check_choice(what: str, wanted: str, present: tuple[str, ...]) -> None:
    if wanted not in ("auto", *present):
        raise EngineError(f"no {what} {wanted!r} here; choose auto or {', '.join(present)}")
