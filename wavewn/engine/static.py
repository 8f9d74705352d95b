"""Static caches: what a WaveNet's samples are made in (steps.py), always at the same addresses.

A layer's values of one sample lie in a row, and the rows of all layers, with one before them for
the input, side by side:

    rows [batch, layers + 1, ...] = [a (2R) | x (R) | z (R) | 1 | x'_old (K - 1) R]
    written by the product before    ----------------
    read by the product for the next row      --------------------------------------

Rings lie as in StreamState: slot = number mod length. Where a stream stands is in `clock`.
"""

import torch
from torch import Tensor

from wavewn.engine.folded import ONES, FoldedWeights
from wavewn.engine.weights import WaveNetWeights
from wavewn.models.heads import Head
from wavewn.nn.linear_prediction import shortest_lag
from wavewn.nn.upsample import linear_ramp
from wavewn.state import StreamState

NEVER = 2**62  # a sample that no call reaches


class Caches:
    """Memory of so many streams; holds nothing between two calls.

    `load`, then for each mel frame put it into `mel` and `hear`; when its audio is due, put `noise`
    or the `forced` levels there, `condition`, and `advance` by all its samples, after which its
    `drawn` levels and `parameters` are complete; then `store`. All of them only enqueue work.

    Args:
        weights: Halved and aligned.
        folded: The same, folded.
        head: Of the model.
        batch: Streams.
        most: Samples of one `advance` at most.

    Attributes:
        mel: [batch, bands].
        speaker: [batch] int64.
        noise: [batch, hop, draws of the head].
        forced: [batch, hop].
        drawn: Levels [batch, hop].
        parameters: [hop, batch, parameters of the head].
        broken: [batch] int64, the first sample since `load` that is not a number, or NEVER.
    """

    def __init__(
        self, weights: WaveNetWeights, folded: FoldedWeights, head: Head, batch: int, most: int
    ) -> None:
        settings, hop = weights.settings, weights.hop_length
        self.weights, self.folded, self.head, self.batch = weights, folded, head, batch
        self.channels, self.width = settings.residual_channels, weights.input.matrix.shape[1]
        self.taps, self.order = settings.kernel_size, settings.prediction_order
        new, device = weights.input.matrix.new_zeros, weights.input.matrix.device
        R, C, S = self.width, weights.projection.matrix.shape[0], folded.skip.shape[1]
        condition = settings.condition

        self.clock = torch.zeros(batch, dtype=torch.int64, device=device)
        self.sample, self.count = (self.clock.new_zeros(1) for _ in range(2))  # of frame, of call
        self.broken = torch.full_like(self.clock, NEVER)
        self.steps = torch.arange(most, device=device)

        self.mel, self.speaker = new(batch, weights.n_mels), torch.zeros_like(self.clock)
        self.noise = new(batch, hop, len(head.noise))
        self.forced, self.drawn = new(batch, hop), new(batch, hop)
        self.parameters = new(hop, batch, head.parameters)

        self.mel_rings = [
            new(batch, condition.kernel_size - 1, len(conv.matrix) // condition.kernel_size)
            for conv in weights.mel
        ]
        self.before, self.now = new(batch, 1, C), new(batch, 1, C)
        self.smooth = new(batch, hop if weights.upsample is not None else 0, C)
        self.base, self.slope = (new(batch, len(weights.layers), 3 * R) for _ in range(2))
        self.ramp = linear_ramp(hop, device)[:, None, None]

        self.past, self.longest = max(self.order, 1), max(settings.longest_lag, 1)
        self.levels, self.level = new(batch, self.past + most), new(batch)
        self.residuals = new(batch, self.longest + most)
        self.coefficients, self.scale = new(batch, self.past, 1), new(batch)
        self.lags = self.longest - shortest_lag(self.longest) + 1 if settings.longest_lag else 0
        self.lag_weights, self.gain = new(batch, self.lags), new(batch)

        self._make_rings()
        self._make_rows()
        self.skip, self.hidden = new(batch, 1, S + ONES), new(batch, 1, len(folded.output))
        self.skip[:, :, S] = self.hidden[:, :, -ONES] = 1.0
        self.answers = new(most, batch, 1, folded.output.shape[1])
        self.head_matrices = [
            matrix.expand(batch, -1, -1) for matrix in (folded.skip, folded.hidden, folded.output)
        ]

    def _make_rings(self) -> None:
        """Lay the rings of all layers one after another: [batch, slots, R]."""
        dilations = [layer.dilation for layer in self.weights.layers]
        lengths = self.clock.new_tensor([(self.taps - 1) * dilation for dilation in dilations])
        self.lengths, self.begins = lengths, lengths.cumsum(0) - lengths
        taps = torch.arange(self.taps - 1, device=lengths.device)[:, None, None, None]
        self.shifts = taps * self.clock.new_tensor(dilations)  # from the slot of the oldest tap
        slots = (self.taps - 1) * sum(dilations)
        self.rings = self.base.new_zeros(self.batch, slots, self.width)

    def _make_rows(self) -> None:
        """Make the rows and the views of them that each layer needs."""
        R, layers, folded = self.width, len(self.weights.layers), self.folded
        rows = self.base.new_zeros(self.batch, layers + 1, 2 * R + folded.layers.shape[1])
        rows[:, :, 4 * R] = 1.0
        self.addends, self.inputs = rows[:, 1:, : 3 * R], rows[:, 1:, 2 * R : 3 * R]
        self.features = rows[:, 0, 3 * R : 4 * R]
        old = 4 * R + ONES
        self.olds = [
            rows[:, :-1, old + tap * R : old + (tap + 1) * R] for tap in range(self.taps - 1)
        ]
        self.layers = []
        for i in range(layers):
            row = rows[:, i + 1 : i + 2]
            filtered, opened, _, z = row[:, :, : 4 * R].split(R, dim=2)
            out, gates = row[:, :, : 3 * R], row[:, :, : 2 * R]
            inputs = rows[:, i : i + 1, 2 * R :]
            matrix = folded.layers[i].expand(self.batch, -1, -1)
            self.layers.append((out, inputs, matrix, gates, filtered, opened, z))
        self.zs = rows[:, 1:, 3 * R : 4 * R]
        self.joined = self.base.new_zeros(self.batch, 1, layers * R + ONES)
        self.joined[:, :, layers * R] = 1.0
        self.joined_zs = self.joined[:, :, : layers * R].unflatten(2, (layers, R))[:, 0]

    def load(self, state: StreamState, speaker: Tensor | None) -> None:
        """Copy what the streams remember; each may have its own clock."""
        number = state.clock // self.weights.hop_length + state.view("ahead")[:, 0, 0].long()
        for i, ring in enumerate(self.mel_rings):
            history = state.history(f"mel.{i}", number)
            ring[:, :, : history.shape[2]] = history
        for mine, theirs in self._ring_pairs(state):
            mine.copy_(theirs)
        self.levels[:, : self.past] = state.history("level")[:, :, 0]
        self.level.copy_(self.levels[:, self.past - 1])
        if self.order:
            self.residuals[:, : self.longest] = state.history("residual")[:, :, 0]
        self.before[:, :, : self.weights.settings.condition.channels] = state.view("condition")
        self.clock.copy_(state.clock)
        self.count.zero_()
        self.broken.fill_(NEVER)
        if speaker is not None:
            self.speaker.copy_(speaker)

    def store(self, state: StreamState) -> None:
        """Write back; `state.clock` and `ahead` already stand at the new time."""
        number = state.clock // self.weights.hop_length + state.view("ahead")[:, 0, 0].long()
        for i, ring in enumerate(self.mel_rings):
            width = state.layout.entry(f"mel.{i}").channels
            state.push(f"mel.{i}", ring[:, :, :width], number - ring.shape[1])
        for mine, theirs in self._ring_pairs(state):
            theirs.copy_(mine)
        state.push("level", self.levels[:, : self.past, None], state.clock - self.past)
        if self.order:
            residuals = self.residuals[:, : self.longest, None]
            state.push("residual", residuals, state.clock - self.longest)
        heard = self.before[:, :, : self.weights.settings.condition.channels]
        state.view("condition").copy_(heard)

    def _ring_pairs(self, state: StreamState) -> list[tuple[Tensor, Tensor]]:
        """Each layer's ring here and in a state."""
        pairs, begin = [], 0
        for i in range(len(self.layers)):
            theirs = state.view(f"layers.{i}")
            end = begin + theirs.shape[1]
            pairs.append((self.rings[:, begin:end, : self.channels], theirs))
            begin = end
        return pairs
