"""A flow of convolutions, run by the native kernel on a CPU.

A `NativeFlow` stands where a function of rows stood and gives the same rows. The first chunk of a
size is recorded (onepass_record.py) and becomes a program (onepass_program.py); chunks like it then
run without torch. What a stream remembers is what the flow in torch remembers, entry by entry.

Sums are float32 in both precisions; with bfloat16 only what the convolutions read is rounded, so
less of it than in torch, where their results are rounded, too. Rows depend neither on the chunks
nor on the batch, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from wavewn.engine.onepass_layers import Layer, Plain, kind_of, merged, merged_rows, plain
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_plans import Plans
from wavewn.engine.onepass_program import LayerNumbers, Writer
from wavewn.engine.onepass_record import Part, Recorder
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure

MOST_NUMBERS = 1 << 17  # of the largest signal of a chunk; longer ones are heard in pieces


class Chunk(NamedTuple):
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


class NativeFlow:
    """Runs one function of rows; see the module.

    Args:
        function: Of (flow, rows, noise): convolutions and what `Recorder` knows beside them. It is
            kept. Where there is noise, it has `rate` rows for each of the others.
        layers: That it runs, plain and in float32, on the CPU. Their weights are copied.
        channels: Of the rows that it hears.
        drive: Channels of the noise; 0 where there is none.
        rate: Rows that it gives for each.
        kernel: Runs it.

    Attributes:
        network: The layers, as the extension has them.
        most_rows: That are heard at a time.
    """

    def __init__(
        self,
        function: Callable[[Flow, Rows, Rows | None], Rows],
        layers: list[Layer],
        channels: int,
        drive: int,
        rate: int,
        kernel: Kernel,
    ) -> None:
        from wavewn import _native

        self.kernel = kernel
        self._function, self._channels, self._rate = function, channels, rate
        self._drive = drive
        self._bytes = 2 if kernel.precision == "bfloat16" else 4
        self._numbers: dict[Layer, LayerNumbers] = {}
        packed: list[Plain] = []
        for layer in layers:
            one = many = len(packed)
            kind = kind_of(layer, self._bytes == 2)
            packed.append(plain(layer, kind))
            if (rows := merged_rows(layer, kind)) > 1:
                many = len(packed)
                packed.append(merged(layer))
            self._numbers[layer] = LayerNumbers(one, many, rows)
        arrays = [(one.weights.numpy(), one.bias.numpy(), *one[2:]) for one in packed]
        self.network = _native.OnePassNetwork(
            kernel.instruction_set, self._bytes == 2, kernel.threads, arrays
        )
        measured = measure(
            lambda run, x, noise: function(run, x, replace(noise, channels=drive)), channels, rate
        )
        self._steady = measured.steady
        recorder = Recorder({name: rows for name, (rows, _) in measured.shapes.items()})
        self._recorded(recorder, self._steady, self._steady + 1, False)
        widest = max(one.channels * (one.end - one.start) for one in recorder.made)
        self.most_rows = max(MOST_NUMBERS // widest, 1)
        self._programs: Plans[Chunk, Compiled] = Plans()

    def __call__(self, run: Flow, x: Rows, noise: Rows | None = None) -> Rows:
        """Give what the function gives; numbers of rows alone go through itself."""
        if x.data is None or not isinstance(run.memory, Memory):
            return self._function(run, x, noise)
        memory, calls, batch = run.memory, run.calls, len(x.data)
        pieces = []
        for start in range(x.start, max(x.end, x.start + 1), self.most_rows):
            end = min(start + self.most_rows, x.end)
            rows = Rows(None, x.channels, start, end, x.ended and end == x.end)
            pieces.append((start - x.start, self.program(rows, calls, memory)))
        (_, oldest), (_, newest) = pieces[0], pieces[-1]
        total, channels = sum(program.rows for _, program in pieces), newest.channels
        given = torch.empty(batch, total, channels)
        drive = torch.empty(batch, 0) if noise is None else _flat(noise.whole)
        tensors = memory.buffer, _flat(x.whole), drive, given.view(batch, -1)
        arrays, made = [one.numpy() for one in tensors], 0
        for begin, program in pieces:
            drawn = begin * self._rate * self._drive
            program.run.run(*arrays, (begin * self._channels, drawn, made * channels))
            made += program.rows
        run.calls, first = newest.calls, x.start * self._rate + oldest.shift
        return Rows(given.transpose(1, 2), channels, first, first + total, x.ended)

    def program(self, x: Rows, calls: int, memory: Memory) -> Compiled:
        """Give what runs such rows, at most `most_rows`; `calls` as in `Chunk`."""
        start, rows = min(x.start, self._steady), x.end - x.start
        chunk = Chunk(start, rows, x.ended, calls, memory.buffer.shape[1])
        return self._programs.get(chunk, lambda: self._compile(chunk, memory))

    def _recorded(self, recorder: Recorder, start: int, end: int, ended: bool) -> Rows:
        """Record the function over some rows."""
        x, noise = recorder.input(self._channels, start, end, ended), None
        if self._drive:
            begin, last = start * self._rate, end * self._rate
            noise = recorder.input(self._drive, begin, last, ended, "drive")
        return self._function(recorder, x, noise)

    def _compile(self, chunk: Chunk, memory: Memory) -> Compiled:
        from wavewn import _native

        entries = memory.entries
        recorder = Recorder({name: one.rows for name, one in entries.items()}, chunk.calls)
        end = chunk.start + chunk.rows
        y = self._recorded(recorder, chunk.start, end, chunk.ended)
        writer = Writer(recorder.made, cast("Part", y.data), entries, self._numbers, self._bytes)
        steps, arena_bytes = writer.program()
        rows = y.end - y.start
        drive = chunk.rows * self._rate * self._drive
        sizes = arena_bytes, chunk.state, chunk.rows * self._channels, drive, rows * y.channels
        run = _native.OnePassProgram(self.network, steps, *sizes)
        shift = y.start - chunk.start * self._rate
        return Compiled(run, shift, rows, y.channels, recorder.calls)


def _flat(x: Tensor) -> Tensor:
    """Lay [batch, channels, rows] out as floats, [batch, rows * channels]."""
    return x.float().transpose(1, 2).reshape(len(x), -1).contiguous()
