"""Generators made of convolutions, run by the native kernel: HiFi-GAN and MelGAN on a CPU.

A `NativeGenerator` stands where its generator stood and gives the same rows. The first chunk of a
size is recorded (onepass_record.py) and becomes a program (onepass_program.py); chunks like it then
run without torch. What a stream remembers is what the flow in torch remembers, entry by entry.

Sums are float32 in both precisions; with bfloat16 only what the convolutions read is rounded, so
less of it than in torch, where their results are rounded, too. Audio depends neither on the chunks
nor on the batch, to the last bit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

KINDS = (HiFiGAN, MelGAN)
MOST_PROGRAMS = 64  # a caller that pushes chunks of all sizes shall not fill the memory


@dataclass(frozen=True)
class Chunk:
    """What a program is for.

    Attributes:
        start: Number of the first frame; that of the first steady one where it lies behind.
        frames: Mel frames.
        ended: Whether the utterance ends with them.
        calls: Entries of the state that the flow around it has named before.
        state: Numbers of a row of the state.
    """

    start: int
    frames: int
    ended: bool
    calls: int
    state: int


@dataclass(frozen=True)
class Compiled:
    """A program of the extension, and what it gives."""

    run: Any
    shift: int  # first sample, less what the frames before would give
    samples: int
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
        return "of one-pass models it runs HiFi-GAN and MelGAN alone"
    layers = [one for one in model.modules() if isinstance(one, PaddedConv1d | UpsamplingConv1d)]
    if precision == "bfloat16" and any(one.in_channels % 2 for one in layers):
        return "a layer has an odd number of channels, and bfloat16 takes them in pairs"
    sets = instruction_sets(precision)
    if any(not why for why in sets.values()):
        return ""
    return "; ".join(sets.values())


class NativeGenerator(nn.Module):
    """Runs one generator; see the module.

    Args:
        model: Plain, in float32, on the CPU. Its flow is kept, its weights are copied.
        precision: "float32" or "bfloat16".
        instruction_set: One of `instruction_sets`; "auto" takes the best that can run.
        threads: That share a convolution.

    Raises:
        EngineError: It cannot run here.
    """

    def __init__(
        self, model: Generator, precision: str, instruction_set: str = "auto", threads: int = 1
    ) -> None:
        super().__init__()
        if reason := why_not_native(cast("nn.Module", model), precision):
            raise EngineError(f"this model cannot run natively: {reason}")
        from wavewn import _native

        sets = instruction_sets(precision)
        if instruction_set == "auto":
            instruction_set = next(name for name, why in sets.items() if not why)
        if why := sets.get(instruction_set, f"it has no kernel of {precision}"):
            raise EngineError(f"instruction set {instruction_set}: {why}")
        self.settings, self.n_mels, self.hop_length = model.settings, model.n_mels, model.hop_length
        self.noise_channels = model.noise_channels
        self.instruction_set = instruction_set
        self._inner = cast("nn.Module", model)
        layers = [
            one for one in model.modules() if isinstance(one, PaddedConv1d | UpsamplingConv1d)
        ]
        self._numbers: dict[PaddedConv1d | UpsamplingConv1d, LayerNumbers] = {}
        packed: list[Plain] = []
        for layer in layers:
            one = many = len(packed)
            packed.append(plain(layer))
            if (rows := merged_rows(layer)) > 1:
                many = len(packed)
                packed.append(merged(layer))
            self._numbers[layer] = LayerNumbers(one, many, rows)
        self._bytes = 2 if precision == "bfloat16" else 4
        arrays = [(w.numpy(), bias.numpy(), dilation, step) for w, bias, dilation, step in packed]
        self._network = _native.OnePassNetwork(instruction_set, self._bytes == 2, threads, arrays)
        self._steady = measure(self._count, model.n_mels, model.hop_length).steady
        self._programs: OrderedDict[Chunk, Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def flow(self, run: Flow, mel: Rows, noise: Rows | None = None) -> Rows:
        """Turn mel frames into one channel of audio; in numbers of rows as the generator does."""
        if mel.data is None or not isinstance(run.memory, Memory):
            rows: Rows = self._inner.flow(run, mel, noise)  # type: ignore[operator]
            return rows
        memory = run.memory
        frames = mel.end - mel.start
        start = min(mel.start, self._steady)
        chunk = Chunk(start, frames, mel.ended, run.calls, memory.buffer.shape[1])
        program = self._program(chunk, memory)
        run.calls = program.calls
        first = mel.start * self.hop_length + program.shift
        batch = mel.data.shape[0]
        audio = torch.empty(batch, program.samples)
        heard = mel.data.float().transpose(1, 2).reshape(batch, -1).contiguous()
        program.run.run(memory.buffer.numpy(), heard.numpy(), audio.numpy())
        return Rows(audio[:, None], 1, first, first + program.samples, mel.ended)

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
        end = chunk.start + chunk.frames
        mel = recorder.input(self.n_mels, chunk.start, end, chunk.ended)
        audio: Rows = self._inner.flow(recorder, mel, None)  # type: ignore[operator]
        part = cast("Part", audio.data)
        writer = Writer(recorder.made, part, entries, self._numbers, self._bytes)
        steps, arena_bytes = writer.program()
        samples = audio.end - audio.start
        sizes = arena_bytes, chunk.state, chunk.frames * self.n_mels, samples
        run = _native.OnePassProgram(self._network, steps, *sizes)
        shift = audio.start - chunk.start * self.hop_length
        return Compiled(run, shift, samples, recorder.calls)

    def _count(self, flow: Flow, mel: Rows, noise: Rows) -> Rows:
        rows: Rows = self._inner.flow(flow, mel, None)  # type: ignore[operator]
        return rows
