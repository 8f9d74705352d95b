"""What the CUDA engine computes once a mel frame, in plain torch on the device.

Many frames of many streams go through a product together, in blocks of one shape: what there is
not is zeros. So the library takes the same kernel whatever the chunk and the company, every row is
a product of its own, and a frame has the same bits in each of them.

Twin: engine/workspace.py, `hear` and `condition`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.engine.cuda_packing import TILE, padded
from wavewn.engine.packing import kernel_weights
from wavewn.engine.weights import Affine, WaveNetWeights
from wavewn.engine.workspace import affine
from wavewn.nn.linear_prediction import lag_weights, predictor_of
from wavewn.state import StreamState

ROWS = 32  # of a block


@dataclass(frozen=True)
class Conditions:
    """What the kernel reads of frames.

    Attributes:
        gates: [batch, 1 + frames, layers, R, 2], the frame before the first with them; under
            learned upsampling [layers, R, 2], the bias.
        upsampled: [batch, frames * hop, C], learned upsampling only, else empty.
        predictors: [batch, frames, order + lags + 3], else empty.
    """

    gates: Tensor
    upsampled: Tensor
    predictors: Tensor


class Frames:
    """The network at frame rate.

    Args:
        weights: From `pack_wavenet`.
        device: Where it runs.
    """

    def __init__(self, weights: WaveNetWeights, device: torch.device) -> None:
        settings = weights.settings
        self.weights = weights = kernel_weights(weights)
        layers = len(weights.layers)

        def ready(part: Affine) -> Affine:
            matrix = F.pad(part.matrix, (0, -part.matrix.shape[1] % TILE))
            matrix = F.pad(matrix.T, (0, -part.matrix.shape[0] % TILE)).T.contiguous()
            bias = F.pad(part.bias, (0, -part.bias.shape[0] % TILE))
            return Affine(matrix.to(device), bias.to(device))

        def paired(value: Tensor) -> Tensor:  # the two halves of a gate, channel by channel
            return value.unflatten(-1, (layers, 2, -1)).transpose(-1, -2).flatten(-3)

        projection = Affine(paired(weights.projection.matrix), paired(weights.projection.bias))
        self.bias = projection.bias.to(device)
        self.projection = ready(projection)
        self.mel = [ready(conv) for conv in weights.mel]
        self.upsample = weights.upsample and ready(weights.upsample)
        self.predictor = weights.predictor and ready(weights.predictor)
        self.pitch = weights.pitch and ready(weights.pitch)
        self.speakers = None if weights.speakers is None else weights.speakers.to(device)
        self.order, self.taps = settings.prediction_order, settings.condition.kernel_size
        self.channels, self.look_ahead = settings.condition.channels, settings.condition.look_ahead

    @property
    def bytes_a_frame(self) -> int:
        """Of a stream's conditions."""
        upsampled = self.weights.hop_length * self.channels if self.upsample else 0
        return 4 * (len(self.bias) + upsampled)

    def hear(self, state: StreamState, mel: Tensor, speaker: Tensor | None) -> Tensor:
        """Run the mel network and advance its memory; `state.clock` stays as it is.

        Args:
            state: Of streams that are equally far ahead.
            mel: [batch, bands, frames], frames >= 1.
            speaker: [batch] where the model knows speakers.

        Returns:
            [batch, due frames, C], for the frames whose audio is due.
        """
        ahead = state.view("ahead")
        number = state.clock // self.weights.hop_length + ahead[:, 0, 0].long()
        x = (mel.transpose(1, 2) - self.weights.mel_silence) / self.weights.mel_scale
        frames, past = x.shape[1], self.taps - 1
        for i, conv in enumerate(self.mel):
            rows = torch.cat([state.history(f"mel.{i}", number), x], dim=1)
            state.push(f"mel.{i}", rows[:, frames:], number + frames - past)
            taps = rows.unfold(1, self.taps, 1).transpose(2, 3).flatten(2)
            x = _in_blocks(partial(affine, weights=conv), taps).relu_()[:, :, : self.channels]
        if self.speakers is not None:
            x = x + self.speakers[speaker].unsqueeze(1)
        early = max(self.look_ahead - int(ahead[0, 0, 0]), 0)
        ahead += min(early, frames)
        return x[:, early:]

    def condition(self, state: StreamState, heard: Tensor) -> Conditions:
        """Make the conditions of due frames [batch, frames >= 1, C]; the state keeps the last."""
        before = state.view("condition")
        both = torch.cat([before, heard], dim=1)
        upsampled = predictors = heard.new_empty(0)
        if self.upsample is not None:
            pairs = torch.cat([both[:, :-1], heard], dim=2)
            upsampled = _in_blocks(partial(affine, weights=self.upsample), pairs)
            hop = self.weights.hop_length
            upsampled = upsampled[:, :, : hop * self.channels].contiguous()
            gates = self.bias
        else:
            gates = _in_blocks(partial(affine, weights=self.projection), both)
            gates = gates[:, :, : len(self.bias)].contiguous()
        if self.order:
            predictors = _in_blocks(self._predict, heard)
        before.copy_(heard[:, -1:])
        return Conditions(gates, upsampled, predictors)

    def _predict(self, rows: Tensor) -> Tensor:
        """[rows, 1, C] to the predictors of frames."""
        assert self.predictor is not None, "where there is an order there is a predictor"
        coefficients, scale = predictor_of(affine(rows, self.predictor)[:, :, : self.order + 1])
        parts = [coefficients, scale, scale.log(), torch.zeros_like(scale)]
        if self.pitch is not None:
            count = len(self.weights.pitch.bias)  # type: ignore[union-attr]
            lags, gain = lag_weights(affine(rows, self.pitch)[:, :, :count])
            parts = [coefficients, lags, scale, scale.log(), gain]
        return torch.cat(parts, dim=2)


def _in_blocks(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute rows [batch, frames, inputs] in blocks [ROWS, 1, padded inputs] to [.., outputs]."""
    flat = x.flatten(0, 1)
    count, width = flat.shape
    rows = F.pad(flat, (0, padded(width) - width, 0, -count % ROWS))
    results = [compute(block.unsqueeze(1)).squeeze(1) for block in rows.split(ROWS)]
    return torch.cat(results)[:count].unflatten(0, x.shape[:2])
