"""Rows of a one-pass state: how far they are, in the numbers of the host, and copies of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from wavewn.state import StreamState


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


def read_progress(state: StreamState, hop_length: int) -> list[Progress]:
    """Read how far each row is; a device is waited for once."""
    places = (state.layout.entry(name).offset for name in ("ahead", "ended"))
    columns = [state.clock, *(state.buffer[:, place] for place in places)]
    if state.device.type == "cpu":
        told = [column.tolist() for column in columns]
    else:
        told = torch.stack([column.double() for column in columns]).tolist()
    rows = zip(*told, strict=True)
    return [Progress(int(clock), ahead, ended, hop_length) for clock, ahead, ended in rows]
