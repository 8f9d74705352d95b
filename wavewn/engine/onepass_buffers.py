"""Buffers of the native kernel: which rows of a signal they hold, and where they lie.

A buffer holds its rows by number: padding, what the state remembers, the new rows, padding. So
whoever reads older rows too finds them in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from wavewn.engine.onepass_layers import PRODUCT, Layer, kind_of, stretches
from wavewn.engine.onepass_record import Signal
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

ALIGNMENT = 64  # bytes
SLACK = 64  # bytes behind each buffer, which whole vectors may touch


@dataclass(eq=False)
class Buffer:
    """Rows `low` to `high` of a signal, while steps `first` to `last` use them."""

    channels: int
    low: int
    high: int
    operands: bool
    width: int  # bytes of a number
    first: int = -1
    last: int = -1
    offset: int = -1

    @property
    def size(self) -> int:
        """Bytes in the arena."""
        numbers = (self.high - self.low) * self.channels
        return -(-(numbers * self.width + SLACK) // ALIGNMENT) * ALIGNMENT


class Spot(NamedTuple):
    """A row of a buffer: where a step begins to read or to write."""

    buffer: Buffer
    row: int

    @property
    def address(self) -> int:
        """Bytes from the beginning of the arena."""
        buffer = self.buffer
        assert buffer.low <= self.row <= buffer.high, "a row outside its buffer"
        return buffer.offset + (self.row - buffer.low) * buffer.channels * buffer.width

    def below(self, rows: int) -> Spot:
        """Go so many rows on."""
        return Spot(self.buffer, self.row + rows)


class Window(NamedTuple):
    """How a layer reads rows.

    Attributes:
        mode: What lies beyond the utterance.
        exact: Whether it reads floats, as precise layers do; else operands.
    """

    mode: str
    exact: bool


@dataclass
class Span:
    """Rows that are read of a signal; empty at first."""

    low: int
    high: int

    def take(self, low: int, high: int) -> None:
        """Widen it."""
        self.low, self.high = min(self.low, low), max(self.high, high)


@dataclass(eq=False)
class Demand:
    """What the readers of a signal need."""

    floats: Span | None = None
    windows: dict[Window, Span] = field(default_factory=dict)
    readers: list[Signal] = field(default_factory=list)


def heard_rows(signal: Signal, pairs: bool) -> tuple[int, int, Window]:
    """Rows of its input that a layer's output sees, padding included, and how it reads them.

    Args:
        signal: The output.
        pairs: Whether operands are bfloat16.
    """
    layer = signal.layer
    if isinstance(layer, UpsamplingConv1d):
        first, last = strides(signal)
        return first - stretches(layer) + 1, last, Window("zeros", _exact(layer, pairs))
    assert isinstance(layer, PaddedConv1d), "another kind of layer"
    window = Window(layer.padding_mode_name, _exact(layer, pairs))
    return signal.start - layer.left, signal.end + layer.right, window


def _exact(layer: Layer, pairs: bool) -> bool:
    return kind_of(layer, pairs) != PRODUCT


def strides(signal: Signal) -> tuple[int, int]:
    """Numbers of the inputs, from and to, whose own stretches of outputs are made."""
    layer = signal.layer
    assert isinstance(layer, UpsamplingConv1d), "another kind of layer"
    return (signal.start + layer.crop) // layer.rate, -(-(signal.end + layer.crop) // layer.rate)


def demands(made: Sequence[Signal], pairs: bool) -> dict[Signal, Demand]:
    """Note what is read of each signal; `pairs` as in `heard_rows`."""
    found = {signal: Demand() for signal in made}
    for signal in made:
        for part in signal.inputs:
            demand = found[part.signal]
            demand.readers.append(signal)
            if signal.start == signal.end:
                continue
            if signal.layer is not None:
                low, high, window = heard_rows(signal, pairs)
                demand.windows.setdefault(window, Span(low, high)).take(low, high)
            else:
                demand.floats = demand.floats or Span(part.start, part.end)
                demand.floats.take(part.start, part.end)
    return found


def allocate(buffers: Iterable[Buffer]) -> int:
    """Place buffers so that none overlaps another that is in use at the same time.

    Returns:
        Bytes that they take.
    """
    placed: list[Buffer] = []
    total = ALIGNMENT
    for buffer in sorted(buffers, key=lambda one: one.first):
        placed = [one for one in placed if one.last >= buffer.first]
        offset = 0
        for other in sorted(placed, key=lambda one: one.offset):
            if offset + buffer.size <= other.offset:
                break
            offset = max(offset, other.offset + other.size)
        buffer.offset = offset
        placed.append(buffer)
        total = max(total, offset + buffer.size)
    return total
