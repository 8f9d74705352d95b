"""What a one-pass flow remembers: entries of the states' buffer, looked up by name."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from wavewn.state import Entry


class Memory(Mapping[str, Tensor]):
    """Views of a buffer, made where they are asked for.

    Args:
        buffer: [batch, numbers], contiguous; what is written to a view is written to it.
        entries: By name.
    """

    def __init__(self, buffer: Tensor, entries: Mapping[str, Entry]) -> None:
        self.buffer, self.entries = buffer, entries

    def __getitem__(self, name: str) -> Tensor:
        """Give an entry as [batch, rows, channels]."""
        entry = self.entries[name]
        end = entry.offset + entry.rows * entry.channels
        flat = self.buffer[:, entry.offset : end]
        return flat.view(len(self.buffer), entry.rows, entry.channels)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
