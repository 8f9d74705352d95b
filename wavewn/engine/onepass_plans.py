"""What was worked out once for a size of chunk, kept for the next chunk like it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

MOST_PLANS = 64  # a caller that pushes chunks of all sizes shall not fill the memory

Chunk = TypeVar("Chunk", bound=Hashable)
Plan = TypeVar("Plan")


class Plans(Generic[Chunk, Plan]):
    """Plans by what they are for, those used last; for several threads."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Chunk, Plan] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, chunk: Chunk, work_out: Callable[[], Plan]) -> Plan:
        """Give the plan for a chunk; the first time `work_out` makes it."""
        with self._lock:
            found = self._plans.get(chunk)
            if found is None:
                found = self._plans[chunk] = work_out()
                if len(self._plans) > MOST_PLANS:
                    self._plans.popitem(last=False)
            else:
                self._plans.move_to_end(chunk)
            return found
