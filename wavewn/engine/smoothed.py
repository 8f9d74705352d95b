"""The engine of a `SmoothedWaveNet`: its condition network in torch, its network in WaveNet's.

The stream is that of `OnePassEngine`: how many frames were heard, how far the condition lags, what
it remembers. What its flow gives is no audio yet but the condition of each sample, and WaveNet's
engine, whose hop is one sample here, goes on from there. Its state lies behind the flow's:

    core.NAME    an entry of WaveNet's state

The condition is computed frame by frame and row by row, so that audio depends neither on how it was
pushed nor on the other streams, to the last bit.
"""

import torch
from torch import Tensor

from wavewn.engine.call import WaveNetEngine, check_temperature
from wavewn.engine.core_state import with_core
from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_rows import Part
from wavewn.models.smoothed_wavenet import SmoothedWaveNet
from wavewn.nn.flow import Flow, Rows
from wavewn.state import StreamState


class SmoothedEngine(OnePassEngine):
    """Runs streams of one such model; see `wavewn.engine.call.Engine`.

    Args:
        model: Plain. It is copied.
        core: Runs its `network`.
        threads: That torch may use on the CPU during a call.
    """

    gives_audio = False

    def __init__(self, model: SmoothedWaveNet, core: WaveNetEngine, threads: int = 1) -> None:
        super().__init__(model, "float32", core.device, threads)
        self.name, self.precision, self._core = core.name, core.precision, core
        self.speakers = core.speakers
        self._begin, self.layout = self.layout.size, with_core(self.layout, core.layout)

    def _piece(
        self,
        part: Part,
        mel: Tensor,
        speaker: Tensor | None,
        heard: int,
        last: bool,
        temperature: float,
    ) -> Tensor:
        """See `OnePassEngine`."""
        rows = []
        for row in range(len(mel)):
            own = self._memory(part.buffer[row : row + 1])
            rows.append(self._condition(own, mel[row : row + 1], heard, last))
        condition = torch.cat(rows)
        if not bool(condition.isfinite().all()):
            return condition.sum(dim=1)  # as audio; the caller names the row and the sample
        core = StreamState(
            self._core.layout,
            part.buffer[:, self._begin :].contiguous(),
            torch.full_like(part.seed, self._given(heard)),
            part.seed,
            part.stream,
        )
        audio = self._core.generate(core, condition, speaker=speaker, temperature=temperature)
        part.buffer[:, self._begin :] = core.buffer
        return audio

    def _condition(self, memory: Memory, mel: Tensor, heard: int, last: bool) -> Tensor:
        """Give one row's condition of the samples that its frames determine, frame by frame."""
        given = []
        for frame in mel.split(1, dim=2):  # one without frames where the utterance ends
            end = heard + frame.shape[2]
            rows = Rows(self._laid(frame), self.n_mels, heard, end, last)
            given.append(self._model.flow(Flow(memory), rows, None).whole.float())
            heard = end
        return torch.cat(given, dim=2)

    def _check_temperature(self, temperature: float) -> None:
        check_temperature(temperature)
