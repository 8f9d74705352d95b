"""An engine on another device, to be tested like one on the CPU."""

import torch

from wavewn.engine.call import check_call, check_levels, check_out, check_state, check_temperature
from wavewn.state import StreamState


class Carried:
    """Takes states, mels and audio on the CPU, and carries them to the engine's device and back.

    What does not belong on the CPU is refused here, in the order of all engines; everything else
    is the engine's own.
    """

    device = torch.device("cpu")

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def due_frames(self, state, frames):
        return self.engine.due_frames(state.to(self.engine.device), frames)

    def due_samples(self, state, frames):
        return self.engine.due_samples(state.to(self.engine.device), frames)

    def rest_samples(self, state):
        return self.engine.rest_samples(state.to(self.engine.device))

    def generate(self, state, mel, *, speaker=None, temperature=1.0, progress=None, out=None):
        check_temperature(temperature)
        with state.using():
            check_state(self, state)
            check_call(self, state, mel, speaker)
            there = self._there(state)
            if out is not None:
                check_out(out, (state.batch, self.engine.due_samples(there, mel.shape[2])), CPU)
            audio = self.engine.generate(
                there,
                self._there(mel),
                speaker=self._there(speaker),
                temperature=temperature,
                progress=progress,
            )
            self._back(there, state)
        return audio.cpu() if out is None else out.copy_(audio)

    def finish(self, state, *, speaker=None, temperature=1.0, progress=None, out=None):
        check_temperature(temperature)
        with state.using():
            check_state(self, state)
            there = self._there(state)
            if out is not None:
                check_out(out, (state.batch, self.engine.rest_samples(there)), CPU)
            settings = {"speaker": self._there(speaker), "temperature": temperature}
            audio = self.engine.finish(there, **settings, progress=progress)
            self._back(there, state)
        return audio.cpu() if out is None else out.copy_(audio)

    def parameters(self, state, mel, levels, *, speaker=None):
        with state.using():
            check_state(self, state)
            check_call(self, state, mel, speaker)
            there = self._there(state)
            due = self.engine.due_samples(there, mel.shape[2])
            check_levels(levels, (state.batch, due), CPU)
            moved = self._there(mel), self._there(levels)
            found = self.engine.parameters(there, *moved, speaker=self._there(speaker))
            self._back(there, state)
        return found.cpu()

    def _there(self, value):
        return None if value is None else value.to(self.engine.device)

    @staticmethod
    def _back(there: StreamState, state: StreamState):
        for name in ("buffer", "clock"):
            getattr(state, name).copy_(getattr(there, name))


CPU = Carried.device
