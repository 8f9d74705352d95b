"""What a batch of streams remembers between two chunks: a value that the caller owns.

A `StateLayout` names the entries of a state and says where they lie: rings of past
layer inputs, delays, overlaps, carries. A `StreamState` holds one float32 row of
`layout.size` numbers for each stream, and beside it each stream's own clock, seed and
stream id. Modules and engines keep nothing, so that clone, reset, save and moving to
another device are plain tensor copies.

Every entry starts at a multiple of 16 floats (a cache line); its rows are frames, channels
innermost; frame n of a ring of R rows lies in slot n mod R. Each stream has its own clock.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import Tensor

from wavewn.errors import StateError

ALIGNMENT = 16  # floats


@dataclass(frozen=True)
class Entry:
    """One named block of a state: `rows` frames of `channels` floats from `offset` on."""

    name: str
    offset: int
    rows: int
    channels: int


@dataclass(frozen=True)
class StateLayout:
    """Where the entries lie in a row of the state's buffer of `size` floats; see `of`."""

    entries: tuple[Entry, ...]
    size: int

    @staticmethod
    def of(shapes: Iterable[tuple[str, int, int]]) -> StateLayout:
        """Lay out entries (name, rows >= 0, channels >= 1) one after another."""
        entries: dict[str, Entry] = {}
        offset = 0
        for name, rows, channels in shapes:
            if name in entries:
                raise StateError(f"the state has two entries named {name!r}; give each its own")
            if rows < 0 or channels < 1:
                got = f"got {rows} and {channels}"
                raise StateError(f"entry {name!r} must have rows >= 0 and channels >= 1, {got}")
            entries[name] = Entry(name, offset, rows, channels)
            offset += -(-rows * channels // ALIGNMENT) * ALIGNMENT
        return StateLayout(tuple(entries.values()), offset)

    def entry(self, name: str) -> Entry:
        """Return the entry of this name, or raise StateError."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self.entries)
        raise StateError(f"the state has no entry {name!r}; it has: {names}")

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 over names, offsets and shapes."""
        return hashlib.sha256(repr((self.entries, self.size)).encode()).digest()


@dataclass(eq=False)
class StreamState:
    """Memory of a batch of streams, updated in place by whoever runs them.

    Every method that returns a state copies: no two states share memory.

    Attributes:
        layout: Where the entries lie in a row of `buffer`.
        buffer: [batch, layout.size] float32, contiguous.
        clock: [batch] int64, samples that each stream has produced since it began.
        seed: [batch] int64, the 64 bits of each stream's seed.
        stream: [batch] int64, each stream's number under its seed, below 2**32.
    """

    layout: StateLayout
    buffer: Tensor
    clock: Tensor
    seed: Tensor
    stream: Tensor
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check what was passed in."""
        self.check()

    def check(self) -> None:
        """Raise StateError unless every tensor has the shape and dtype above, contiguous."""
        batch = self.buffer.shape[0] if self.buffer.dim() else 0
        _check("buffer", self.buffer, (batch, self.layout.size), torch.float32, self.buffer.device)
        for name in ("clock", "seed", "stream"):
            _check(name, getattr(self, name), (batch,), torch.int64, self.buffer.device)

    @staticmethod
    def zeros(
        layout: StateLayout,
        batch: int,
        seed: int | Sequence[int] | Tensor = 0,
        streams: Sequence[int] | Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> StreamState:
        """Start streams from silence.

        Args:
            layout: What the model remembers.
            batch: Number of streams, at least 1.
            seed: One for all or one for each, 0 to 2**64 - 1 (a tensor: its int64 bits).
            streams: Ids, 0 to batch - 1 by default: one seed and id, one and the same noise.
            device: Where the state shall live, the CPU by default.
        """
        if batch < 1:
            raise StateError(f"a state needs at least one stream, got batch {batch}")
        buffer = torch.zeros(batch, layout.size, dtype=torch.float32, device=device)
        clock = torch.zeros(batch, dtype=torch.int64, device=device)
        ids = _stream_ids(range(batch) if streams is None else streams, clock)
        return StreamState(layout, buffer, clock, _seeds(seed, clock), ids)

    @property
    def batch(self) -> int:
        """Number of streams."""
        return self.buffer.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.buffer.device

    def view(self, name: str) -> Tensor:
        """Return an entry as [batch, rows, channels]: no copy, writing to it writes the state."""
        entry = self.layout.entry(name)
        flat = self.buffer[:, entry.offset : entry.offset + entry.rows * entry.channels]
        return flat.view(self.batch, entry.rows, entry.channels)

    def history(self, name: str, frame: Tensor | None = None) -> Tensor:
        """Read a ring of R rows as [batch, R, channels], oldest frame first (a copy).

        `frame`, [batch] int64, is the first one not yet in the ring; `clock` by default.
        """
        ring = self.view(name)
        slots = self._slots(frame, 0, ring.shape[1], ring.shape[1])
        return ring.gather(1, slots[:, :, None].expand_as(ring))

    def push(self, name: str, x: Tensor, frame: Tensor | None = None) -> None:
        """Write `x`, [batch, frames, channels], into a ring; the clock stays as it is.

        `frame`, [batch] int64, is the number of the first one in `x`; `clock` by default.
        """
        ring = self.view(name)
        rows, frames = ring.shape[1], x.shape[1]
        assert x.shape == (self.batch, frames, ring.shape[2]), "a chunk of another shape"
        kept = min(rows, frames)
        slots = self._slots(frame, frames - kept, kept, rows)[:, :, None]
        ring.scatter_(1, slots.expand(-1, -1, ring.shape[2]), x[:, frames - kept :].to(ring.dtype))

    def clone(self) -> StreamState:
        """Branch the streams: both copies go on from here on their own."""
        return StreamState(self.layout, *(value.clone() for value in self._tensors().values()))

    def to(self, device: torch.device | str) -> StreamState:
        """Copy the state to a device (a copy even if it is there already)."""
        copies = (value.to(device, copy=True) for value in self._tensors().values())
        return StreamState(self.layout, *copies)

    def select(self, rows: Sequence[int] | Tensor) -> StreamState:
        """Copy some streams, in this order, into a state of their own."""
        index = torch.as_tensor(rows, device=self.device)
        listed = index.dtype == torch.int64 and index.dim() == 1 and len(index) > 0
        if not listed or bool(((index < 0) | (index >= self.batch)).any()):
            raise StateError(f"rows must be a list of numbers in 0 to {self.batch - 1}, got {rows}")
        return StreamState(self.layout, *(value[index] for value in self._tensors().values()))

    def reset(
        self,
        mask: Tensor,
        seed: int | Sequence[int] | Tensor | None = None,
        streams: Sequence[int] | Tensor | None = None,
    ) -> None:
        """Start some streams anew, in place; the others do not notice.

        Args:
            mask: [batch] bool, True for the streams that start again.
            seed: As in `zeros`, used under the mask; None keeps the old: the same noise again.
            streams: New stream ids, likewise.
        """
        if mask.dtype != torch.bool or mask.shape != (self.batch,):
            got = f"{mask.dtype} {list(mask.shape)}"
            raise StateError(f"mask must be bool [{self.batch}], got {got}")
        mask = mask.to(self.device)
        seeds = self.seed if seed is None else _seeds(seed, self.clock)
        ids = self.stream if streams is None else _stream_ids(streams, self.clock)
        self.buffer.masked_fill_(mask[:, None], 0.0)
        self.clock.masked_fill_(mask, 0)
        self.seed.copy_(torch.where(mask, seeds, self.seed))
        self.stream.copy_(torch.where(mask, ids, self.stream))

    def state_dict(self) -> dict[str, Tensor]:
        """Copy everything into a dictionary of tensors, the layout's fingerprint with it."""
        saved = {name: value.clone() for name, value in self._tensors().items()}
        saved["layout"] = torch.tensor(list(self.layout.fingerprint), dtype=torch.uint8)
        return saved

    @staticmethod
    def from_state_dict(
        layout: StateLayout, saved: Mapping[str, Tensor], device: torch.device | str | None = None
    ) -> StreamState:
        """Restore a state from what `state_dict` gave (a copy).

        The fingerprint tells layouts apart, not the weights of one architecture.

        Raises:
            StateError: A key is missing or unknown, a tensor has a wrong shape or dtype, the
                layout is another one, or a number is NaN, infinite or out of range.
        """
        names = ("buffer", "clock", "seed", "stream", "layout")
        for name in names:
            if not isinstance(saved.get(name), Tensor):
                raise StateError(f"the saved state has no tensor {name!r}; was it cut or edited?")
        if unknown := set(saved) - set(names):
            raise StateError(f"the saved state has unknown keys: {sorted(unknown)}")
        if saved["layout"].tolist() != list(layout.fingerprint):
            raise StateError("the saved state is of another model: its layout is not this one's")
        where = saved["buffer"].device if device is None else device
        state = StreamState(layout, *(saved[name].to(where, copy=True) for name in names[:4]))
        if bool((state.clock < 0).any()):
            raise StateError(f"the saved clock must not be negative: {state.clock.tolist()}")
        if not bool(state.buffer.isfinite().all()):
            raise StateError("the saved buffer holds NaN or infinite values; reset these streams")
        _stream_ids(state.stream, state.clock)
        return state

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the state for one call; a second user gets a StateError, he does not wait."""
        if not self._lock.acquire(blocking=False):
            raise StateError("state is already in use by another call; give each its own")
        try:
            yield
        finally:
            self._lock.release()

    def _tensors(self) -> dict[str, Tensor]:
        """All that changes, in the order of the constructor."""
        return {name: getattr(self, name) for name in ("buffer", "clock", "seed", "stream")}

    def _slots(self, frame: Tensor | None, skip: int, count: int, rows: int) -> Tensor:
        """Slots [batch, count] of the frames `frame + skip` and on in a ring of `rows`."""
        first = (self.clock if frame is None else frame)[:, None] + skip
        return (first + torch.arange(count, device=self.device)) % max(rows, 1)


def _check(
    name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Raise StateError unless the tensor is contiguous and as said."""
    if value.shape != shape or value.dtype != dtype or value.device != device:
        raise StateError(
            f"{name} of a state must be {dtype} {list(shape)} on {device}, "
            f"got {value.dtype} {list(value.shape)} on {value.device}"
        )
    if not value.is_contiguous():
        raise StateError(f"{name} of a state must be contiguous in memory")


def _seeds(seed: int | Sequence[int] | Tensor, clock: Tensor) -> Tensor:
    """Return seeds as int64 [batch], like `clock`; 2**63 and above become negative numbers."""
    if isinstance(seed, Tensor):
        _check("seed", seed, tuple(clock.shape), torch.int64, seed.device)
        return seed.to(clock.device, copy=True)
    each = seed if isinstance(seed, Sequence) else [seed] * len(clock)
    values = _checked("seed", each, clock, 64)
    return clock.new_tensor([value - 2**64 if value >= 2**63 else value for value in values])


def _stream_ids(streams: Sequence[int] | Tensor, clock: Tensor) -> Tensor:
    """Return stream ids as int64 [batch], like `clock`."""
    values = streams.tolist() if isinstance(streams, Tensor) else streams
    return clock.new_tensor(_checked("streams", values, clock, 32))


def _checked(name: str, values: Sequence[int], clock: Tensor, bits: int) -> list[int]:
    """Raise StateError unless there is one unsigned number for each stream."""
    right = all(isinstance(value, Integral) and 0 <= value < 2**bits for value in values)
    if right and len(values) == len(clock):
        return [int(value) for value in values]
    wanted = "a whole number" if len(clock) == 1 else f"{len(clock)} whole numbers"
    raise StateError(f"{name} must be {wanted} in 0 to 2**{bits} - 1, got {list(values)}")
