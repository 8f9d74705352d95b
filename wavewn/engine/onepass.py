"""The engine of one-pass models: a generator's flow in torch, on any device.

A generator is a function of rows (nn/flow.py). Each call runs it over the frames that are new, with
what it remembers in the state: what its layers have heard and still need, and what branches that
are ahead have given and the others not yet. A state holds beside these entries of the flow

    ahead   1 x 1   samples that the frames heard will give and have not yet given
    ended   1 x 1   1 after `finish`

so that a row has heard (clock + ahead) / hop frames. Long mels are heard in pieces: what a piece
needs stays in the processor's caches, and memory does not grow with the utterance.

A call works on copies of the rows and writes them back at its end: one that raises leaves the state
as it was. Rows that have heard equally many frames run together.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from wavewn.engine.call import (
    check_call,
    check_memory,
    check_out,
    check_state,
    check_temperature,
    contradiction,
    not_a_number,
)
from wavewn.engine.weights import check_plain
from wavewn.errors import EngineError, StateError
from wavewn.models.generators import Generator
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.layout import innermost
from wavewn.nn.packed import pack_layers
from wavewn.nn.padded import PaddedConv1d, PreciseConv1d, UpsamplingConv1d
from wavewn.noise import draw_noise
from wavewn.state import StateLayout, StreamState

PRECISIONS = ("bfloat16", "float32")  # fastest first
PIECE = 65_536  # samples, of all rows together, that are made at a time


class OnePassEngine:
    """Runs streams of one generator; see `wavewn.engine.call.Engine`.

    Args:
        model: Plain (weight norm folded). It is copied.
        precision: "float32", or "bfloat16": of the convolutions' weights and inputs.
        device: Where states, mels and audio live.
        threads: That torch may use on the CPU during a call.

    Raises:
        EngineError: The model still has weight norm, a parameter is NaN or infinite, or no such
            precision.
    """

    name = "onepass"
    speakers = 0
    silent_end = False
    gives_audio = True  # else what the flow gives is for another engine

    def __init__(
        self,
        model: Generator,
        precision: str = "float32",
        device: torch.device | str = "cpu",
        threads: int = 1,
    ) -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
        if threads < 1:
            raise EngineError(f"threads must be at least 1, got {threads}")
        self.precision, self.threads = precision, threads
        self.device = torch.zeros(0, device=device).device  # with its number, as tensors have it
        self.n_mels, self.hop_length = model.n_mels, model.hop_length
        self._model = _ready(model, precision).to(self.device)  # type: ignore[attr-defined]
        pack_layers(cast("nn.Module", self._model))
        measured = measure(self._count, self.n_mels, self.hop_length)
        self.latency_samples = measured.latency_samples
        own = [("ahead", 1, 1), ("ended", 1, 1)]
        self.layout = StateLayout.of(
            [*own, *((name, rows, channels) for name, (rows, channels) in measured.shapes.items())]
        )
        self._remembered = self.layout.entries[len(own) :]
        self._first, self._lag = self._find_lag()

    def due_samples(self, state: StreamState, frames: int) -> int:
        """See `Engine.due_samples`."""
        heard, clocks = self._heard(state).tolist(), state.clock.tolist()
        return max(self._given(h + frames) - c for h, c in zip(heard, clocks, strict=True))

    def rest_samples(self, state: StreamState) -> int:
        """See `Engine.rest_samples`."""
        return int(state.view("ahead").max())

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
        self._check_temperature(temperature)
        with state.using():
            self._check(state, mel, speaker)
            samples = self.due_samples(state, mel.shape[2])
            return self._serve(state, mel, False, samples, temperature, progress, out)

    def finish(
        self,
        state: StreamState,
        *,
        speaker: Tensor | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """See `Engine.finish`. A finished row must be reset before it hears frames again."""
        self._check_temperature(temperature)
        mel = torch.zeros(state.batch, self.n_mels, 0, device=self.device)
        with state.using():
            self._check(state, mel, speaker)
            samples = self.rest_samples(state)
            return self._serve(state, mel, True, samples, temperature, progress, out)

    def _serve(
        self,
        state: StreamState,
        mel: Tensor,
        last: bool,
        samples: int,
        temperature: float,
        progress: Callable[[int], None] | None,
        out: Tensor | None,
    ) -> Tensor:
        """Run rows that have heard equally many frames together, and write back."""
        shape = (state.batch, samples)
        if out is None:
            audio = torch.zeros(shape, device=self.device)
        else:
            check_out(out, shape, self.device)
            audio = out.zero_()
        heard = self._heard(state)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, enabled=False),
            _threads(self.threads, self.device),
        ):
            parts = []
            for count in heard.unique().tolist():
                rows = (heard == count).nonzero()[:, 0]
                part = state.select(rows)
                due = self.rest_samples(part) if last else self.due_samples(part, mel.shape[2])
                place = samples - due
                tell = progress if due == samples else None
                for sound in self._run(part, mel[rows], last, temperature, rows.tolist(), tell):
                    audio[rows, place : place + sound.shape[1]] = sound
                    place += sound.shape[1]
                parts.append((rows, part))
            for rows, part in parts:
                state.buffer[rows] = part.buffer
                state.clock[rows] = part.clock
        return audio

    def _run(
        self,
        state: StreamState,
        mel: Tensor,
        last: bool,
        temperature: float,
        names: list[int],
        progress: Callable[[int], None] | None,
    ) -> Iterator[Tensor]:
        """Advance rows that have heard equally many frames; give their audio piece by piece."""
        hop, heard = self.hop_length, int(self._heard(state)[0])
        pieces = mel.split(max(PIECE // (hop * state.batch), 1), dim=2)
        for piece in pieces if mel.shape[2] or (last and heard) else ():
            clock = int(state.clock[0])
            sound = self._piece(state, piece, heard, last, temperature)
            if not bool(sound.isfinite().all()):
                row, sample = (~sound.isfinite()).nonzero()[0].tolist()
                raise not_a_number(names[row], clock + sample)
            heard += piece.shape[2]
            state.clock += sound.shape[1]
            state.view("ahead").fill_(heard * hop - clock - sound.shape[1])
            yield sound.clamp(-1, 1)
            if progress is not None and (done := (clock + sound.shape[1]) // hop - clock // hop):
                progress(done)
        if last:
            state.view("ended").fill_(1)
        if not math.isfinite(state.buffer.sum().item()):
            bad = (~state.buffer.isfinite()).nonzero()
            if len(bad):  # its audio is still to come
                raise not_a_number(names[int(bad[0, 0])], int(state.clock[0]))

    def _piece(
        self, state: StreamState, mel: Tensor, heard: int, last: bool, temperature: float
    ) -> Tensor:
        """Run the flow over some frames; give [batch, samples], not yet checked."""
        hop, frames = self.hop_length, mel.shape[2]
        noise: Rows | None = None
        if channels := self._model.noise_channels:
            position = torch.full_like(state.clock, heard * hop)
            kinds = ("normal",) * channels
            drawn = draw_noise(kinds, state.seed, state.stream, position, frames * hop)
            drawn = self._laid((drawn * temperature).transpose(1, 2))
            noise = Rows(drawn, channels, heard * hop, (heard + frames) * hop, last)
        rows = Rows(self._laid(mel), self.n_mels, heard, heard + frames, last)
        audio = self._model.flow(Flow(self._memory(state)), rows, noise)
        assert audio.start == int(state.clock[0]), "the flow lost count"
        return audio.whole[:, 0].float()

    def _memory(self, state: StreamState) -> dict[str, Tensor]:
        """Give the flow's entries as `StreamState.view` does, which looks each of them up."""
        ends = ((e, e.offset + e.rows * e.channels) for e in self._remembered)
        flat = ((e, state.buffer[:, e.offset : end]) for e, end in ends)
        return {e.name: part.view(state.batch, e.rows, e.channels) for e, part in flat}

    def _laid(self, x: Tensor) -> Tensor:
        """Lay rows as convolutions are fastest here; see nn/layout.py."""
        return innermost(x) if self.device.type == "cpu" else x

    def _heard(self, state: StreamState) -> Tensor:
        """Frames that each row has heard: int64 [batch]."""
        return (state.clock + state.view("ahead")[:, 0, 0].long()) // self.hop_length

    def _given(self, frames: int) -> int:
        """Samples that so many frames from the utterance's beginning on determine."""
        return frames * self.hop_length - self._lag if frames >= self._first else 0

    def _count(self, flow: Flow, mel: Rows, noise: Rows) -> Rows:
        """Run the generator on numbers of rows."""
        channels = self._model.noise_channels
        return self._model.flow(flow, mel, replace(noise, channels=channels) if channels else None)

    def _find_lag(self) -> tuple[int, int]:
        """Find how many frames give the first audio, and how far it lags from then on."""
        frames, end = 0, 0
        while not end:
            frames += 1
            samples = frames * self.hop_length
            mel, noise = Rows(None, self.n_mels, 0, frames, False), Rows(None, 1, 0, samples, False)
            given = self._count(Flow(), mel, noise)
            end = given.end
        if self.gives_audio and given.channels != 1:
            raise EngineError(f"this flow gives no audio but {given.channels} channels")
        return frames, frames * self.hop_length - end

    def _check_temperature(self, temperature: float) -> None:
        check_temperature(temperature)
        if temperature != 1 and not self._model.noise_channels:
            raise EngineError(
                f"temperature must be 1, got {temperature}: no noise drives this model, so that "
                "there is nothing to make colder or hotter"
            )

    def _check(self, state: StreamState, mel: Tensor, speaker: Tensor | None) -> None:
        """Refuse what does not belong to this engine or to each other."""
        check_state(self, state)
        aheads = state.view("ahead")[:, 0, 0].tolist()
        marks = state.view("ended")[:, 0, 0].tolist()
        for row, (clock, ahead, mark) in enumerate(
            zip(state.clock.tolist(), aheads, marks, strict=True)
        ):
            whole = clock >= 0 and ahead.is_integer() and (clock + ahead) % self.hop_length == 0
            given = self._given(int(clock + ahead) // self.hop_length) if whole else -1
            if not (clock == given and mark == 0 or whole and ahead == 0 and mark == 1):
                raise contradiction()
            if mark:
                raise StateError(f"row {row} is finished; reset it for the next utterance")
        check_memory(state)
        check_call(self, state, mel, speaker)


def _ready(model: Generator, precision: str) -> Generator:
    """Copy a plain model, with convolutions in this precision."""
    check_plain(cast("nn.Module", model))
    ours: Generator = copy.deepcopy(model).eval().requires_grad_(False)
    if precision == "bfloat16":
        for module in ours.modules():
            filters = isinstance(module, PaddedConv1d | UpsamplingConv1d)
            if filters and not isinstance(module, PreciseConv1d):
                module.to(torch.bfloat16)
    return ours


@contextmanager
def _threads(count: int, device: torch.device) -> Iterator[None]:
    """Let torch use so many threads on the CPU for a while."""
    before = torch.get_num_threads()
    if device.type != "cpu" or before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
