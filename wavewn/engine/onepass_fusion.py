"""Which signals of a recorded flow are made along with others, and are no steps of their own.

A sum is made by a convolution that nobody else hears; the rectified copy of what a convolution
gives is written by it, too. The mean of branches, rectified, is one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wavewn.engine.onepass_buffers import Demand, heard_rows
from wavewn.engine.onepass_record import Part, Signal


class Mean(NamedTuple):
    """Two or three branches, summed in this order, what divides them, and what lies between."""

    branches: tuple[Part, ...]
    divisor: float
    between: tuple[Signal, ...]


class Fusion:
    """Looks for them.

    Args:
        made: Signals in order.
        demands: What is read of them.
        pairs: Whether operands are bfloat16.

    Attributes:
        means: By the rectified signal.
        hidden: Signals that are never made by themselves.
    """

    def __init__(
        self, made: Sequence[Signal], demands: Mapping[Signal, Demand], pairs: bool
    ) -> None:
        self._demands, self._pairs = demands, pairs
        self._sums = {signal: part for signal in made if (part := self._found(signal)) is not None}
        self.means = {signal: mean for signal in made if (mean := self._mean(signal)) is not None}
        self.hidden = {part.signal for part in self._sums.values()}
        self.hidden.update(signal for mean in self.means.values() for signal in mean.between)

    def summed(self, signal: Signal) -> Part | None:
        """Give the part of a sum that is a convolution in whose output the sum is made."""
        return self._sums.get(signal)

    def rectified(self, signal: Signal) -> Signal | None:
        """Give the rectified copy of a signal that its convolution can write along with it."""
        conv = signal if signal.kind == "conv" else getattr(self.summed(signal), "signal", None)
        by_conv = conv is not None and not self._is_exact(conv)
        for reader in self._demands[signal].readers if by_conv else ():
            part = reader.inputs[0]
            whole = (part.start, part.end) == (signal.start, signal.end) and part.end > part.start
            if reader.kind == "leaky" and whole and self._is_operand(reader):
                return reader
        return None

    def _found(self, signal: Signal) -> Part | None:
        for part in signal.inputs if signal.kind == "add" and signal.end > signal.start else ():
            if part.signal.kind == "conv" and self._alone(part) and not self._is_exact(part.signal):
                return part
        return None

    def _mean(self, signal: Signal) -> Mean | None:
        if signal.kind != "leaky" or not self._is_operand(signal) or signal.end == signal.start:
            return None
        quotient = signal.inputs[0]
        total = self._opened(quotient, "divide")
        branches = self._opened(total[0], "add") if total else ()
        if not branches:
            return None
        between = [quotient.signal, total[0].signal]
        if earlier := self._opened(branches[0], "add"):
            between.append(branches[0].signal)
            branches = (*earlier, *branches[1:])
        return Mean(branches, quotient.signal.number, tuple(between))

    def _opened(self, part: Part, kind: str) -> tuple[Part, ...]:
        """Give what a part is made of, if it is of this kind and of use here alone."""
        signal = part.signal
        plain = signal.kind == kind and signal not in self._sums
        return signal.inputs if plain and self._alone(part) else ()

    def _alone(self, part: Part) -> bool:
        """Whether a part is all of its signal, and nobody else hears it, now or later."""
        signal = part.signal
        kept = signal.reads or signal.saves or len(self._demands[signal].readers) != 1
        return not kept and (part.start, part.end) == (signal.start, signal.end)

    def _is_operand(self, signal: Signal) -> bool:
        """Whether a signal is read by convolutions alone, all of which read it alike."""
        demand = self._demands[signal]
        alike = not demand.floats and len(demand.windows) == 1
        return alike and not next(iter(demand.windows)).exact

    def _is_exact(self, conv: Signal) -> bool:
        """Whether a layer reads floats, and can do nothing but write its own."""
        return heard_rows(conv, self._pairs)[2].exact
