"""One-pass models on the native kernel: which can run, and what of them does (onepass_flow.py)."""

from __future__ import annotations

import functools
from typing import Any, cast

from torch import nn

from wavewn.engine.onepass_flow import Kernel, NativeFlow
from wavewn.engine.onepass_layers import Layer
from wavewn.engine.onepass_spectral import in_one_call
from wavewn.errors import EngineError
from wavewn.models.generators import Generator
from wavewn.models.hifigan import HiFiGAN
from wavewn.models.melgan import MelGAN
from wavewn.models.parallel_wavegan import ParallelWaveGAN
from wavewn.models.spectral import Spectral
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

TILES = "amx-bf16"
KINDS = (HiFiGAN, MelGAN, ParallelWaveGAN, Spectral)


def instruction_sets(precision: str) -> dict[str, str]:
    """Give the sets with a kernel of this precision, best first, and why one cannot run here."""
    from wavewn import _native

    sets = {name: why for name, kind, why in _native.onepass_sets() if kind == precision}
    if sets.get(TILES) == "":
        sets[TILES] = why_no_tiles()
    return sets


@functools.cache
def why_no_tiles() -> str:
    """Ask the system for AMX's tiles and let them convolve known numbers; "" if both goes well.

    The kernel has run in imitation alone so far, hence the trial.
    """
    from wavewn import _native

    return str(_native.request_amx() or _native.distrust_tiles())


def why_not_native(model: nn.Module, precision: str) -> str:
    """Say why a model cannot run natively in this precision; an empty string if it can."""
    from wavewn.engine.native import available

    if reason := available():
        return reason
    if type(model) not in KINDS:
        return "it runs one-pass models and plain WaveNets alone"
    sets = instruction_sets(precision)
    if any(not why for why in sets.values()):
        return ""
    return "; ".join(sets.values())


def layers_of(*modules: nn.Module) -> list[Layer]:
    """List the convolutions of modules."""
    return [
        one
        for module in modules
        for one in module.modules()
        if isinstance(one, PaddedConv1d | UpsamplingConv1d)
    ]


def kernel_for(model: nn.Module, precision: str, instruction_set: str, threads: int) -> Kernel:
    """Check that a model can run so; "auto" takes the best set that can run.

    Raises:
        EngineError: It cannot.
    """
    if reason := why_not_native(model, precision):
        raise EngineError(f"this model cannot run natively: {reason}")
    return Kernel(precision, chosen_set(precision, instruction_set), threads)


def chosen_set(precision: str, wanted: str) -> str:
    """Name the set that is wanted; "auto" is the best that can run.

    Raises:
        EngineError: It cannot run.
    """
    sets = instruction_sets(precision)
    if wanted == "auto":
        wanted = next((name for name, why in sets.items() if not why), wanted)
    if why := sets.get(wanted, f"it has no kernel of {precision}"):
        raise EngineError(f"instruction set {wanted}: {why}")
    return wanted


class NativeGenerator(nn.Module):
    """A generator whose whole flow runs natively.

    Args:
        model: Plain, in float32, on the CPU.
        kernel: Runs it.
    """

    def __init__(self, model: Generator, kernel: Kernel) -> None:
        super().__init__()
        self.settings, self.n_mels, self.hop_length = model.settings, model.n_mels, model.hop_length
        self.noise_channels = model.noise_channels
        layers, drive = layers_of(cast("nn.Module", model)), model.noise_channels
        self._native = NativeFlow(model.flow, layers, self.n_mels, drive, self.hop_length, kernel)

    def flow(self, run: Flow, mel: Rows, noise: Rows | None = None) -> Rows:
        """See `Generator.flow`."""
        return self._native(run, mel, noise)


def run_natively(
    model: Generator, precision: str, instruction_set: str = "auto", threads: int = 1
) -> Generator:
    """Let the kernel run what it can of a generator, in place, and give what takes its place.

    Raises:
        EngineError: It cannot run here.
    """
    module = cast("nn.Module", model)
    kernel = kernel_for(module, precision, instruction_set, threads)
    if not isinstance(model, Spectral):
        return NativeGenerator(model, kernel)
    parts = {
        "envelopes": (model, layers_of(model.inlet, *model.blocks, model.outlet)),
        "convolved": (model.pitch, layers_of(model.pitch)),
    }
    for name, (owner, layers) in parts.items():
        whole = getattr(owner, name)

        def function(run: Flow, x: Rows, _: Rows | None = None, whole: Any = whole) -> Rows:
            rows: Rows = whole(run, x)
            return rows

        setattr(owner, name, NativeFlow(function, layers, model.n_mels, 0, 1, kernel))
    return in_one_call(model)
