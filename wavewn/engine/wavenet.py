"""What all engines of WaveNet have in common: how far a stream is, and how it ends.

A stream hears `look_ahead` frames before the first sounds; entry "ahead" of its state counts them,
and then stays. What follows an utterance is silence: to finish is to hear `look_ahead` frames more.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wavewn.engine.call import (
    WaveNetEngine,
    check_call,
    check_levels,
    check_memory,
    check_out,
    check_state,
    check_temperature,
    contradiction,
)
from wavewn.engine.weights import WaveNetWeights, wavenet_layout
from wavewn.models.heads import make_head
from wavewn.state import StreamState


class WaveNetStreams:
    """The part of `WaveNetEngine` that does not depend on how samples are made.

    An engine makes them in `_run`, or in `_serve` if it runs all rows of a batch at once.

    Args:
        weights: From `pack_wavenet`.
        device: Where states, mels and audio live.
    """

    name: str
    precision: str
    silent_end = True

    def __init__(self, weights: WaveNetWeights, device: torch.device | str) -> None:
        self.weights = weights
        self.device = torch.zeros(0, device=device).device  # with its number, as tensors have it
        self.head = make_head(weights.settings.head)
        self.layout = wavenet_layout(weights.settings, weights.n_mels)
        self.look_ahead = weights.settings.condition.look_ahead
        self.n_mels, self.hop_length = weights.n_mels, weights.hop_length
        self.speakers = weights.settings.speakers
        self.latency_samples = self.look_ahead * self.hop_length

    def due_frames(self, state: StreamState, frames: int) -> int:
        """See `WaveNetEngine.due_frames`."""
        return max(int(state.view("ahead").max()) + frames - self.look_ahead, 0)

    def due_samples(self, state: StreamState, frames: int) -> int:
        """See `Engine.due_samples`."""
        return self.due_frames(state, frames) * self.hop_length

    def rest_samples(self, state: StreamState) -> int:
        """See `Engine.rest_samples`."""
        return self.due_samples(state, self.look_ahead)

    def generate(
        self,
        state: StreamState,
        mel: Tensor,
        *,
        speaker: Tensor | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """See `Engine.generate`."""
        check_temperature(temperature)
        with state.using():
            check_utterance(self, state, mel, speaker)
            shape = (state.batch, self.due_samples(state, mel.shape[2]))
            if out is None:
                audio = torch.zeros(shape, device=self.device)
            else:
                check_out(out, shape, self.device)
                audio = out.zero_()
            self._serve(state, mel, speaker, temperature, None, progress, audio)
            return audio

    def parameters(
        self, state: StreamState, mel: Tensor, levels: Tensor, *, speaker: Tensor | None = None
    ) -> Tensor:
        """See `WaveNetEngine.parameters`."""
        with state.using():
            check_utterance(self, state, mel, speaker)
            samples = self.due_samples(state, mel.shape[2])
            check_levels(levels, (state.batch, samples), self.device)
            result = torch.zeros(state.batch, samples, self.head.parameters, device=self.device)
            self._serve(state, mel, speaker, 1.0, levels, None, result)
            return result

    def finish(
        self,
        state: StreamState,
        *,
        speaker: Tensor | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """See `Engine.finish`."""
        shape = (state.batch, self.n_mels, self.look_ahead)
        return self.generate(
            state,
            torch.full(shape, self.weights.mel_silence, device=self.device),
            speaker=speaker,
            temperature=temperature,
            progress=progress,
            out=out,
        )

    def _serve(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        forced: Tensor | None,
        progress: Callable[[int], None] | None,
        result: Tensor,
    ) -> None:
        """Run rows that are equally far ahead together into `result`, and write back."""
        samples = result.shape[1]
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            ahead = state.view("ahead")[:, 0, 0]
            groups = [(ahead == value).nonzero()[:, 0] for value in ahead.unique()]
            parts = [(rows, state.select(rows)) for rows in groups]
            for rows, part in parts:
                count = self.due_samples(part, mel.shape[2])
                first = samples - count
                result[rows, first:] = self._run(
                    part,
                    mel[rows],
                    None if speaker is None else speaker[rows],
                    temperature,
                    None if forced is None else forced[rows, first:],
                    progress if count == samples else None,
                    rows.tolist(),
                )
            for rows, part in parts:
                state.buffer[rows] = part.buffer
                state.clock[rows] = part.clock

    def _run(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        forced: Tensor | None,
        progress: Callable[[int], None] | None,
        names: list[int],
    ) -> Tensor:
        """Advance streams that are equally far ahead, the caller's rows `names`."""
        raise NotImplementedError


def check_utterance(
    engine: WaveNetEngine, state: StreamState, mel: Tensor, speaker: Tensor | None
) -> None:
    """Refuse what does not belong to a WaveNet's engine or to each other; see `Engine.generate`."""
    check_state(engine, state)
    hop, wait = engine.hop_length, engine.look_ahead
    for clock, ahead in zip(
        state.clock.tolist(), state.view("ahead")[:, 0, 0].tolist(), strict=True
    ):
        whole = clock >= 0 and clock % hop == 0 and ahead.is_integer()
        if not whole or not (ahead == wait or (clock == 0 and 0 <= ahead < wait)):
            raise contradiction()
    check_memory(state)
    check_call(engine, state, mel, speaker)
