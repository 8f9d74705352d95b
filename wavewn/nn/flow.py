"""One way to write a generator, three ways to run it.

A generator is a function of rows: convolutions, upsamplings, sums of branches, overlap-add. It is
written once, against a `Flow`, and then runs

- whole, for training and export (`Flow()`): the utterance begins and ends with the call;
- in chunks (`Flow(memory)`): each call hears some rows more and gives what they determine;
- without numbers (nn/latency.py): only the numbers of rows go through. That is interval
  arithmetic, and tells how much a stream has to remember and how far it lags.

Every `Rows` knows the absolute numbers of its rows. An operation gives those outputs that its
inputs up to now determine and not yet given; what lies outside the utterance comes from its own
padding. Branches that lag differently are joined by `align`, which holds back the faster one.

What is remembered are the newest rows that each operation has heard, oldest first, the newest last
in its entry: how many of them count follows from the numbers of the rows. (WaveNet's rings are
indexed by row number instead, because a ring of one row a sample may not be moved every sample; a
chunk here brings many rows, and an exported graph needs no arithmetic on slots.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.errors import ShapeError
from wavewn.nn.layout import interleave, is_innermost, repeat
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a signal.

    Attributes:
        data: [batch, channels, rows]; None where only numbers of rows go through.
        channels: Of each row.
        start: Number of the first row since the utterance began.
        end: Number of the row after the last.
        ended: Whether the utterance ends here.
    """

    data: Tensor | None
    channels: int
    start: int
    end: int
    ended: bool

    @staticmethod
    def of(data: Tensor, start: int = 0, ended: bool = True) -> "Rows":
        """Number the rows of [batch, channels, rows]; by default they are the whole utterance."""
        return Rows(data, data.shape[1], start, start + data.shape[2], ended)

    def map(self, function: Callable[[Tensor], Tensor], channels: int | None = None) -> "Rows":
        """Apply what treats each row by itself; `channels` where it changes their number."""
        data = None if self.data is None else function(self.data)
        return Rows(data, channels or self.channels, self.start, self.end, self.ended)

    def repeat(self, factor: int) -> "Rows":
        """Give each row `factor` times: nearest upsampling."""
        data = None if self.data is None else repeat(self.data, factor)
        return Rows(data, self.channels, self.start * factor, self.end * factor, self.ended)

    def interleave(self, factor: int) -> "Rows":
        """Split the channels of each row into `factor` rows, one after another."""
        data = self.data
        if data is not None:
            data = interleave(data, factor)
        channels = self.channels // factor
        return Rows(data, channels, self.start * factor, self.end * factor, self.ended)

    @property
    def whole(self) -> Tensor:
        """The data, where there must be some."""
        assert self.data is not None, "only numbers of rows went through"
        return self.data


def mel_rows(mel: Tensor, n_mels: int) -> Rows:
    """Number the frames of a whole mel.

    Raises:
        ShapeError: Not [batch, n_mels, frames].
    """
    if mel.dim() != 3 or mel.shape[1] != n_mels:
        raise ShapeError(f"mel must be [batch, {n_mels} bands, frames], got {list(mel.shape)}")
    return Rows.of(mel)


@dataclass
class Flow:
    """Runs the operations of a generator, in the order in which it calls them.

    Attributes:
        memory: By entry: [batch, rows, channels], updated in place; None to run whole. An entry
            that never holds a row may be missing.
        shapes: Of the entries that were met: (rows, channels); noted where there is no memory.
        taken: By entry: (rows, channels) that this run took out of it, fewer than it can hold where
            the utterance has just begun; likewise.
        calls: Entries that were named until now.
    """

    memory: Mapping[str, Tensor] | None = None
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    calls: int = 0

    def conv(self, layer: nn.Module, x: Rows) -> Rows:
        """Filter by a `PaddedConv1d`, with its own padding at the ends of the utterance."""
        assert isinstance(layer, PaddedConv1d), "another kind of layer"
        assert x.channels == layer.in_channels, "rows of another width"
        if x.ended:
            self._check_length(layer, x)
        first, last = layer.determined(x.start, False), layer.determined(x.end, x.ended)
        kept = x.start - max(first - layer.left, 0)
        data = self._join(x, kept, layer.left + layer.right)
        if data is not None:
            left, right = max(layer.left - first, 0), max(last + layer.right - x.end, 0)
            data = self._filtered(layer, data, (left, right), first, last)
        return Rows(data, layer.out_channels, first, last, x.ended)

    def upsample(self, layer: nn.Module, x: Rows) -> Rows:
        """Filter by an `UpsamplingConv1d`; an input row becomes `stride` rows."""
        assert isinstance(layer, UpsamplingConv1d), "another kind of layer"
        assert x.channels == layer.in_channels, "rows of another width"
        first, last = layer.determined(x.start, False), layer.determined(x.end, x.ended)
        oldest = layer.oldest_input(first)
        data = self._join(x, x.start - min(oldest, x.start), layer.reach)
        if data is not None:
            begin = first + layer.crop - min(oldest, x.start) * layer.rate
            data = self._upsampled(layer, data, begin, first, last)
        return Rows(data, layer.out_channels, first, last, x.ended)

    def align(self, *branches: Rows) -> tuple[Rows, ...]:
        """Hold back what some branches have given and others not yet."""
        start, end = min(x.start for x in branches), min(x.end for x in branches)
        ended = all(x.ended for x in branches)
        assert not ended or all(x.end == end for x in branches), "branches of other lengths"
        aligned = []
        for x in branches:
            data = self._join(x, x.start - start, x.end - end)
            if data is not None and x.end > end:
                data = data[:, :, : end - start]
            aligned.append(Rows(data, x.channels, start, end, ended))
        return tuple(aligned)

    def add(self, *branches: Rows) -> Rows:
        """Sum branches of one width, in the order given."""
        total, *others = self.align(*branches)
        data = total.data
        if data is not None:
            for other in others:
                data = data + other.whole
        return Rows(data, total.channels, total.start, total.end, total.ended)

    def frames(self, x: Rows, length: int, hop: int) -> Rows:
        """Cut one channel into the last `length` rows at the end of every `hop`; zeros before."""
        assert x.channels == 1 and x.start % hop == 0 and x.end % hop == 0, "not whole hops"
        before = length - hop
        data = self._join(x, min(x.start, before), before)
        if data is not None:
            data = F.pad(data, (max(before - x.start, 0), 0))
            if x.end > x.start:
                data = data[:, 0].unfold(1, length, hop).transpose(1, 2)
            else:
                data = data.new_zeros(data.shape[0], length, 0)
        return Rows(data, length, x.start // hop, x.end // hop, x.ended)

    def windows(self, x: Rows, length: int, hop: int, left: int) -> Rows:
        """Cut one channel into the rows from i * hop - left on; beyond the ends it is reflected.

        An utterance that is shorter than a window is reflected as often as it takes.
        """

        def determined(rows: int, ended: bool) -> int:
            if ended:
                return rows // hop
            return max((rows - length + left) // hop + 1, 0) if rows > left else 0

        assert x.channels == 1 and length >= hop, "windows would leave gaps"
        first, last = determined(x.start, False), determined(x.end, x.ended)
        start = max(first * hop - left, 0)
        data = self._join(x, x.start - start, x.end - max(last * hop - left, 0))
        if data is not None and last > first:
            begin, end = first * hop - left, (last - 1) * hop - left + length
            if begin < 0 or end > x.end:
                place = torch.arange(begin, end, device=data.device).abs()
                if x.ended:  # a tensor, because ONNX divides by no symbol
                    newest = torch.scalar_tensor(x.end - 1, dtype=torch.int64, device=data.device)
                    period = (2 * newest).clamp(min=1)
                    place = place.remainder(period)
                    place = torch.minimum(torch.minimum(place, period - place), newest)
                data = data[:, :, place - start]
            else:
                data = data[:, :, begin - start : end - start]
            data = data[:, 0].unfold(1, length, hop).transpose(1, 2)
        elif data is not None:
            data = data.new_zeros(data.shape[0], length, 0)
        return Rows(data, length, first, last, x.ended)

    def overlap_add(self, x: Rows, hop: int, crop: int) -> Rows:
        """Add the rows of `x`, as signals of `x.channels` samples that start every `hop`.

        The first `crop` samples and what follows the last frame's hop after them are dropped.
        """
        overlap = x.channels - hop
        assert x.channels % hop == 0 and 0 <= crop <= overlap, "frames must be whole hops"
        name = self._entry(overlap, 1)
        first = max(x.start * hop - crop, 0)
        last = x.end * hop if x.ended else max(x.end * hop - crop, 0)
        if x.data is None:
            return Rows(None, 1, first, last, x.ended)
        batch, length, frames = x.data.shape
        total = x.data.new_zeros(batch, (frames + length // hop - 1) * hop)
        past = self.memory[name][:, :, 0] if self.memory is not None and overlap else None
        if past is not None:
            total[:, :overlap] += past
        for segment in range(length // hop - 1, -1, -1):  # the oldest frame first
            part = x.data[:, segment * hop : (segment + 1) * hop].transpose(1, 2)
            total[:, segment * hop : (segment + frames) * hop] += part.reshape(batch, -1)
        if past is not None:
            past[:] = total[:, frames * hop :]
        begin = first + crop - x.start * hop
        return Rows(total[:, None, begin : begin + last - first], 1, first, last, x.ended)

    def accumulate(self, x: Rows) -> Rows:
        """Give the sum of the rows up to each one, modulo 1.

        Rows are float64 and multiples of 2**-20, so that sums are exact however they are cut.
        """
        name = self._entry(1, x.channels)
        if x.data is None:
            return x
        total = x.data.cumsum(dim=2)
        if self.memory is not None:
            total = total + self.memory[name].transpose(1, 2).double()
        total = total.remainder(1.0)
        if self.memory is not None and x.end > x.start:
            self.memory[name][:, 0] = total[:, :, -1]
        return Rows(total, x.channels, x.start, x.end, x.ended)

    def _filtered(
        self, layer: PaddedConv1d, data: Tensor, pads: tuple[int, int], first: int, last: int
    ) -> Tensor:
        """Filter what was joined, padded by so many rows; give rows `first` to `last`."""
        return layer(data, *pads) if last > first else layer.nothing(data)

    def _upsampled(
        self, layer: UpsamplingConv1d, data: Tensor, begin: int, first: int, last: int
    ) -> Tensor:
        """Upsample what was joined, likewise, from the output `begin` of its first row on."""
        return layer(data, begin, last - first) if last > first else layer.nothing(data)

    def _join(self, x: Rows, kept: int, capacity: int) -> Tensor | None:
        """Put the newest `kept` rows remembered before `x`; remember the newest `capacity`."""
        name = self._entry(capacity, x.channels, kept)
        past = None if self.memory is None else self.memory.get(name)
        if x.data is None or past is None:
            assert x.data is None or self.memory is None or not kept, "no memory of that entry"
            return x.data
        held, data = past.shape[1], x.data.transpose(1, 2)
        if kept:
            older = past if kept == held else past[:, held - kept :]
            if older.dtype != data.dtype:
                older = older.to(data.dtype)
            if is_innermost(x.data):
                data = torch.cat([older, data], dim=1)
            else:  # the same, laid as `x` is
                data = torch.cat([older.transpose(1, 2), x.data], dim=2).transpose(1, 2)
        if held and data.shape[1]:  # what is older than this is not asked for again
            newest = data[:, -held:]
            past[:, held - newest.shape[1] :] = newest
        return data.transpose(1, 2)

    def _entry(self, rows: int, channels: int, taken: int | None = None) -> str:
        """Name the next entry; without a memory, note the most that it has to hold."""
        name = f"flow.{self.calls}"
        self.calls += 1
        if self.memory is None:
            known = self.shapes.get(name, (0, channels))
            self.shapes[name] = (max(known[0], rows), channels)
            self.taken[name] = (rows if taken is None else taken, channels)
        return name

    @staticmethod
    def _check_length(layer: PaddedConv1d, x: Rows) -> None:
        needed = layer.shortest
        if x.end < needed:
            raise ShapeError(
                f"the utterance is too short: a layer that pads by {layer.padding_mode_name} needs "
                f"{needed} rows and has {x.end}; give more mel frames"
            )
