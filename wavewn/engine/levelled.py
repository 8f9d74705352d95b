"""The engine of a levelled WaveNet: another engine makes samples, here they are levelled.

The stream is that of `OnePassEngine`, and its flow is `models.levelled.Levels`: audio is read
against its mel (nn/levelling.py). The audio is of the core, which is any engine of a WaveNet. Its
state lies behind the flow's:

    core.NAME    an entry of the core's state

The core runs all rows of a call at once, however far each is. Then the rows whose work is alike are
levelled together, each frame by itself (natively; in torch with `Levelling.apart`), so that audio
depends neither on how it was pushed nor on the other streams, to the last bit.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from wavewn.engine.call import Engine, check_temperature
from wavewn.engine.core_state import with_core
from wavewn.engine.onepass import PIECE, OnePassEngine
from wavewn.engine.spectrum import NativeLevelling
from wavewn.engine.torch_setting import torch_setting
from wavewn.models.generators import Generator
from wavewn.models.levelled import Levels
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.levelling import Levelling
from wavewn.state import StreamState

FRAMES_A_CALL = 16  # where somebody wants to hear of progress


class LevelledEngine(OnePassEngine):
    """Runs streams of one WaveNet; see `wavewn.engine.call.Engine`.

    Args:
        levels: Of its mels. It is copied.
        core: Makes the samples.
        threads: That torch may use on the CPU during a call.
    """

    def __init__(self, levels: Levels, core: Engine, threads: int = 1) -> None:
        fresh, frames = StreamState.zeros(core.layout, 1, device=core.device), 1
        while not (given := core.due_samples(fresh, frames)):
            frames += 1
        self._core, self._core_first = core, frames
        self._core_lag = frames * core.hop_length - given
        flow = cast("Generator", levels)
        super().__init__(flow, "float32", core.device, threads, graphs=False)
        levelling: Levelling | NativeLevelling = cast("Levels", self._model).levelling
        if isinstance(levelling, Levelling):
            levelling.apart()
        self.name, self.precision, self.speakers = core.name, core.precision, core.speakers
        self._begin, self.layout = self.layout.size, with_core(self.layout, core.layout)

    def _serve(
        self,
        state: StreamState,
        heard: list[int],
        mel: Tensor,
        speaker: Tensor | None,
        last: bool,
        temperature: float,
        progress: Callable[[int], None] | None,
        out: Tensor | None,
    ) -> Tensor:
        """Let the core speak piece by piece, level what it says, and write back."""
        hop, frames = self.hop_length, mel.shape[2]
        ends = [n * hop if last else self._given(n + frames) for n in heard]
        due = [end - self._given(n) for n, end in zip(heard, ends, strict=True)]
        samples = max(due)
        audio = self._silence((state.batch, samples), out)
        most, buffer, core = (
            due.index(samples),
            state.buffer.clone(),
            self._core_state(state, heard),
        )
        size = max(PIECE // (hop * state.batch), 1)
        size = size if progress is None else min(size, FRAMES_A_CALL)
        with torch.inference_mode(), torch_setting(self.device, self.threads):
            for piece in mel.split(size, dim=2) if frames or last else ():
                speak = self._core.finish if last else self._core.generate
                own = (core,) if last else (core, piece)
                said = speak(*own, speaker=speaker, temperature=temperature)
                self._level(buffer, heard, piece, said, last, audio, ends)
                begun = self._given(heard[most])
                heard = [n + piece.shape[2] for n in heard]
                clock = ends[most] if last else self._given(heard[most])
                if progress is not None and (done := clock // hop - begun // hop):
                    progress(done)
            buffer[:, self._begin :] = core.buffer
            state.buffer.copy_(buffer)
            state.clock.copy_(torch.tensor(ends))
            ahead = [n * hop - end for n, end in zip(heard, ends, strict=True)]
            state.view("ahead")[:, 0, 0] = torch.tensor(ahead, device=self.device)
            state.view("ended").fill_(float(last))
        return audio

    def _level(
        self,
        buffer: Tensor,
        heard: list[int],
        mel: Tensor,
        said: Tensor,
        last: bool,
        audio: Tensor,
        ends: list[int],
    ) -> None:
        """Level what the core said of some frames into `audio`, whose rows go up to `ends`.

        What comes out is finite if that is: a filter has its bounds.
        """
        alike = heard if last else [min(n, self._steady) for n in heard]
        for count in sorted(set(alike)):
            if last and not count:
                continue  # has heard nothing, and has nothing to say
            names = [row for row, own in enumerate(alike) if own == count]
            rows = names if len(names) < len(alike) else slice(None)
            part, begin, end = buffer[rows], count, count + mel.shape[2]
            drive = self._drive(begin, end, last)
            first = said.shape[1] - (drive.end - drive.start)
            drive = Rows(said[rows, None, first:], 1, drive.start, drive.end, last)
            stated = Rows(mel[rows], self.n_mels, begin, end, last)
            sound = self._model.flow(Flow(self._memory(part)), stated, drive)
            assert sound.start == self._given(count), "the flow lost count"
            buffer[rows] = part
            for row, own in zip(names, sound.whole[:, 0].clamp(-1, 1), strict=True):
                place = audio.shape[1] - ends[row] + self._given(heard[row])
                audio[row, place : place + len(own)] = own

    def _core_state(self, state: StreamState, heard: list[int]) -> StreamState:
        """Copy what the core remembers of rows that have heard so many frames."""
        clock = torch.tensor([self._spoken(n) for n in heard], device=self.device)
        buffer = state.buffer[:, self._begin :].contiguous()
        return StreamState(self._core.layout, buffer, clock, state.seed, state.stream)

    def _spoken(self, frames: int) -> int:
        """Samples that the core gives of so many frames from the utterance's beginning on."""
        return frames * self.hop_length - self._core_lag if frames >= self._core_first else 0

    def _drive(self, begin: int, end: int, last: bool) -> Rows:
        """Number the samples that the core gives of some frames."""
        until = end * self.hop_length if last else self._spoken(end)
        return Rows(None, 1, self._spoken(begin), until, last)

    def _count(self, flow: Flow, mel: Rows, noise: Rows) -> Rows:
        """Run the flow on numbers of rows."""
        return self._model.flow(flow, mel, self._drive(mel.start, mel.end, mel.ended))

    def _check_temperature(self, temperature: float) -> None:
        check_temperature(temperature)
