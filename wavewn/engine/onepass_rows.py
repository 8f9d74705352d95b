"""How far the rows of a one-pass state are, in the numbers of the host."""

from dataclasses import dataclass

import torch

from wavewn.state import StreamState


@dataclass(frozen=True)
class Progress:
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


def read_progress(state: StreamState, hop_length: int) -> list[Progress]:
    """Read how far each row is; the device is waited for once."""
    entries = (state.view(name)[:, 0, 0].double() for name in ("ahead", "ended"))
    told = torch.stack([state.clock.double(), *entries]).T.tolist()
    return [Progress(int(clock), ahead, ended, hop_length) for clock, ahead, ended in told]
