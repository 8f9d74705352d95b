"""The reference engine: WaveNet in plain torch and float32, on any device.

It is the truth that the other engines are held to. Everything is computed in whole mel frames
aligned to the clock, never per push, and each stream by itself, so that audio does not depend on
chunking, on the batch or on threads. A call works on a copy (`Workspace`) and writes the state
back at its end: one that raises leaves the state as it was.

Source: the cached generation is that of Le Paine et al. 2016, arXiv:1611.09482.
"""

import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wavewn.audio.companding import de_emphasis
from wavewn.engine.weights import Affine, LayerWeights, WaveNetWeights, wavenet_layout
from wavewn.engine.workspace import Workspace
from wavewn.errors import EngineError, ShapeError, StateError
from wavewn.models.heads import make_head
from wavewn.noise import draw_noise
from wavewn.state import StreamState

IDLE = 4  # workspaces kept for the next calls


class ReferenceEngine:
    """Runs streams of one WaveNet.

    Several threads may call one engine at once, each with a state of its own.

    Args:
        weights: From `pack_wavenet`.
        device: Where states, mels and audio live.
    """

    name = "reference"
    precision = "float32"

    def __init__(self, weights: WaveNetWeights, device: torch.device | str = "cpu") -> None:
        self.weights = weights
        self.device = torch.zeros(0, device=device).device  # with its number, as tensors have it
        self.head = make_head(weights.settings.head)
        self.layout = wavenet_layout(weights.settings, weights.n_mels)
        self.look_ahead = weights.settings.condition.look_ahead
        with torch.inference_mode():
            self._halved: WaveNetWeights = _to(halved(weights), self.device)
        self._idle: list[Workspace] = []
        self._lock = threading.Lock()

    def due_frames(self, state: StreamState, frames: int) -> int:
        """Frames of audio that so many mel frames more will give (of the row that gives most)."""
        ahead = int(state.view("ahead").max())
        return max(ahead + frames - self.look_ahead, 0)

    def generate(
        self,
        state: StreamState,
        mel: Tensor,
        *,
        speaker: Tensor | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Hear mel frames and give the samples that they determine.

        Args:
            state: Of this engine's `layout`, on its device; advanced in place.
            mel: [batch, bands, frames], float32; frames may be 0.
            speaker: int64 [batch] where the model knows speakers.
            temperature: Of the head; 0 takes the likeliest.
            progress: Told 1 after each frame of audio.

        Returns:
            [batch, due frames * hop_length] float32 in [-1, 1]. A row that began later than
            others is silent while it looks ahead: its audio lies at the end.

        Raises:
            EngineError: NaN came in or came up; the row and the place are named.
            ShapeError: `mel` or `speaker` is not as said.
            StateError: The state is of another kind, or another call is using it.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise EngineError(f"temperature must be 0 or more, got {temperature}")
        return self._serve(state, mel, speaker, temperature, None, progress)

    def parameters(
        self, state: StreamState, mel: Tensor, levels: Tensor, *, speaker: Tensor | None = None
    ) -> Tensor:
        """Give the head's parameters of each sample, given the true levels before it.

        The state advances as if these levels had been drawn.

        Args:
            state: As in `generate`.
            mel: As in `generate`.
            levels: [batch, due frames * hop_length], float32.
            speaker: As in `generate`.

        Returns:
            [batch, due frames * hop_length, parameters of the head].
        """
        return self._serve(state, mel, speaker, 1.0, levels, None)

    def _serve(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        forced: Tensor | None,
        progress: Callable[[int], None] | None,
    ) -> Tensor:
        """Check, run rows that are equally far ahead together, and write back."""
        with state.using():
            self._check(state, mel, speaker)
            samples = self.due_frames(state, mel.shape[2]) * self.weights.hop_length
            shape: tuple[int, ...] = (state.batch, samples)
            if forced is not None:
                _expect("levels", forced, shape, torch.float32, self.device)
                if bad := (~forced.isfinite()).nonzero().tolist():
                    raise EngineError(f"levels hold NaN in row {bad[0][0]}, sample {bad[0][1]}")
                shape = (*shape, self.head.parameters)
            result = torch.zeros(shape, device=self.device)
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                ahead = state.view("ahead")[:, 0, 0]
                groups = [(ahead == value).nonzero()[:, 0] for value in ahead.unique()]
                parts = [(rows, state.select(rows)) for rows in groups]
                for rows, part in parts:
                    count = self.due_frames(part, mel.shape[2]) * self.weights.hop_length
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
            return result

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
        """Advance streams that are equally far ahead."""
        hop, settings = self.weights.hop_length, self.weights.settings
        desk = self._desk(state.batch)
        desk.load(state)
        ahead = int(state.view("ahead")[0, 0, 0])
        emphasis = state.view("emphasis")[:, 0, 0].clone()
        clock = state.clock.clone()
        results: list[Tensor] = []
        for frame in mel.unbind(2):
            now = desk.hear(frame, speaker)
            if ahead < self.look_ahead:
                ahead += 1
                continue
            desk.condition(now)
            begin = len(results) * hop
            true = None if forced is None else forced[:, begin : begin + hop]
            noise = draw_noise(self.head.noise, state.seed, state.stream, clock, hop)
            levels = desk.generate(noise, temperature, true)
            _check_finite(desk.parameters, clock, names)
            audio = de_emphasis(self.head.decode(levels), settings.pre_emphasis, emphasis)
            emphasis = audio[:, -1]
            results.append(
                audio.clamp(-1, 1) if true is None else desk.parameters.transpose(0, 1).clone()
            )
            clock += hop
            if progress is not None:
                progress(1)
        state.clock.copy_(clock)
        state.view("ahead").fill_(ahead)
        state.view("emphasis")[:, 0, 0] = emphasis
        desk.store(state)
        with self._lock:
            self._idle = [*self._idle, desk][-IDLE:]
        if not results:
            shape = (state.batch, 0) if forced is None else (state.batch, 0, self.head.parameters)
            return torch.zeros(shape, device=self.device)
        return torch.cat(results, dim=1)

    def _desk(self, batch: int) -> Workspace:
        """Take a workspace that no other call holds; it is laid back when the call is done."""
        with self._lock:
            for desk in self._idle:
                if desk.batch == batch:
                    self._idle.remove(desk)
                    return desk
        return Workspace(self._halved, self.head, batch)

    def _check(self, state: StreamState, mel: Tensor, speaker: Tensor | None) -> None:
        """Refuse what does not belong to this engine or to each other."""
        if state.layout != self.layout:
            raise StateError("the state is of another model: its layout is not this engine's")
        if state.device != self.device:
            raise StateError(f"the state is on {state.device}, the engine on {self.device}")
        ahead = state.view("ahead")[:, 0, 0]
        whole = (state.clock % self.weights.hop_length == 0) & (ahead == ahead.round())
        started = (ahead == self.look_ahead) | ((state.clock == 0) & (ahead < self.look_ahead))
        if not bool((whole & started & (ahead >= 0)).all()):
            raise StateError("the state's clock and look-ahead contradict each other; reset it")
        frames = mel.shape[2] if mel.dim() == 3 else 0
        expected = (state.batch, self.weights.n_mels, frames)
        _expect("mel", mel, expected, torch.float32, self.device)
        if bad := (~mel.isfinite()).nonzero().tolist():
            raise EngineError(f"mel holds NaN or infinity in row {bad[0][0]}, frame {bad[0][2]}")
        known = self.weights.settings.speakers
        if (speaker is not None) != bool(known):
            raise ShapeError(f"the model knows {known} speakers; pass speaker exactly if any")
        if speaker is not None:
            _expect("speaker", speaker, (state.batch,), torch.int64, self.device)
            if bool(((speaker < 0) | (speaker >= known)).any()):
                raise ShapeError(f"speaker must lie in 0 to {known - 1}, got {speaker.tolist()}")


def halved(weights: WaveNetWeights) -> WaveNetWeights:
    """Take the factors 1/2 of sigmoid(g) = (1 + tanh(g / 2)) / 2 into the matrices."""
    layers = len(weights.layers)
    scale = weights.input.bias.new_ones(2 * weights.settings.residual_channels)
    scale[len(scale) // 2 :] = 0.5
    projection = weights.projection
    return dataclasses.replace(
        weights,
        projection=Affine(
            projection.matrix * scale.repeat(layers), projection.bias * scale.repeat(layers)
        ),
        layers=tuple(
            LayerWeights(
                layer.dilation, layer.gate * scale, Affine(layer.out.matrix * 0.5, layer.out.bias)
            )
            for layer in weights.layers
        ),
    )


def _to(record: Any, device: torch.device) -> Any:
    """Copy a record of tensors to a device."""
    if isinstance(record, Tensor):
        return record.to(device)
    if isinstance(record, tuple):
        return tuple(_to(item, device) for item in record)
    if isinstance(record, (WaveNetWeights, LayerWeights, Affine)):
        parts = {e.name: _to(getattr(record, e.name), device) for e in dataclasses.fields(record)}
        return type(record)(**parts)
    return record


def _check_finite(parameters: Tensor, clock: Tensor, names: list[int]) -> None:
    """Raise EngineError naming the first [hop, batch, parameters] that is not a number."""
    if bool(parameters.isfinite().all()):
        return
    sample, row = (~parameters.isfinite()).nonzero()[0, :2].tolist()
    raise EngineError(
        f"NaN or infinity came up in row {names[row]} at sample {int(clock[row]) + sample}; "
        "the state is as before the call: is it damaged, or does the model overflow on this mel?"
    )


def _expect(
    name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    if tuple(value.shape) != shape or value.dtype != dtype or value.device != device:
        raise ShapeError(
            f"{name} must be {dtype} {list(shape)} on {device}, "
            f"got {value.dtype} {list(value.shape)} on {value.device}"
        )
