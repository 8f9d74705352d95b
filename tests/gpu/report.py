"""What the parts of the GPU check share: their options, their rows, and the table at the end."""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from wavewn.errors import WavewnError

FAULTS = (
    *(WavewnError, RuntimeError, ImportError, LookupError, OSError, TypeError, ValueError),
    *(AssertionError, AttributeError),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        part: Of the check.
        what: Was measured: a shape, a model, a recipe.
        way: How it ran: engine, precision, chunks.
        streams: Or the size of the batch.
        value: None where it could not run.
        unit: Of the value.
        note: The reason, or what else there is to say.
    """

    part: str
    what: str
    way: str
    streams: int
    value: float | None
    unit: str
    note: str = ""

    def line(self) -> str:
        value = "cannot run" if self.value is None else f"{self.value:,.6g}"
        cells = f"{self.what:<16} {self.way:<34} {self.streams:>4} {value:>12} {self.unit:<10}"
        return f"{cells} {self.note}".rstrip()


class Part:
    """A part that is running: prints each figure as it comes, and keeps it in a file.

    Args:
        name: Of the part.
    """

    def __init__(self, name: str) -> None:
        parser = argparse.ArgumentParser(description=f"the part {name!r} of tests/gpu/check.py")
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--tiny", action="store_true", help="everything once, for a CPU")
        parser.add_argument("--seconds", type=float, default=60, help="after which nothing begins")
        parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
        arguments = parser.parse_args()
        self.name, self.tiny, self.out = name, arguments.tiny, arguments.out
        self.device = torch.device(arguments.device)
        self._end = time.monotonic() + arguments.seconds

    def add(
        self, what: str, way: str, streams: int, value: float | None, unit: str, note: str = ""
    ) -> None:
        row = Row(self.name, what, way, streams, value, unit, note)
        print(row.line(), flush=True)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")

    def measure(
        self, what: str, way: str, streams: int, unit: str, run: Callable[[], float]
    ) -> float | None:
        """Add what `run` returns. What fails does not end the part: its row says why."""
        if time.monotonic() > self._end:
            self.add(what, way, streams, None, unit, "no time was left for it")
            return None
        try:
            value = run()
        except FAULTS as error:  # one engine's fault must not hide the others' figures
            reason = " ".join(str(error).split())[:150] or "no reason given"
            self.add(what, way, streams, None, unit, f"{type(error).__name__}: {reason}")
            return None
        self.add(what, way, streams, value, unit)
        return value

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds_of(self, run: Callable[[], object]) -> float:
        self.synchronize()
        began = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - began

    def median_s(self, run: Callable[[], object], seconds: float = 0.3, most: int = 100) -> float:
        """The median of as many runs as go into so many seconds, after two that do not count.

        Two, because a chunk's size is captured when it comes for the second time.
        """
        for _ in range(2):
            run()
        first = self.seconds_of(run)
        count = 1 if self.tiny else max(min(int(seconds / first), most), 3)
        return statistics.median(self.seconds_of(run) for _ in range(count))


def table(path: Path) -> str:
    """All rows of a file, part by part."""
    rows = [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    lines = []
    for part in dict.fromkeys(row.part for row in rows):
        lines += [f"== {part}", *(row.line() for row in rows if row.part == part)]
    return "\n".join(lines)
