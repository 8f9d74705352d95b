"""A call of an engine: what all engines offer, and what all of them refuse in the same words.

An engine checks a call whole before it touches the state, in this order: temperature, state, mel,
speaker, levels or `out`. A call that raises leaves the state as it was. What the engines of WaveNet
add to it is in wavenet.py.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.models.heads import Head
from wavewn.state import StateLayout, StreamState


class Engine(Protocol):
    """Runs streams of one model.

    Several threads may call one engine at once, each with a state of its own.

    Attributes:
        name: Such as "reference".
        precision: Of weights and products; states and audio are float32 in every engine.
        device: Where states, mels and audio live.
        layout: Of its states.
        n_mels: Mel bands.
        hop_length: Samples a frame.
        speakers: How many voices it knows; 0 where there is but one, without a name.
        latency_samples: The most that audio lags, before `finish`, behind the frames heard.
        silent_end: Whether what follows the utterance is heard as so many frames of silence, so
            that rows of different lengths may run together. Otherwise the model hears its end.
    """

    name: str
    precision: str
    device: torch.device
    layout: StateLayout
    n_mels: int
    hop_length: int
    speakers: int
    latency_samples: int
    silent_end: bool

    def due_samples(self, state: StreamState, frames: int) -> int:
        """Samples that so many mel frames more will give (of the row that gives most)."""

    def rest_samples(self, state: StreamState) -> int:
        """Samples that `finish` will give (of the row that gives most)."""

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
        """Hear mel frames and give the samples that they determine.

        Args:
            state: Of this engine's `layout`, on its device; advanced in place.
            mel: [batch, bands, frames], float32; frames may be 0.
            speaker: int64 [batch] where the model knows speakers.
            temperature: Of the noise; 0 takes the likeliest.
            progress: Told the whole frames of audio done since it was told last.
            out: Receives the audio and is returned: contiguous, shaped as below. What it holds
                after an error is not defined.

        Returns:
            [batch, due samples] float32 in [-1, 1]. A row that began later than others is silent
            while it looks ahead: its audio lies at the end.

        Raises:
            EngineError: NaN came in or came up; the row and the place are named.
            ShapeError: `mel`, `speaker` or `out` is not as said.
            StateError: The state is of another kind, or another call is using it.
        """

    def finish(
        self,
        state: StreamState,
        *,
        speaker: Tensor | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """End the utterances: give what is still due, so that each comes to frames * hop_length.

        Arguments and errors are those of `generate`.

        Returns:
            [batch, rest samples] float32; a row's audio lies at the end.
        """


class WaveNetEngine(Engine, Protocol):
    """Runs streams of one WaveNet.

    Attributes:
        weights: What it runs.
        look_ahead: Mel frames that it hears before the first sounds.
        head: Turns parameters and noise into samples.
    """

    weights: WaveNetWeights
    look_ahead: int
    head: Head

    def due_frames(self, state: StreamState, frames: int) -> int:
        """As `due_samples`, in frames."""

    def parameters(
        self, state: StreamState, mel: Tensor, levels: Tensor, *, speaker: Tensor | None = None
    ) -> Tensor:
        """Give the head's parameters of each sample, given the true levels before it.

        The state advances as if these levels had been drawn.

        Args:
            state: As in `generate`.
            mel: As in `generate`.
            levels: [batch, due samples], float32.
            speaker: As in `generate`.

        Returns:
            [batch, due samples, parameters of the head].
        """


def check_temperature(temperature: float) -> None:
    """Raise EngineError unless it is a number from 0 on."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise EngineError(f"temperature must be 0 or more, got {temperature}")


def check_call(
    engine: Engine, state: StreamState, mel: Tensor, speaker: Tensor | None = None
) -> None:
    """Refuse a mel and speakers that do not belong to this engine or to the state's rows."""
    frames = mel.shape[2] if mel.dim() == 3 else 0
    expect("mel", mel, (state.batch, engine.n_mels, frames), torch.float32, engine.device)
    if not _is_finite(mel):
        row, _, frame = (~mel.isfinite()).nonzero()[0].tolist()
        raise EngineError(f"mel holds NaN or infinity in row {row}, frame {frame}")
    known = engine.speakers
    if (speaker is not None) != bool(known):
        raise ShapeError(f"the model knows {known} speakers; pass speaker exactly if any")
    if speaker is not None:
        expect("speaker", speaker, (state.batch,), torch.int64, engine.device)
        if bool(((speaker < 0) | (speaker >= known)).any()):
            raise ShapeError(f"speaker must lie in 0 to {known - 1}, got {speaker.tolist()}")


def check_state(engine: Engine, state: StreamState) -> None:
    """Refuse a state of another model or device, and one whose tensors were tampered with."""
    if state.layout is not engine.layout and state.layout != engine.layout:
        raise StateError("the state is of another model: its layout is not this engine's")
    if state.device != engine.device:
        raise StateError(f"the state is on {state.device}, the engine on {engine.device}")
    state.check()


def check_memory(state: StreamState) -> None:
    """Refuse a state that holds NaN or infinity.

    NaN must be found here: what quantises it makes a number of it.
    """
    if not _is_finite(state.buffer):
        row, place = (~state.buffer.isfinite()).nonzero()[0].tolist()
        name = [e.name for e in state.layout.entries if e.rows and e.offset <= place][-1]
        raise EngineError(f"the state holds NaN or infinity in row {row}, {name}; reset that row")


def _is_finite(numbers: Tensor) -> bool:
    """Whether all of them are; a sum, which is quicker, may overflow where every one is."""
    return math.isfinite(numbers.sum().item()) or bool(numbers.isfinite().all())


def contradiction() -> StateError:
    """Make the error of a state whose row says two things of how far it is."""
    return StateError("the state's clock and look-ahead contradict each other; reset it")


def check_levels(levels: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise unless forced levels are of this shape and finite."""
    expect("levels", levels, shape, torch.float32, device)
    if not bool(levels.isfinite().all()):
        row, sample = (~levels.isfinite()).nonzero()[0].tolist()
        raise EngineError(f"levels hold NaN in row {row}, sample {sample}")


def check_out(out: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise ShapeError unless audio of this shape can be written into `out` as it lies there."""
    expect("out", out, shape, torch.float32, device)
    if not out.is_contiguous():
        raise ShapeError("out must be contiguous in memory; pass a buffer of its own")


def not_a_number(row: int, sample: int) -> EngineError:
    """Make the error of a sample, or of a head's parameter, that is not finite.

    Args:
        row: Of the batch.
        sample: Since the row's stream began.
    """
    return EngineError(
        f"NaN or infinity came up in row {row} at sample {sample}; "
        "the state is as before the call: is it damaged, or does the model overflow on this mel?"
    )


def check_made(sound: Tensor, buffer: Tensor, names: list[int], begun: int) -> None:
    """Raise EngineError for what is no number in new audio or in what is remembered of it.

    Args:
        sound: [rows, samples].
        buffer: [rows, numbers].
        names: Numbers of the rows in their batch.
        begun: Samples of a row before these.
    """
    if math.isfinite((sound.sum() + buffer.sum()).item()):  # the device is waited for once
        return
    for values, sample in ((sound, begun), (buffer, begun + sound.shape[1])):
        bad = (~values.isfinite()).nonzero().tolist()
        if bad:  # what is only remembered is audio still to come
            row, place = bad[0]
            raise not_a_number(names[row], sample + (place if values is sound else 0))


def expect(
    name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Raise ShapeError unless a tensor has this shape, dtype and device."""
    if tuple(value.shape) != shape or value.dtype != dtype or value.device != device:
        raise ShapeError(
            f"{name} must be {dtype} {list(shape)} on {device}, "
            f"got {value.dtype} {list(value.shape)} on {value.device}"
        )
