"""Flows of convolutions, run by the native kernel on a CPU: HiFi-GAN, MelGAN, stacks of Spectral.

A `NativeFlow` stands where a function of rows stood and gives the same rows. The first chunk of a
size is recorded (onepass_record.py) and becomes a program (onepass_program.py); chunks like it then
run without torch. What a stream remembers is what the flow in torch remembers, entry by entry.

Sums are float32 in both precisions; with bfloat16 only what the convolutions read is rounded, so
less of it than in torch, where their results are rounded, too. Rows depend neither on the chunks
nor on the batch, to the last bit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from wavewn.engine.onepass_layers import Plain, merged, merged_rows, plain
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_program import LayerNumbers, Writer
from wavewn.engine.onepass_record import Part, Recorder
from wavewn.errors import EngineError
from wavewn.models.generators import Generator
from wavewn.models.hifigan import HiFiGAN
from wavewn.models.melgan import MelGAN
from wavewn.models.spectral import Spectral
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d

KINDS = (HiFiGAN, MelGAN, Spectral)
MOST_PROGRAMS = 64  # a caller that pushes chunks of all sizes shall not fill the memory
MOST_NUMBERS = 1 << 17  # of the largest signal of a chunk; longer ones are heard in pieces

Layer = PaddedConv1d | UpsamplingConv1d


@dataclass(frozen=True)
class Chunk:
    """What a program is for.

    Attributes:
        start: Number of the first row; that of the first steady one where it lies behind.
        rows: That are heard.
        ended: Whether the utterance ends with them.
        calls: Entries of the state that the flow around it has named before.
        state: Numbers of a row of the state.
    """

    start: int
    rows: int
    ended: bool
    calls: int
    state: int


@dataclass(frozen=True)
class Compiled:
    """A program of the extension, and what it gives."""

    run: Any
    shift: int  # first row given, less what the rows before would give
    rows: int
    channels: int
    calls: int


def instruction_sets(precision: str) -> dict[str, str]:
    """Give the sets with a kernel of this precision, best first, and why one cannot run here."""
    from wavewn import _native

    return {name: why for name, kind, why in _native.onepass_sets() if kind == precision}


def why_not_native(model: nn.Module, precision: str) -> str:
    """Say why a model cannot run natively in this precision; an empty string if it can."""
    from wavewn.engine.native import available

    if reason := available():
        return reason
    if type(model) not in KINDS:
        return "of one-pass models it runs HiFi-GAN, MelGAN and spectral alone"
    odd = any(one.in_channels % 2 for one in layers_of(model) if not isinstance(one, PreciseConv1d))
    if precision == "bfloat16" and odd:
        return "a layer has an odd number of channels, and bfloat16 takes them in pairs"
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


@dataclass(frozen=True)
class Kernel:
    """What runs a flow.

    Attributes:
        precision: "float32" or "bfloat16".
        instruction_set: One of `instruction_sets`.
        threads: That share a convolution.
    """

    precision: str
    instruction_set: str
    threads: int = 1

    @staticmethod
    def of(model: nn.Module, precision: str, instruction_set: str, threads: int) -> Kernel:
        """Check that a model can run so; "auto" takes the best set that can run.

        Raises:
            EngineError: It cannot.
        """
        if reason := why_not_native(model, precision):
            raise EngineError(f"this model cannot run natively: {reason}")
        sets = instruction_sets(precision)
        if instruction_set == "auto":
            instruction_set = next(name for name, why in sets.items() if not why)
        if why := sets.get(instruction_set, f"it has no kernel of {precision}"):
            raise EngineError(f"instruction set {instruction_set}: {why}")
        return Kernel(precision, instruction_set, threads)


class NativeFlow:
    """Runs one function of rows; see the module.

    Args:
        function: Of (flow, rows): convolutions and what `Recorder` knows beside them. It is kept.
        layers: That it runs, plain and in float32, on the CPU. Their weights are copied.
        channels: Of the rows that it hears.
        rate: Rows that it gives for each.
        kernel: Runs it.
    """

    def __init__(
        self,
        function: Callable[[Flow, Rows], Rows],
        layers: list[Layer],
        channels: int,
        rate: int,
        kernel: Kernel,
    ) -> None:
        from wavewn import _native

        self.kernel = kernel
        self._function, self._channels, self._rate = function, channels, rate
        self._numbers: dict[Layer, LayerNumbers] = {}
        packed: list[Plain] = []
        for layer in layers:
            one = many = len(packed)
            packed.append(plain(layer))
            if (rows := merged_rows(layer)) > 1:
                many = len(packed)
                packed.append(merged(layer))
            self._numbers[layer] = LayerNumbers(one, many, rows)
        self._bytes = 2 if kernel.precision == "bfloat16" else 4
        arrays = [(one.weights.numpy(), one.bias.numpy(), *one[2:]) for one in packed]
        self._network = _native.OnePassNetwork(
            kernel.instruction_set, self._bytes == 2, kernel.threads, arrays
        )
        measured = measure(lambda run, x, _: function(run, x), channels, rate)
        self._steady = measured.steady
        recorder = Recorder({name: rows for name, (rows, _) in measured.shapes.items()})
        function(recorder, recorder.input(channels, self._steady, self._steady + 1, False))
        widest = max(one.channels * (one.end - one.start) for one in recorder.made)
        self._piece = max(MOST_NUMBERS // widest, 1)
        self._programs: OrderedDict[Chunk, Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, run: Flow, x: Rows) -> Rows:
        """Give what the function gives; numbers of rows alone go through itself."""
        if x.data is None or not isinstance(run.memory, Memory):
            return self._function(run, x)
        begun, pieces, given = run.calls, x.data.split(self._piece, dim=2), []
        start = x.start
        for number, piece in enumerate(pieces, start=1):
            run.calls, end = begun, start + piece.shape[2]
            rows = Rows(piece, x.channels, start, end, x.ended and number == len(pieces))
            given.append(self._run(run, rows, run.memory))
            start = end
        if len(given) == 1:
            return given[0]
        data = torch.cat([part.whole.transpose(1, 2) for part in given], dim=1).transpose(1, 2)
        return Rows(data, given[0].channels, given[0].start, given[-1].end, x.ended)

    def _run(self, run: Flow, x: Rows, memory: Memory) -> Rows:
        """Run the program for such a piece."""
        buffer, data = memory.buffer, x.whole
        start, rows = min(x.start, self._steady), x.end - x.start
        program = self._program(Chunk(start, rows, x.ended, run.calls, buffer.shape[1]), memory)
        run.calls = program.calls
        batch, first = len(data), x.start * self._rate + program.shift
        given = torch.empty(batch, program.rows, program.channels)
        heard = data.float().transpose(1, 2).reshape(batch, -1).contiguous()
        program.run.run(buffer.numpy(), heard.numpy(), given.view(batch, -1).numpy())
        last = first + program.rows
        return Rows(given.transpose(1, 2), program.channels, first, last, x.ended)

    def _program(self, chunk: Chunk, memory: Memory) -> Compiled:
        with self._lock:
            found = self._programs.get(chunk)
            if found is None:
                found = self._programs[chunk] = self._compile(chunk, memory)
                if len(self._programs) > MOST_PROGRAMS:
                    self._programs.popitem(last=False)
            else:
                self._programs.move_to_end(chunk)
            return found

    def _compile(self, chunk: Chunk, memory: Memory) -> Compiled:
        from wavewn import _native

        entries = memory.entries
        recorder = Recorder({name: one.rows for name, one in entries.items()}, chunk.calls)
        end = chunk.start + chunk.rows
        y = self._function(recorder, recorder.input(self._channels, chunk.start, end, chunk.ended))
        writer = Writer(recorder.made, cast("Part", y.data), entries, self._numbers, self._bytes)
        steps, arena_bytes = writer.program()
        rows = y.end - y.start
        sizes = arena_bytes, chunk.state, chunk.rows * self._channels, rows * y.channels
        run = _native.OnePassProgram(self._network, steps, *sizes)
        shift = y.start - chunk.start * self._rate
        return Compiled(run, shift, rows, y.channels, recorder.calls)


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
        layers = layers_of(cast("nn.Module", model))
        self._native = NativeFlow(
            lambda run, mel: model.flow(run, mel, None),
            layers,
            self.n_mels,
            self.hop_length,
            kernel,
        )

    def flow(self, run: Flow, mel: Rows, noise: Rows | None = None) -> Rows:
        """See `Generator.flow`."""
        return self._native(run, mel)


def run_natively(
    model: Generator, precision: str, instruction_set: str = "auto", threads: int = 1
) -> Generator:
    """Let the kernel run what it can of a generator, in place, and give what takes its place.

    Raises:
        EngineError: It cannot run here.
    """
    module = cast("nn.Module", model)
    kernel = Kernel.of(module, precision, instruction_set, threads)
    if not isinstance(model, Spectral):
        return NativeGenerator(model, kernel)
    parts = {
        "envelopes": (model, layers_of(model.inlet, *model.blocks, model.outlet)),
        "convolved": (model.pitch, layers_of(model.pitch)),
    }
    for name, (owner, layers) in parts.items():
        setattr(owner, name, NativeFlow(getattr(owner, name), layers, model.n_mels, 1, kernel))
    return model
