"""Rows of a one-pass state: how far they are, in the numbers of the host, and copies of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wavewn.state import StateLayout, StreamState


class Progress(NamedTuple):
    """How far a row is, as its state says.

    Attributes:
        clock: Samples given.
        ahead: Samples beside them that the frames heard will give.
        ended: 1 after `finish`.
        hop_length: Samples a frame.
    """

    clock: int
    ahead: float
    ended: float
    hop_length: int

    @property
    def possible(self) -> bool:
        """Whether clock and frames can belong together."""
        if self.clock < 0 or not self.ahead.is_integer():
            return False
        return (self.clock + self.ahead) % self.hop_length == 0

    @property
    def heard(self) -> int:
        """Frames heard, where that is possible."""
        return int(self.clock + self.ahead) // self.hop_length


class Part(NamedTuple):
    """Rows of a state while a call advances them.

    Attributes:
        buffer: A copy of theirs.
        seed: As the state has it; it is not written to.
        stream: Likewise.
    """

    buffer: Tensor
    seed: Tensor
    stream: Tensor

    @classmethod
    def of(cls, state: StreamState, rows: Tensor | None) -> Part:
        """Copy rows of a state; None is all of them."""
        if rows is None:
            return cls(state.buffer.clone(), state.seed, state.stream)
        return cls(state.buffer[rows], state.seed[rows], state.stream[rows])

    def tell(self, layout: StateLayout, ahead: int, ended: bool) -> None:
        """Note how far the rows are."""
        self.buffer[:, layout.entry("ahead").offset] = ahead
        if ended:
            self.buffer[:, layout.entry("ended").offset] = 1

    def write(self, state: StreamState, rows: Tensor | None, clock: int) -> None:
        """Put them back, at a new clock."""
        if rows is None:
            state.buffer.copy_(self.buffer)
            state.clock.fill_(clock)
        else:
            state.buffer[rows], state.clock[rows] = self.buffer, clock


def read_progress(state: StreamState, hop_length: int) -> list[Progress]:
    """Read how far each row is; a device is waited for once."""
    places = [state.layout.entry(name).offset for name in ("ahead", "ended")]
    if state.device.type == "cpu":
        numbers = state.buffer.numpy()
        told = [state.clock.tolist(), *(numbers[:, place].tolist() for place in places)]
    else:
        columns = [state.clock, *(state.buffer[:, place] for place in places)]
        told = torch.stack([column.double() for column in columns]).tolist()
    rows = zip(*told, strict=True)
    return [Progress(int(clock), ahead, ended, hop_length) for clock, ahead, ended in rows]
