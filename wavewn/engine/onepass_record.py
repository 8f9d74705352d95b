"""A generator's flow, written down: which rows each layer reads again, makes and leaves behind.

A `Recorder` runs a flow as `Flow` does, but no audio goes through it: a `Part` stands for rows of a
`Signal`, and each operation on it is noted. The numbers of the rows are those of the real run, so
the record is of one size of chunk at one place of the utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.nn.flow import Flow, Rows
from wavewn.nn.layout import repeat
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d
from wavewn.nn.wn import gated_activation


@dataclass(eq=False)
class Signal:
    """Rows that one operation makes.

    Attributes:
        kind: "input", "drive" (noise), "conv", "up", "add", "gate", "repeat", or, of what treats
            each number by itself, "leaky", "divide", "scale" or "tanh".
        channels: Of each row.
        start: Number of the first row.
        end: Number of the row after the last.
        inputs: What it is made of.
        layer: That makes it, where it is "conv" or "up".
        number: The slope, the divisor, the factor.
        reads: Older rows that are taken out of the state: (entry, start, end).
        saves: Rows that are put into it.
        maps: Parts that were made of it number by number, by how; nothing is computed twice.
    """

    kind: str
    channels: int
    start: int
    end: int
    inputs: tuple[Part, ...] = ()
    layer: PaddedConv1d | UpsamplingConv1d | None = None
    number: float = 0.0
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    saves: list[tuple[str, int, int]] = field(default_factory=list)
    maps: dict[tuple[str, float, int, int], Part] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a signal, older ones too; stands in for the tensor of a `Rows`."""

    signal: Signal
    start: int
    end: int
    made: list[Signal]

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Part:
        """Note what torch was asked for."""
        part, options = args[0], kwargs or {}
        if function is F.leaky_relu:
            slope = args[1] if len(args) > 1 else options["negative_slope"]
            return cast("Part", part)._mapped("leaky", slope)
        if function is F.relu:
            return cast("Part", part)._mapped("leaky", 0.0)
        if function is gated_activation:
            return cast("Part", part)._mapped("gate", 0.0)
        if function is repeat:
            return cast("Part", part)._repeated(args[1])
        if function is torch.tanh:
            return cast("Part", part)._mapped("tanh", 0.0)
        raise NotImplementedError(f"{function} cannot be recorded")

    def __truediv__(self, divisor: float) -> Part:
        return self._mapped("divide", divisor)

    def __mul__(self, factor: float) -> Part:
        return self._mapped("scale", factor)

    def __add__(self, other: Part) -> Part:
        return self._new(Signal("add", self.signal.channels, self.start, self.end, (self, other)))

    def __getitem__(self, place: tuple[slice, slice, slice]) -> Part:
        """Give the first rows; see `Flow.align`."""
        return Part(self.signal, self.start, self.start + place[2].stop, self.made)

    def _mapped(self, kind: str, number: float) -> Part:
        key = (kind, number, self.start, self.end)
        known = self.signal.maps
        if key not in known:
            channels = self.signal.channels // (2 if kind == "gate" else 1)
            known[key] = self._new(
                Signal(kind, channels, self.start, self.end, (self,), number=number)
            )
        return known[key]

    def _repeated(self, factor: int) -> Part:
        start, end = self.start * factor, self.end * factor
        channels = self.signal.channels
        return self._new(Signal("repeat", channels, start, end, (self,), number=factor))

    def _new(self, signal: Signal) -> Part:
        self.made.append(signal)
        return Part(signal, signal.start, signal.end, self.made)


class Recorder(Flow):
    """Writes down the operations of a flow of `PaddedConv1d` and `UpsamplingConv1d`.

    Args:
        held: Rows that each entry of the state can hold.
        calls: Entries that the flow around it has named before.

    Attributes:
        made: Signals in the order in which they come up.
    """

    def __init__(self, held: Mapping[str, int], calls: int = 0) -> None:
        super().__init__(calls=calls)
        self.made: list[Signal] = []
        self._held = held

    def input(self, channels: int, start: int, end: int, ended: bool, kind: str = "input") -> Rows:
        """Give rows that come from outside; `kind` is "drive" for noise."""
        signal = Signal(kind, channels, start, end)
        self.made.append(signal)
        data = cast("Tensor", Part(signal, start, end, self.made))
        return Rows(data, channels, start, end, ended)

    def _join(self, x: Rows, kept: int, capacity: int) -> Tensor | None:
        part = cast("Part", x.data)
        name = self._entry(capacity, x.channels, kept)
        start, held = x.start - kept, self._held.get(name, 0)
        if kept:
            part.signal.reads.append((name, start, x.start))
        newest = min(held, x.end - start)
        if newest:
            part.signal.saves.append((name, x.end - newest, x.end))
        return cast("Tensor", Part(part.signal, start, x.end, self.made))

    def _filtered(
        self, layer: PaddedConv1d, data: Tensor, pads: tuple[int, int], first: int, last: int
    ) -> Tensor:
        return self._layer("conv", layer, data, first, last)

    def _upsampled(
        self, layer: UpsamplingConv1d, data: Tensor, begin: int, first: int, last: int
    ) -> Tensor:
        return self._layer("up", layer, data, first, last)

    def _layer(
        self,
        kind: str,
        layer: PaddedConv1d | UpsamplingConv1d,
        data: Tensor,
        first: int,
        last: int,
    ) -> Tensor:
        part = cast("Part", data)
        signal = Signal(kind, layer.out_channels, first, last, (part,), layer)
        self.made.append(signal)
        return cast("Tensor", Part(signal, first, last, self.made))
