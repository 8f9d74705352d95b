"""Device code, compiled on the user's machine: what to compile, and what launches it.

The sources lie in csrc/cuda. They are specialised for a model: every size is a macro.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class KernelSource:
    """One specialisation of the device code.

    Attributes:
        defines: Macros and their values, sorted by name: the model's sizes, the precision, the
            streams of a block.
        threads: Of a block.
        shared_bytes: Dynamic shared memory of a block.
    """

    defines: tuple[tuple[str, int | float | str], ...]
    threads: int
    shared_bytes: int


class Launcher(Protocol):
    """One compiled kernel."""

    def __call__(self, blocks: int, arguments: Sequence[Tensor | int | float]) -> None:
        """Enqueue the kernel on torch's current stream; returns before it has run.

        Args:
            blocks: Of the grid.
            arguments: In the order of the kernel's signature; a tensor is passed as the pointer to
                its data, an int as int64, a float as float32.
        """
