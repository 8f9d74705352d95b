"""The engine of one-pass models: a generator's flow in torch, on any device, or natively.

A generator is a function of rows (nn/flow.py). Each call runs it over the frames that are new, with
what it remembers in the state: what its layers have heard and still need, and what branches that
are ahead have given and the others not yet. A state holds beside these entries of the flow

    ahead   1 x 1   samples that the frames heard will give and have not yet given
    ended   1 x 1   1 after `finish`

so that a row has heard (clock + ahead) / hop frames. Long mels are heard in pieces: what a piece
needs stays in the processor's caches, and memory does not grow with the utterance.

A call works on copies of the rows and writes them back at its end: one that raises leaves the state
as it was. Rows that have heard equally many frames run together.

On a GPU the chunks of a stream are replayed from graphs (onepass_graph.py); on a CPU generators of
convolutions alone run in the native kernel (onepass_native.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from wavewn.engine.call import (
    check_call,
    check_made,
    check_memory,
    check_out,
    check_state,
    check_temperature,
    contradiction,
)
from wavewn.engine.onepass_graph import SteadySteps
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_model import prepared, wants_innermost
from wavewn.engine.onepass_native import chosen_set
from wavewn.engine.onepass_rows import Part, read_progress
from wavewn.engine.torch_setting import torch_setting
from wavewn.errors import EngineError, StateError
from wavewn.models.generators import Generator
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.layout import innermost
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
        graphs: Replay steady chunks; None is where that is quicker: on a CUDA device.
        native: Instruction set of the native kernel, "auto" for the best; "" leaves it to torch.

    Raises:
        EngineError: The model has weight norm, NaN or infinity, or cannot run so here.
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
        graphs: bool | None = None,
        native: str = "",
    ) -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
        if threads < 1:
            raise EngineError(f"threads must be at least 1, got {threads}")
        self.precision, self.threads = precision, threads
        if native:
            self.name = "native"
        self.device = torch.zeros(0, device=device).device  # with its number, as tensors have it
        self.n_mels, self.hop_length = model.n_mels, model.hop_length
        self._model = prepared(model, precision, self.device, native, threads)
        self.instruction_set = chosen_set(precision, native) if native else ""
        self._innermost = not native and wants_innermost(self.device, precision)
        measured = measure(self._count, self.n_mels, self.hop_length)
        if self.gives_audio and measured.channels != 1:
            raise EngineError(f"this flow gives no audio but {measured.channels} channels")
        self.latency_samples, self._steady = measured.latency_samples, measured.steady
        self._first, self._lag = measured.first, measured.lag_samples
        own = [("ahead", 1, 1), ("ended", 1, 1)]
        self.layout = StateLayout.of(
            [*own, *((name, rows, channels) for name, (rows, channels) in measured.shapes.items())]
        )
        self._remembered = {e.name: e for e in self.layout.entries[len(own) :]}
        self._steps: SteadySteps | None = None
        if self.device.type == "cuda" if graphs is None else graphs:
            self._steps = SteadySteps(self._steady_flow, self.device, self.hop_length)

    def due_samples(self, state: StreamState, frames: int) -> int:
        """See `Engine.due_samples`."""
        rows = read_progress(state, self.hop_length)
        return max(self._given(row.heard + frames) - row.clock for row in rows)

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
            heard = self._check(state, mel, speaker)
            return self._serve(state, heard, mel, speaker, False, temperature, progress, out)

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
            heard = self._check(state, mel, speaker)
            return self._serve(state, heard, mel, speaker, True, temperature, progress, out)

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
        """Run rows that have heard equally many frames together, and write back."""
        frames, hop = mel.shape[2], self.hop_length
        due = {n: (n * hop if last else self._given(n + frames)) - self._given(n) for n in heard}
        samples = max(due.values())
        audio = self._silence((state.batch, samples), out)
        everyone = len(due) == 1
        with torch.inference_mode(), torch_setting(self.device, self.threads):
            parts = []
            for count in sorted(due):
                names = [row for row, own in enumerate(heard) if own == count]
                rows = None if everyone else torch.tensor(names, device=self.device)
                part, place = Part.of(state, rows), samples - due[count]
                tell = progress if due[count] == samples else None
                own = mel if rows is None else mel[rows]
                who = speaker if rows is None or speaker is None else speaker[rows]
                for sound in self._run(part, own, who, count, last, temperature, names, tell):
                    begun, place = place, place + sound.shape[1]
                    audio[slice(None) if rows is None else rows, begun:place] = sound
                clock = self._given(count) + due[count]
                part.tell(state.layout, (count + frames) * hop - clock, last)
                parts.append((part, rows, clock))
            for part, rows, clock in parts:
                part.write(state, rows, clock)
        return audio

    def _silence(self, shape: tuple[int, int], out: Tensor | None) -> Tensor:
        """Give the room for a call's audio: the caller's, where there is one."""
        if out is None:
            return torch.zeros(shape, device=self.device)
        check_out(out, shape, self.device)
        return out.zero_()

    def _run(
        self,
        part: Part,
        mel: Tensor,
        speaker: Tensor | None,
        heard: int,
        last: bool,
        temperature: float,
        names: list[int],
        progress: Callable[[int], None] | None,
    ) -> Iterator[Tensor]:
        """Advance rows that have heard equally many frames; give their audio piece by piece."""
        hop, clock = self.hop_length, self._given(heard)
        most = max(PIECE // (hop * len(names)), 1)
        pieces = (mel,) if mel.shape[2] <= most else mel.split(most, dim=2)
        for piece in pieces if mel.shape[2] or (last and heard) else ():
            sound = self._piece(part, piece, speaker, heard, last, temperature)
            begun, clock = clock, clock + sound.shape[1]
            heard += piece.shape[2]
            check_made(sound, part.buffer, names, begun)
            yield sound.clamp_(-1, 1)
            if progress is not None and (done := clock // hop - begun // hop):
                progress(done)

    def _piece(
        self,
        part: Part,
        mel: Tensor,
        speaker: Tensor | None,
        heard: int,
        last: bool,
        temperature: float,
    ) -> Tensor:
        """Run the flow over some frames; give [batch, samples], not yet checked."""
        mel, noise = self._laid(mel), None
        if channels := self._model.noise_channels:
            position = torch.full_like(part.seed, heard * self.hop_length)
            samples, kinds = mel.shape[2] * self.hop_length, ("normal",) * channels
            drawn = draw_noise(kinds, part.seed, part.stream, position, samples)
            if temperature != 1:
                drawn *= temperature
            noise = self._laid(drawn.transpose(1, 2))
        if self._steps is not None and not last and heard >= self._steady:
            replayed = self._steps(part.buffer, mel, noise)
            if replayed is not None:
                return replayed
        return self._flow(part.buffer, mel, noise, heard, last)

    def _steady_flow(self, buffer: Tensor, mel: Tensor, noise: Tensor | None) -> Tensor:
        """Run the flow over a chunk as if it were the first steady one."""
        return self._flow(buffer, mel, noise, self._steady, False)

    def _flow(
        self, buffer: Tensor, mel: Tensor, noise: Tensor | None, heard: int, last: bool
    ) -> Tensor:
        """Run the flow; a steady one never waits for the device."""
        end, hop = heard + mel.shape[2], self.hop_length
        rows, drive = Rows(mel, self.n_mels, heard, end, last), None
        if noise is not None:
            drive = Rows(noise, noise.shape[1], heard * hop, end * hop, last)
        audio = self._model.flow(Flow(self._memory(buffer)), rows, drive)
        assert audio.start == self._given(heard), "the flow lost count"
        return audio.whole[:, 0].float()

    def _memory(self, buffer: Tensor) -> Memory:
        """Give the flow's entries in these rows of a state's buffer."""
        return Memory(buffer, self._remembered)

    def _laid(self, x: Tensor) -> Tensor:
        """Lay rows as torch's convolutions are fastest here; see nn/layout.py."""
        return innermost(x) if self._innermost else x

    def _given(self, frames: int) -> int:
        """Samples that so many frames from the utterance's beginning on determine."""
        return frames * self.hop_length - self._lag if frames >= self._first else 0

    def _count(self, flow: Flow, mel: Rows, noise: Rows) -> Rows:
        """Run the generator on numbers of rows."""
        channels = self._model.noise_channels
        return self._model.flow(flow, mel, replace(noise, channels=channels) if channels else None)

    def _check_temperature(self, temperature: float) -> None:
        check_temperature(temperature)
        if temperature != 1 and not self._model.noise_channels:
            raise EngineError(
                f"temperature must be 1, got {temperature}: no noise drives this model, so that "
                "there is nothing to make colder or hotter"
            )

    def _check(self, state: StreamState, mel: Tensor, speaker: Tensor | None) -> list[int]:
        """Refuse what does not belong to this engine or to each other; give the frames heard."""
        check_state(self, state)
        rows = read_progress(state, self.hop_length)
        for number, row in enumerate(rows):
            if not row.possible:
                raise contradiction()
            begun = row.ended == 0 and row.clock == self._given(row.heard)
            if not begun and not (row.ended == 1 and row.ahead == 0):
                raise contradiction()
            if row.ended:
                raise StateError(f"row {number} is finished; reset it for the next utterance")
        check_memory(state)
        check_call(self, state, mel, speaker)
        return [row.heard for row in rows]
