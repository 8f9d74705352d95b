"""The reference engine: WaveNet in plain torch and float32, on any device.

It is the truth that the other engines are held to. Everything is computed in whole mel frames
aligned to the clock, never per push, and each stream by itself, so that audio does not depend on
chunking, on the batch or on threads. A call works on a copy (`Workspace`) and writes the state
back at its end: one that raises leaves the state as it was.

Source: the cached generation is that of Le Paine et al. 2016, arXiv:1611.09482.
"""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.audio.companding import de_emphasis
from wavewn.engine.call import not_a_number
from wavewn.engine.wavenet import WaveNetStreams
from wavewn.engine.weights import Affine, LayerWeights, WaveNetWeights
from wavewn.engine.workspace import Workspace
from wavewn.noise import draw_noise
from wavewn.state import StreamState

IDLE = 4  # workspaces kept for the next calls
WIDTH = 16  # floats of a vector


class ReferenceEngine(WaveNetStreams):
    """Runs streams of one WaveNet.

    Several threads may call one engine at once, each with a state of its own.

    Args:
        weights: From `pack_wavenet`.
        device: Where states, mels and audio live.
    """

    name = "reference"
    precision = "float32"

    def __init__(self, weights: WaveNetWeights, device: torch.device | str = "cpu") -> None:
        super().__init__(weights, device)
        with torch.inference_mode():
            self._ready: WaveNetWeights = _to(aligned(halved(weights)), self.device)
        self._idle: list[Workspace] = []
        self._lock = threading.Lock()

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
        return Workspace(self._ready, self.head, batch)


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


def aligned(weights: WaveNetWeights) -> WaveNetWeights:
    """Widen every product with zeros to whole vectors.

    A product of another width gives a stream bits that depend on how many there are: MKL rounds
    by where a row lies in memory.
    """
    layers, taps = len(weights.layers), weights.settings.kernel_size
    mel_taps, skip = weights.settings.condition.kernel_size, weights.settings.skip_channels

    def grown(part: Affine, rows: int = 1, columns: int = 1) -> Affine:
        matrix = _widened(part.matrix, columns)
        if rows:
            matrix = _widened(matrix.T, rows).T.contiguous()
        return Affine(matrix, _widened(part.bias, columns))

    def grown_layer(layer: LayerWeights) -> LayerWeights:
        gate = _widened(_widened(layer.gate, 2).T, taps).T.contiguous()
        sizes = [layer.out.bias.shape[0] - skip, skip]  # the last layer has no residual
        halves = zip(layer.out.matrix.split(sizes, 1), layer.out.bias.split(sizes), strict=True)
        parts = [grown(Affine(*half)) for half in halves if half[1].numel()]
        matrix = torch.cat([part.matrix for part in parts], dim=1)
        bias = torch.cat([part.bias for part in parts])
        return LayerWeights(layer.dilation, gate, Affine(matrix, bias))

    first, *others = weights.mel
    return dataclasses.replace(
        weights,
        mel=(grown(first, rows=0), *(grown(conv, rows=mel_taps) for conv in others)),
        speakers=None if weights.speakers is None else _widened(weights.speakers),
        predictor=weights.predictor and grown(weights.predictor),
        pitch=weights.pitch and grown(weights.pitch),
        upsample=weights.upsample and grown(weights.upsample, 2, weights.hop_length),
        projection=grown(weights.projection, columns=2 * layers),
        input=grown(weights.input, rows=0),
        layers=tuple(grown_layer(layer) for layer in weights.layers),
        hidden=grown(weights.hidden),
        output=grown(weights.output),
    )


def _widened(value: Tensor, blocks: int = 1) -> Tensor:
    """Pad each of so many equal parts of the last axis with zeros to a multiple of 16."""
    parts = value.unflatten(-1, (blocks, -1))
    return F.pad(parts, (0, -parts.shape[-1] % WIDTH)).flatten(-2)


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
    raise not_a_number(names[row], int(clock[row]) + sample)
