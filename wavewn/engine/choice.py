"""Which engine runs a model, and in which precision.

"auto" goes by the device, the machine and what the bundle says about its own precisions, never by
timing: a model on a machine always gives the same samples. What is passed over is logged with the
reason. What is named runs, or raises.

The cuda engine goes by a bundle's verdict on float16, which was measured on the native engine's
arithmetic: both round weights and what they meet to halves, and the GPU's sums are float32.
"""

import functools
import importlib.util
import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from wavewn.bundle.precisions import Calibration
from wavewn.engine.call import Engine, WaveNetEngine
from wavewn.engine.levelled import LevelledEngine
from wavewn.engine.onepass import PRECISIONS as ONE_PASS_PRECISIONS
from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.onepass_native import why_not_native as why_not_natively
from wavewn.engine.processor import CPUINFO, cpu_flags
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.smoothed import SmoothedEngine
from wavewn.engine.weights import WaveNetWeights, pack_wavenet
from wavewn.errors import EngineError
from wavewn.models.generators import Generator
from wavewn.models.levelled import Levelled, Levels
from wavewn.models.smoothed_wavenet import SmoothedWaveNet

PRECISIONS_OF = {  # of WaveNet's engines, fastest first
    "native": ("int8", "float16", "float32"),
    "cuda": ("float16", "float32"),
    "graph": ("float32",),
    "reference": ("float32",),
}
WAVENET_ENGINES = tuple(PRECISIONS_OF)
WAVENET_PRECISIONS = ("int8", "float16", "float32")  # fastest first
ON_CPU = ("native", "reference")  # what "auto" tries, in this order
ON_CUDA = ("cuda", "graph", "reference")
ONE_PASS_ENGINES = ("native", "onepass")
ENGINES = (*WAVENET_ENGINES, "onepass")
PRECISIONS = ("int8", "float16", "bfloat16", "float32")

logger = logging.getLogger(__name__)


def make_engine(
    model: WaveNetWeights | Generator,
    engine: str = "auto",
    precision: str = "auto",
    *,
    device: torch.device | str = "cpu",
    threads: int = 1,
    verdict: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: Calibration | None = None,
    levels: Levels | None = None,
) -> Engine:
    """Make the engine that is asked for.

    Args:
        model: From `pack_wavenet`, or a generator without weight norm.
        engine: "auto" or one of `ENGINES`: "native" runs all models, "onepass" all but WaveNets,
            the others WaveNets alone.
        precision: "auto" or one of `PRECISIONS`; "auto" is the fastest that the engine has and
            `verdict` calls usable. bfloat16 must be the processor's own, too.
        device: Where the model shall run.
        threads: That the engine may use; a WaveNet's samples do not depend on it.
        verdict: By precision, as a bundle's config.json has it.
        calibration: Likewise; int8 needs it.
        levels: Levels the audio, where it shall be.

    Raises:
        EngineError: No such engine or precision, or it cannot run here or run this model.
    """
    if threads < 1:
        raise EngineError(f"threads must be at least 1, got {threads}")
    run = functools.partial(
        make_engine,
        engine=engine,
        precision=precision,
        device=device,
        threads=threads,
        verdict=verdict,
        calibration=calibration,
    )
    if levels is not None and isinstance(model, WaveNetWeights | SmoothedWaveNet):
        core = run(model)
        return LevelledEngine(levels, core, threads)
    if isinstance(model, SmoothedWaveNet):
        packed = pack_wavenet(model.network)
        core = run(packed)
        return SmoothedEngine(model, cast("WaveNetEngine", core), threads)
    if not isinstance(model, WaveNetWeights):
        kind = model.settings.kind
        _check_choice("engine", engine, ONE_PASS_ENGINES, kind, ENGINES)
        _check_choice("precision", precision, ONE_PASS_PRECISIONS, kind, PRECISIONS)
        if precision == "auto":
            reason = why_not_bfloat16(torch.device(device))
            without = {"bfloat16": reason} if reason else {}
            precision = usable_precision(verdict or {}, ONE_PASS_PRECISIONS, without)
        else:
            _warn(precision, verdict)
        native = native_for(model, engine, precision, torch.device(device))
        whole = model if levels is None else Levelled(model, levels)
        return OnePassEngine(whole, precision, device, threads, native=native)
    _check_choice("engine", engine, WAVENET_ENGINES, "WaveNet", ENGINES)
    _check_choice("precision", precision, WAVENET_PRECISIONS, "WaveNet", PRECISIONS)
    device, verdict = torch.device(device), verdict or {}
    if engine != "auto":
        if reason := why_not(engine, precision, device):
            raise EngineError(f"the {engine} engine cannot run here: {reason}")
        return _make_wavenet_engine(engine, model, precision, device, threads, verdict, calibration)
    refusals = []
    for name in ON_CUDA if device.type == "cuda" else ON_CPU:
        reason = why_not(name, precision, device)
        if not reason:
            try:
                return _make_wavenet_engine(
                    name, model, precision, device, threads, verdict, calibration
                )
            except EngineError as error:  # this model does not go into it
                reason = str(error)
        logger.info("the %s engine was passed over: %s", name, reason)
        refusals.append(f"{name}: {reason}")
    raise EngineError(f"no engine can run this on {device}: {'; '.join(refusals)}")


def native_for(model: Generator, engine: str, precision: str, device: torch.device) -> str:
    """Choose the instruction set of the native kernel for a generator; "" leaves it to torch.

    Raises:
        EngineError: The native engine is asked for, and cannot run it here.
    """
    if engine == "onepass":
        return ""
    if device.type == "cpu":
        reason = why_not_natively(cast("nn.Module", model), precision)
    else:
        reason = f"it runs on the CPU, not on {device}"
    if reason and engine == "native":
        raise EngineError(f"the native engine cannot run here: {reason}")
    if reason:
        logger.info("the native engine was passed over: %s", reason)
    return "" if reason else "auto"


def _make_wavenet_engine(
    name: str,
    weights: WaveNetWeights,
    precision: str,
    device: torch.device,
    threads: int,
    verdict: Mapping[str, Mapping[str, Any]],
    calibration: Calibration | None,
) -> WaveNetEngine:
    if precision == "auto":
        precision = usable_precision(verdict, PRECISIONS_OF[name])
    else:
        _warn(precision, verdict)
    if name == "native":
        from wavewn.engine.native import NativeEngine

        return NativeEngine(weights, precision, threads=threads, calibration=calibration)
    if name == "cuda":
        from wavewn.engine.cuda import CudaEngine

        return CudaEngine(weights, device, precision)
    if name == "graph":
        from wavewn.engine.graph import GraphEngine

        if device.type != "cuda":
            logger.info("the graph engine records no graph on %s: it is slow there", device)
        return GraphEngine(weights, device)
    return ReferenceEngine(weights, device)


def why_not(engine: str, precision: str, device: torch.device) -> str:
    """Say why an engine of `WAVENET_ENGINES` cannot run so; an empty string if it can."""
    own = PRECISIONS_OF[engine]
    if precision not in ("auto", *own):
        return f"it runs {' and '.join(own)} alone, not {precision}"
    if importlib.util.find_spec(f"wavewn.engine.{engine}") is None:
        return "it is not part of this installation"
    if engine == "native":
        return why_not_native(device)
    return why_not_cuda(device) if engine == "cuda" else ""


def why_not_cuda(device: torch.device) -> str:
    """Say why the cuda engine cannot run on a device; an empty string if it can."""
    if device.type != "cuda":
        return f"it runs on a GPU, not on {device}"
    from wavewn.engine.nvrtc import available

    return available(device)


def why_not_native(device: torch.device) -> str:
    """Say why the native engine cannot run on a device; an empty string if it can."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    from wavewn.engine.native import available

    return available()


def why_not_bfloat16(device: torch.device) -> str:
    """Say why bfloat16 is no gain on a device; an empty string if it is one."""
    if device.type == "cuda":
        own = torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if own else f"{device} has no bfloat16 arithmetic"
    if device.type == "cpu" and cpu_flags(CPUINFO) & {"avx512_bf16", "amx_bf16"}:
        return ""
    return f"{device} has no bfloat16 instructions"


def usable_precision(
    verdict: Mapping[str, Mapping[str, Any]],
    precisions: tuple[str, ...] = WAVENET_PRECISIONS,
    without: Mapping[str, str] | None = None,
) -> str:
    """Return the fastest precision that a verdict calls usable, the last if it calls none so.

    Args:
        verdict: By precision.
        precisions: Fastest first.
        without: Precisions that cannot be had here, and why.
    """
    for precision in precisions[:-1]:
        if reason := (without or {}).get(precision):
            logger.info("%s was passed over: %s", precision, reason)
        elif precision not in verdict:
            logger.info("%s was passed over: the bundle has no verdict on it", precision)
        elif not verdict[precision].get("usable"):
            reason = verdict[precision].get("reason", "it strays too far from float32")
            logger.info("%s was passed over: %s", precision, reason)
        else:
            return precision
    return precisions[-1]


def _warn(precision: str, verdict: Mapping[str, Mapping[str, Any]] | None) -> None:
    if verdict and verdict.get(precision, {}).get("usable") is False:
        logger.warning("%s is used although the bundle's verdict speaks against it", precision)


def _check_choice(
    what: str, wanted: str, present: tuple[str, ...], kind: str, known: tuple[str, ...]
) -> None:
    """Raise EngineError unless this kind of model runs so."""
    if wanted in ("auto", *present):
        return
    choices = f"choose auto or {', '.join(present)}"
    if wanted in known:
        raise EngineError(f"this model is a {kind}, which runs in no {what} {wanted}; {choices}")
    raise EngineError(f"no {what} {wanted!r} here; {choices}")
