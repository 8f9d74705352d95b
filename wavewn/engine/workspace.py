"""The reference engine's desk: one frame of a WaveNet in plain torch, few calls a sample.

A frame's layer inputs lie in one block a layer, [context + hop, batch, R + S], R and S widened to
whole vectors, behind the rows
that its taps still read. That lets whole runs of samples share work: the condition and the older
taps of a layer are known `dilation` samples ahead and are added in runs of that length, and what
is left for each sample and layer is four calls. Three things to know when reading:

- sigmoid(g) = (1 + tanh(g / 2)) / 2, so one tanh serves both halves of a gate:
  2 z = f + f * tanh(g / 2). The factors 1/2 are in the matrices, which is exact.
- The residual and the skip share a row and one product: [x | skip] += [z | 1] @ [out; bias].
- A product is `bmm` with one matrix per stream, the weight expanded without copy. `mm` of many
  streams rounds differently from `mm` of one; so does torch.sigmoid, but not torch.tanh. That is
  how a stream's bits do not depend on its neighbours (tests/engine/test_contract_streams.py). A
  width that is no multiple of 4 would bring them back; so would a long inner product.
"""

import torch
from torch import Tensor

from wavewn.engine.weights import Affine, WaveNetWeights
from wavewn.models.heads import Head, LinearLevels
from wavewn.nn.linear_prediction import (
    lag_weights,
    predictor_of,
    residual_features,
    shortest_lag,
)
from wavewn.nn.upsample import linear_ramp
from wavewn.state import StreamState


def times(x: Tensor, matrix: Tensor) -> Tensor:
    """[batch, rows, inputs] @ [inputs, outputs], each stream by itself."""
    return torch.bmm(x, matrix.expand(x.shape[0], -1, -1))


def affine(x: Tensor, weights: Affine) -> Tensor:
    """[batch, rows, inputs] to [batch, rows, outputs], each stream by itself."""
    return times(x, weights.matrix).add_(weights.bias)


class Workspace:
    """Scratch memory for so many streams; holds nothing between two calls.

    `load`, then for each mel frame `hear` and, when its audio is due, `condition` and `generate`,
    then `store`. The weights are `halved` and `aligned`.
    """

    def __init__(self, weights: WaveNetWeights, head: Head, batch: int) -> None:
        settings, hop = weights.settings, weights.hop_length
        self.weights, self.head, self.batch, self.hop = weights, head, batch, hop
        self.channels = settings.residual_channels
        self.width = R = weights.input.matrix.shape[1]  # of the same, in vectors
        S, C = weights.hidden.matrix.shape[0], weights.projection.matrix.shape[0]
        self.taps = settings.kernel_size
        new = weights.projection.matrix.new_zeros
        layers = weights.layers
        self.contexts = [(self.taps - 1) * layer.dilation for layer in layers]
        self.rows = [new(c + hop, batch, R + S) for c in self.contexts]
        self.gates = new(len(layers), hop, batch, 2 * R)
        self.answers = new(hop, batch, weights.output.matrix.shape[1])
        self.parameters = self.answers[:, :, : head.parameters]
        self.order = settings.prediction_order
        self.past = max(self.order, 1)
        self.levels = new(batch, self.past + hop)  # of the frame, behind the last ones before it
        self.longest = max(settings.longest_lag, 1)
        self.lags = self.longest - shortest_lag(self.longest) + 1 if settings.longest_lag else 0
        self.residuals = new(batch, self.longest + hop)  # likewise
        self.lag_weights = new(batch, self.lags)
        self.gain = new(batch)
        self.coefficients = new(batch, self.order, 1)
        self.scale = new(batch)
        self.before = new(batch, 1, C)
        self.heard = self.before[:, :, : settings.condition.channels]
        self.mel_rings = [
            new(
                batch,
                settings.condition.kernel_size - 1,
                len(conv.matrix) // settings.condition.kernel_size,
            )
            for conv in weights.mel
        ]
        self.z = new(batch, 1, R + 1)
        self.z[:, :, R] = 1.0
        self.skip = new(batch, 1, S)
        self.ramp = linear_ramp(hop, self.gates.device)[:, None, None]
        wide = Affine(
            torch.nn.functional.pad(weights.input.matrix, (0, S)),
            torch.nn.functional.pad(weights.input.bias, (0, S)),
        )
        self.input, self.hidden, self.output = (
            (self._each(part.matrix), part.bias.expand(batch, 1, -1))
            for part in (wide, weights.hidden, weights.output)
        )
        self.runs = [self._runs(t) for t in range(hop)]
        self.steps = [self._steps(t) for t in range(hop)]
        self.firsts = [self.rows[0][self.contexts[0] + t].unsqueeze(1) for t in range(hop)]
        self.outs = [row.unsqueeze(1) for row in self.answers]

    def load(self, state: StreamState) -> None:
        """Copy what the streams remember; each may have its own clock."""
        number = state.clock // self.hop + state.view("ahead")[:, 0, 0].long()
        for i, ring in enumerate(self.mel_rings):
            history = state.history(f"mel.{i}", number)
            ring[:, :, : history.shape[2]] = history
        for i, (rows, context) in enumerate(zip(self.rows, self.contexts, strict=True)):
            rows[:context, :, : self.channels] = state.history(f"layers.{i}").transpose(0, 1)
        self.levels[:, : self.past] = state.history("level")[:, :, 0]
        if self.order:
            self.residuals[:, : self.longest] = state.history("residual")[:, :, 0]
        self.heard.copy_(state.view("condition"))

    def store(self, state: StreamState) -> None:
        """Write back; `state.clock` and `ahead` already stand at the new time."""
        number = state.clock // self.hop + state.view("ahead")[:, 0, 0].long()
        for i, ring in enumerate(self.mel_rings):
            width = state.layout.entry(f"mel.{i}").channels
            state.push(f"mel.{i}", ring[:, :, :width], number - ring.shape[1])
        for i, (rows, context) in enumerate(zip(self.rows, self.contexts, strict=True)):
            history = rows[:context, :, : self.channels].transpose(0, 1)
            state.push(f"layers.{i}", history, state.clock - context)
        state.push("level", self.levels[:, : self.past, None], state.clock - self.past)
        if self.order:
            residuals = self.residuals[:, : self.longest, None]
            state.push("residual", residuals, state.clock - self.longest)
        state.view("condition").copy_(self.heard)

    def hear(self, frame: Tensor, speaker: Tensor | None) -> Tensor:
        """Run the mel network for one frame [batch, bands]; return its output [batch, 1, C]."""
        x = ((frame - self.weights.mel_silence) / self.weights.mel_scale).unsqueeze(1)
        for i, conv in enumerate(self.weights.mel):
            taps = torch.cat([self.mel_rings[i], x], dim=1)
            self.mel_rings[i].copy_(taps[:, 1:])
            x = affine(taps.flatten(1).unsqueeze(1), conv).relu_()
        if self.weights.speakers is not None:
            x += self.weights.speakers[speaker].unsqueeze(1)
        return x

    def condition(self, now: Tensor) -> None:
        """Fill the gates of a frame with condition and bias, and make its predictor."""
        weights, layers = self.weights, len(self.weights.layers)
        if weights.predictor is not None:
            projected = affine(now, weights.predictor)[:, :, : self.order + 1]
            coefficients, scale = predictor_of(projected)
            self.coefficients.copy_(coefficients.transpose(1, 2))
            self.scale.copy_(scale[:, 0, 0])
        if weights.pitch is not None:
            lags, gain = lag_weights(affine(now, weights.pitch)[:, :, : self.lags + 1])
            self.lag_weights.copy_(lags[:, 0])
            self.gain.copy_(gain[:, 0, 0])
        both = torch.cat([self.before, now], dim=1)
        self.before.copy_(now)
        if weights.upsample is not None:
            both = affine(both.flatten(1).unsqueeze(1), weights.upsample)
            both = both.view(self.batch, self.hop, -1)
        own = affine(both, weights.projection).unflatten(2, (layers, -1)).permute(2, 1, 0, 3)
        if weights.upsample is not None:
            self.gates.copy_(own)
        elif weights.settings.condition.upsampling == "nearest":
            self.gates.copy_(own[:, 1:])
        else:
            torch.mul(own[:, 1:] - own[:, :1], self.ramp, out=self.gates)
            self.gates.add_(own[:, :1])

    def generate(self, noise: Tensor, temperature: float, forced: Tensor | None) -> Tensor:
        """Go through the samples of a frame, filling `parameters`; return its levels.

        Args:
            noise: [batch, hop, draws of the head].
            temperature: Of the head.
            forced: [batch, hop], the levels to take instead of drawing them, or None.

        Returns:
            [batch, hop].
        """
        head, skip, z, past = self.head, self.skip, self.z, self.past
        level, result = self.levels[:, past - 1], self.levels[:, past:]
        residuals = self.residuals[:, self.longest :]
        inner = z[:, :, : self.width]
        (w_input, b_input), (w_hidden, b_hidden) = self.input, self.hidden
        w_output, b_output = self.output
        for t in range(self.hop):
            if self.order:
                features = residual_features(self.residuals[:, t + self.longest - 1])
                window = self.levels[:, t : t + past].unsqueeze(1)
                prediction = short = torch.bmm(window, self.coefficients)[:, 0, 0]
                if self.lags:
                    window = self.residuals[:, t : t + self.lags]
                    repeated = (window * self.lag_weights).sum(1, keepdim=True)
                    prediction = short + self.scale * self.gain * repeated[:, 0]
                    features = torch.cat([features, repeated], dim=1)
            else:
                features = head.features(level)
            torch.baddbmm(b_input, features.unsqueeze(1), w_input, out=self.firsts[t])
            for taps, weight, gates in self.runs[t]:
                gates += torch.bmm(taps, weight).transpose(0, 1)
            for gate, filtered, opened, x, weight, row, out, after in self.steps[t]:
                torch.baddbmm(gate, x, weight, out=gate)
                torch.tanh(gate, out=gate)
                torch.addcmul(filtered, filtered, opened, out=inner)
                torch.baddbmm(row, z, out, out=after)
            hidden = torch.baddbmm(b_hidden, skip.relu_(), w_hidden).relu_()
            torch.baddbmm(b_output, hidden, w_output, out=self.outs[t])
            parameters = self.parameters[t]
            if self.order:
                assert isinstance(head, LinearLevels), "settings allow no other head"
                parameters.copy_(head.relocate(parameters, prediction, self.scale))
            if forced is None:
                level = head.sample(parameters, noise[:, t], temperature)
            else:
                level = forced[:, t]
            if self.order:
                torch.div(level - short, self.scale, out=residuals[:, t])
            result[:, t] = level
        levels = result.clone()
        self.levels[:, :past] = self.levels[:, self.hop :].clone()
        self.residuals[:, : self.longest] = self.residuals[:, self.hop :].clone()
        for rows, context in zip(self.rows, self.contexts, strict=True):
            kept = rows[self.hop : self.hop + context, :, : self.width]
            rows[:context, :, : self.width] = kept if context <= self.hop else kept.clone()
        return levels

    def _each(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self.batch, -1, -1)

    def _steps(self, t: int) -> list[tuple[Tensor, ...]]:
        """Views of each layer at sample `t`: gate and its halves, x and the newest tap, output."""
        R = self.width
        steps: list[tuple[Tensor, ...]] = []
        for i, layer in enumerate(self.weights.layers):
            gate = self.gates[i, t].unsqueeze(1)
            row = self.rows[i][self.contexts[i] + t].unsqueeze(1)
            last = i + 1 == len(self.rows)
            steps.append(
                (
                    gate,
                    gate[:, :, :R],
                    gate[:, :, R:],
                    row[:, :, :R],
                    self._each(layer.gate[-R:]),
                    row[:, :, R:] if last else row,
                    self._each(torch.cat([layer.out.matrix, layer.out.bias[None]])),
                    self.skip if last else self.rows[i + 1][self.contexts[i + 1] + t].unsqueeze(1),
                )
            )
        return steps

    def _runs(self, t: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Older taps whose next run begins at sample `t`: inputs, weight, gates of the run."""
        R, runs = self.width, []
        for i, layer in enumerate(self.weights.layers):
            for tap in range(self.taps - 1):
                offset = (self.taps - 1 - tap) * layer.dilation
                if t % offset:
                    continue
                end = min(t + offset, self.hop)
                begin = self.contexts[i] - offset
                taps = self.rows[i][begin + t : begin + end, :, :R].transpose(0, 1)
                weight = self._each(layer.gate[tap * R : (tap + 1) * R])
                runs.append((taps, weight, self.gates[i, t:end]))
        return runs
