"""From a recorded flow to the steps that the native kernel runs (csrc/onepass.hpp).

Every signal gets the buffers that its readers need: of floats where numbers are added or mapped, of
operands where a convolution reads them (onepass_buffers.py).

A convolution adds, and gives what the next one reads, where it writes (onepass_fusion.py).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from wavewn.engine.onepass_buffers import (
    Buffer,
    Span,
    Spot,
    Window,
    allocate,
    demands,
    heard_rows,
    strides,
)
from wavewn.engine.onepass_fusion import Fusion
from wavewn.engine.onepass_layers import Layer
from wavewn.engine.onepass_record import Part, Signal
from wavewn.nn.padded import UpsamplingConv1d
from wavewn.state import Entry

LOAD, SAVE, PAD, MAP, CONV, ADD, GATE, REPEAT, BLEND = range(9)  # StepKind in csrc/onepass.hpp
MAPS = {"copy": 0, "leaky": 1, "divide": 2, "tanh": 3, "scale": 4}  # Map
MODES = {"zeros": 0, "reflect": 1, "replicate": 2}  # PadMode
FLOATS, OPERANDS, OUTSIDE, DRIVE = range(4)  # Place


class Program(NamedTuple):
    """Steps, [count, 8] int64, and the bytes of the arena that they work in."""

    steps: np.ndarray
    arena_bytes: int


class LayerNumbers(NamedTuple):
    """Where the kernel has a layer: one that makes a row, and one that makes `rows` at once."""

    one: int
    many: int
    rows: int


def bits(first: float, second: float = 0.0) -> int:
    """Give two float32 as a number of a step holds them."""
    found: int = struct.unpack("<q", struct.pack("<ff", first, second))[0]
    return found


class Writer:
    """Writes the steps of one record.

    Args:
        made: Signals in order.
        output: What goes outside.
        entries: Of the state.
        numbers: Of the layers.
        operand_bytes: Of a number that a convolution reads.
    """

    def __init__(
        self,
        made: Sequence[Signal],
        output: Part,
        entries: Mapping[str, Entry],
        numbers: Mapping[Layer, LayerNumbers],
        operand_bytes: int,
    ) -> None:
        self._output, self._entries, self._numbers = output, entries, numbers
        self._operand_bytes = operand_bytes
        self._pairs = operand_bytes == 2
        self._demands = demands(made, self._pairs)
        self._fusion = Fusion(made, self._demands, self._pairs)
        self._floats: dict[Signal, Buffer] = {}
        self._windows: dict[tuple[Signal, Window], Buffer] = {}
        self._steps: list[tuple[int | Spot, ...]] = []
        for signal in made:
            if signal not in self._fusion.hidden:
                self._make(signal)

    def program(self) -> Program:
        """Give every buffer its place, and the steps their numbers."""
        spots = (value for step in self._steps for value in step if isinstance(value, Spot))
        arena_bytes = allocate({spot.buffer for spot in spots})
        table = np.zeros((len(self._steps), 8), dtype=np.int64)
        for row, step in zip(table, self._steps, strict=True):
            for i, value in enumerate(step):
                row[i] = value.address if isinstance(value, Spot) else value
        return Program(table, arena_bytes)

    def _make(self, signal: Signal) -> None:
        """Write the steps that make a signal, and those that keep it."""
        demand = self._demands[signal]
        rows = signal.end - signal.start
        if signal is self._output.signal:
            assert not signal.reads and not signal.saves and not demand.readers, "heard again"
            if rows and signal.kind not in MAPS:
                buffer = self._room(signal)
                self._fill(signal, Spot(buffer, signal.start), None)
            if rows:
                self._map(signal, OUTSIDE, 0)
            return
        heard = self._fusion.rectified(signal)
        if heard is not None and len(demand.readers) == 1 and not signal.saves:
            self._fill(signal, -1, heard)
        elif self._wants_floats(signal):
            buffer = self._room(signal)
            if rows:
                self._fill(signal, Spot(buffer, signal.start), heard)
            self._load(signal, buffer)
        for window in demand.windows:
            done = (signal, window) in self._windows  # by a convolution
            buffer = self._window(signal, window)
            if rows and not done:
                place = FLOATS if window.exact else OPERANDS
                self._map(signal, place, Spot(buffer, signal.start))
            begun = self._load(signal, buffer)
            left, right = begun - buffer.low, buffer.high - signal.end
            if left or right:
                sizes = signal.channels, left, signal.end - begun, right
                kind = int(not window.exact)
                self._step(PAD, kind, Spot(buffer, buffer.low), *sizes, MODES[window.mode])
        for name, start, end in signal.saves:
            held = self._floats.get(signal) or next(
                buffer for (made, _), buffer in self._windows.items() if made is signal
            )
            self._keep(SAVE, held, name, start, end, end)

    def _room(self, signal: Signal) -> Buffer:
        """Make the buffer in which a signal is made as floats."""
        buffer = self._buffer(signal, self._demands[signal].floats, 4)
        if isinstance(signal.layer, UpsamplingConv1d) and signal.end > signal.start:
            first, last = strides(signal)  # whole stretches are written
            rate, crop = signal.layer.rate, signal.layer.crop
            buffer.low = min(buffer.low, first * rate - crop)
            buffer.high = max(buffer.high, last * rate - crop)
        self._floats[signal] = buffer
        return buffer

    def _window(self, signal: Signal, window: Window) -> Buffer:
        """Give the buffer in which layers read a signal so."""
        if (signal, window) not in self._windows:
            width = 4 if window.exact else self._operand_bytes
            span = self._demands[signal].windows[window]
            buffer = self._buffer(signal, span, width, operands=not window.exact)
            self._windows[signal, window] = buffer
        return self._windows[signal, window]

    def _wants_floats(self, signal: Signal) -> bool:
        """Whether a signal needs a buffer of floats."""
        demand = self._demands[signal]
        if signal.kind in ("conv", "up", "add") and signal.end > signal.start:
            return True  # they write nothing else
        return demand.floats is not None or bool(signal.saves and not demand.windows)

    def _fill(self, signal: Signal, to: Spot | int, heard: Signal | None) -> None:
        """Make the rows of a signal as floats, and of its rectified copy as operands."""
        fused = self._fusion.summed(signal)
        if fused is not None:
            (other,) = (part for part in signal.inputs if part is not fused)
            self._convolve(fused.signal, to, self._spot(other), heard)
        elif signal.kind == "add":
            a, b = signal.inputs
            count = (signal.end - signal.start) * signal.channels
            self._step(ADD, self._spot(a), self._spot(b), to, count)
        elif signal.kind in ("conv", "up"):
            self._convolve(signal, to, -1, heard)
        else:
            self._map(signal, FLOATS, to)

    def _convolve(
        self, signal: Signal, to: Spot | int, added: Spot | int, heard: Signal | None
    ) -> None:
        layer = signal.layer
        assert layer is not None, "no layer"
        low, _, reading = heard_rows(signal, self._pairs)
        rows = signal.end - signal.start
        if isinstance(layer, UpsamplingConv1d):  # a row of the product is `rate` rows
            assert isinstance(to, Spot), "no buffer for it"
            first, last = strides(signal)
            to, rows = Spot(to.buffer, first * layer.rate - layer.crop), last - first
        copy: Spot | int = -1
        if heard is not None:
            (next_reading,) = self._demands[heard].windows
            copy = Spot(self._window(heard, next_reading), heard.start)
        window = Spot(self._windows[signal.inputs[0].signal, reading], low)
        slope = bits(0.0 if heard is None else heard.number)
        one, many, together = self._numbers[layer]
        if rows < together or together == 1:
            self._step(CONV, one, window, to, added, rows, copy, slope)
            return
        begins = {0: rows // together}  # the last ones once more, where they do not fill a vector
        if rows % together:
            begins[rows - together] = 1
        for begin, count in begins.items():
            spots = [
                spot.below(begin) if isinstance(spot, Spot) else spot
                for spot in (window, to, added, copy)
            ]
            self._step(CONV, many, *spots[:3], count, spots[3], slope)

    def _map(self, signal: Signal, place: int, to: Spot | int) -> None:
        """Write the rows of a signal, made number by number, to a place."""
        source, kind = (signal.inputs[0], signal.kind) if signal.inputs else (None, "input")
        rows = signal.end - signal.start
        if kind == "gate" and source is not None:
            self._step(GATE, self._spot(source), place, to, rows, signal.channels)
            return
        if kind == "repeat" and source is not None:
            given = source.end - source.start
            factor = int(signal.number)
            self._step(REPEAT, self._spot(source), place, to, given, signal.channels, factor)
            return
        count = rows * signal.channels
        if mean := self._fusion.means.get(signal):
            spots: list[Spot | int] = [self._spot(part) for part in mean.branches]
            first, second, third = (*spots, -1)[:3]
            both = bits(mean.divisor, signal.number)
            self._step(BLEND, first, second, third, to, count, both)
            return
        if kind in MAPS and source is not None:
            begin: Spot | int = self._spot(source)
            how, number, origin = MAPS[kind], signal.number, FLOATS
        else:
            how, number = MAPS["copy"], 0.0
            origin = {"input": OUTSIDE, "drive": DRIVE}.get(signal.kind, FLOATS)
            begin = Spot(self._floats[signal], signal.start) if origin == FLOATS else 0
        self._step(MAP, origin, begin, place, to, count, how, bits(number))

    def _load(self, signal: Signal, buffer: Buffer) -> int:
        """Fetch what is remembered of a signal; give the number of its first row there."""
        have = begun = max(buffer.low, 0)
        reads = sorted(signal.reads, key=lambda read: read[1])
        if reads:
            have = begun = max(buffer.low, reads[0][1])
        elif begun < signal.start:  # rows that only meet weights of zero
            have = begun = signal.start
        for name, start, end in reads:
            end = min(end, signal.start)
            if start <= have < end:
                self._keep(LOAD, buffer, name, have, end, end)
                have = end
        assert have >= signal.start or not reads, "rows are missing between two entries"
        return begun

    def _keep(
        self, kind: int, buffer: Buffer, name: str, start: int, end: int, newest: int
    ) -> None:
        """Move rows between a buffer and an entry, whose last row has the number newest - 1."""
        entry = self._entries[name]
        assert entry.channels == buffer.channels, "rows of another width"
        place = entry.offset + (entry.rows - (newest - start)) * entry.channels
        count = (end - start) * entry.channels
        self._step(kind, int(buffer.operands), Spot(buffer, start), place, count)

    def _buffer(
        self, signal: Signal, span: Span | None, width: int, operands: bool = False
    ) -> Buffer:
        """Make a buffer for the rows that are read, remembered and made."""
        low, high = signal.start, signal.end
        if span is not None:
            low, high = min(low, span.low), max(high, span.high)
        low = min([low, *(start for _, start, _ in signal.reads)])
        return Buffer(signal.channels, low, high, operands, width)

    def _spot(self, part: Part) -> Spot:
        return Spot(self._floats[part.signal], part.start)

    def _step(self, *numbers: int | Spot) -> None:
        for value in numbers:
            if isinstance(value, Spot):
                buffer, now = value.buffer, len(self._steps)
                buffer.first = now if buffer.first < 0 else buffer.first
                buffer.last = now
        self._steps.append(numbers)
