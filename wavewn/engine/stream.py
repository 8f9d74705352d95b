"""Streams: mel frames in, the samples that they determine out.

A stream binds an engine to a state. Whatever the pushes are cut into, their audio joined is the
audio of one push: bit for bit of a WaveNet (levelled or not, see levelled.py), within 1e-5 of a
one-pass model in float32; offline
synthesis is that one push. A model may have to hear more before it can speak: audio lags by up to
`latency_samples`, and `finish` gives the rest.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wavewn.engine.call import Engine, expect
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.state import StreamState


class Stream:
    """A batch of streams that are pushed together.

    A row's audio depends on its own mel, seed and speaker alone, not on the other rows: rows of
    one seed and one mel sound alike.

    Args:
        engine: Runs the model.
        batch: Number of rows.
        speaker: int64 [batch] where the model knows speakers.
        temperature: Of the sampling; 0 takes the likeliest.
        seed: One number for all rows, or one for each.
        check: Called with every mel pushed, [batch, bands, frames >= 1]; raises where it cannot
            be what the model reads. Shape and NaN are refused without it, too.

    Raises:
        StateError: `batch` is below 1, or `seed` is not one number or one for each row.
    """

    def __init__(
        self,
        engine: Engine,
        batch: int = 1,
        *,
        speaker: Tensor | None = None,
        temperature: float = 1.0,
        seed: int | Sequence[int] = 0,
        check: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.engine = engine
        self.speaker = speaker
        self.temperature = temperature
        self.finished = False
        self._check = check
        self._state = StreamState.zeros(
            engine.layout, batch, seed, streams=[0] * batch, device=engine.device
        )

    @property
    def latency_samples(self) -> int:
        """The most that audio lags, before `finish`, behind the end of the frames pushed."""
        return self.engine.latency_samples

    @property
    def state(self) -> StreamState:
        """What the rows remember. Clone it to branch; assign it to go on from there."""
        return self._state

    @state.setter
    def state(self, state: StreamState) -> None:
        if state.layout != self.engine.layout or state.device != self.engine.device:
            raise StateError("the state is of another model, or on another device")
        if state.batch != self._state.batch:
            raise StateError(f"the stream has {self._state.batch} rows, the state {state.batch}")
        self._state = state
        self.finished = False

    def push(
        self,
        mel: Tensor,
        progress: Callable[[int], None] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Hear mel frames.

        Args:
            mel: [batch, bands, frames], or [bands, frames] where batch is 1; frames may be 0.
            progress: Told the frames of audio done since it was told last.
            out: A buffer of the caller's, float32, one axis, at least batch * samples long, into
                whose beginning the audio is written, row after row.

        Returns:
            [batch, samples] float32: what is newly determined; a view of `out` where it is given.

        Raises:
            EngineError: The stream is finished, or NaN came in or came up.
            MelError: The vocoder's check found that the mel is of another kind.
            ShapeError: The mel has another shape, or `out` does not serve.
        """
        self._check_open()
        mel = torch.as_tensor(mel)
        rows = mel.unsqueeze(0) if mel.dim() == 2 else mel
        bands = self.engine.n_mels
        if rows.dim() != 3 or rows.shape[:2] != (self._state.batch, bands):
            raise ShapeError(
                f"a push must be [{self._state.batch} rows, {bands} bands, frames], "
                f"got {list(mel.shape)}"
            )
        if not rows.is_floating_point():
            raise ShapeError(f"a mel must be floating point, got {rows.dtype}")
        if self._check is not None and rows.shape[2]:
            self._check(rows)
        return self.engine.generate(
            self._state,
            rows.detach().to(self.engine.device, torch.float32),
            speaker=self.speaker,
            temperature=self.temperature,
            progress=progress,
            out=self._room(out, lambda: self.engine.due_samples(self._state, rows.shape[2])),
        )

    def finish(
        self, progress: Callable[[int], None] | None = None, out: Tensor | None = None
    ) -> Tensor:
        """End the utterance: give what is still due; the total is frames * hop_length.

        Args:
            progress: As in `push`.
            out: As in `push`.

        Returns:
            [batch, samples] float32; a second call, or a push after it, is an EngineError.
        """
        self._check_open()
        audio = self.engine.finish(
            self._state,
            speaker=self.speaker,
            temperature=self.temperature,
            progress=progress,
            out=self._room(out, lambda: self.engine.rest_samples(self._state)),
        )
        self.finished = True
        return audio

    def _check_open(self) -> None:
        if self.finished:
            raise EngineError("the stream is finished; make a new one for the next utterance")

    def _room(self, out: Tensor | None, due: Callable[[], int]) -> Tensor | None:
        """Return the beginning of `out` as audio of so many samples a row."""
        if out is None:
            return None
        if not isinstance(out, Tensor):
            raise ShapeError("out must be a tensor; torch.from_numpy(array) shares its memory")
        batch, samples = self._state.batch, due()
        wanted = batch * samples
        length = max(out.shape[0] if out.dim() == 1 else 0, wanted)
        expect("out", out, (length,), torch.float32, self.engine.device)
        return out[:wanted].view(batch, samples)
