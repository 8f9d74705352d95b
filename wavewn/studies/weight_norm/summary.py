"""Medians and ranges over seeds: what figures, page and README are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from wavewn.nn.norms import NORMS
from wavewn.studies.weight_norm.settings import Cell, StudySettings

RECURRENT_TITLES = {
    "none": "none",
    "weight": "weight norm",
    "layer": "layer norm",
    "batch-input": "batch norm, input only",
    "batch-step": "batch norm a time step",
}

Figures = dict[str, Any]


def middle(values: Iterable[float | None]) -> Figures | None:
    """Median and range of what is there; None where a network diverged or nothing was measured."""
    found = list(values)
    if not found or None in found:
        return None
    numbers = [value for value in found if value is not None]
    return {"median": median(numbers), "min": min(numbers), "max": max(numbers)}


def dig(figures: Mapping[str, Any], *path: str) -> Any:
    """Follow keys into figures; None where one is missing."""
    value: Any = figures
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        settings: What was run.
        cells: Figures of each.
    """

    settings: StudySettings
    cells: dict[Cell, Figures]

    def of(self, norm: str, batch: int, kind: str = "stack") -> list[Figures]:
        """Figures of all seeds at the common rate."""
        return [
            figures
            for cell, figures in self.cells.items()
            if (cell.kind, cell.norm, cell.batch, cell.rate)
            == (kind, norm, batch, self.settings.rate)
        ]

    def middle(self, norm: str, batch: int, *path: str) -> Figures | None:
        """Median and range of one figure over the seeds."""
        return middle(dig(figures, *path) for figures in self.of(norm, batch))

    @property
    def ends(self) -> list[int]:
        """The smallest and the largest batch."""
        return sorted({self.settings.batches[0], self.settings.batches[-1]})


def flags_of(study: Study) -> dict[str, Figures]:
    """Flags of each norm over all its networks: a flag holds if it holds in each of them."""
    found = {}
    for norm in study.settings.norms:
        all_flags = [dig(one, "flags") for batch in study.ends for one in study.of(norm, batch)]
        measured = [one for one in all_flags if one]
        if measured:
            found[norm] = {
                key: all(one[key] for one in measured)
                if isinstance(measured[0][key], bool)
                else max(one[key] for one in measured)
                for key in measured[0]
            }
    return found


def gap(figures: Figures, when: str) -> float | None:
    """How far the loss with batch statistics is from the loss with running ones."""
    live, fixed = dig(figures, when, "batch"), dig(figures, when, "eval")
    return None if live is None or fixed is None else live - fixed


def rates_of(study: Study) -> dict[str, Figures]:
    """The learning-rate sweep: norm to batch to rate to loss, of the first seed."""
    s = study.settings
    found: dict[str, Figures] = {}
    for cell, figures in study.cells.items():
        if cell.kind == "stack" and cell.batch in study.ends and cell.seed == s.seeds[0]:
            by_batch = found.setdefault(cell.norm, {}).setdefault(str(cell.batch), {})
            by_batch[f"{cell.rate:g}"] = dig(figures, "equal_samples", "eval")
    return found


def summarise(study: Study) -> Figures:
    """Return all medians and ranges, as JSON holds them."""
    s = study.settings
    stacks: Figures = {}
    for norm in s.norms:
        by_batch: Figures = {}
        for batch in s.batches:
            runs = study.of(norm, batch)
            by_batch[str(batch)] = {
                "equal_steps": study.middle(norm, batch, "equal_steps", "eval"),
                "equal_samples": study.middle(norm, batch, "equal_samples", "eval"),
                "gap": middle(gap(one, "equal_samples") for one in runs),
            }
            if batch in study.ends:
                by_batch[str(batch)] |= {
                    "precise": study.middle(norm, batch, "precise"),
                    "leak_nats": study.middle(norm, batch, "flags", "leak_nats"),
                    "spectral_distance_db": study.middle(
                        norm, batch, "free", "spectral_distance_db"
                    ),
                    "rms_ratio": study.middle(norm, batch, "free", "rms_ratio"),
                    "speaker": study.middle(norm, batch, "shift", "speaker", "eval"),
                }
        stacks[norm] = by_batch
    recurrent = {
        name: {
            key: middle(dig(one, key) for one in study.of(name, s.recurrent_batch, "recurrent"))
            for key in ("within", "beyond")
        }
        for name in s.recurrent
    }
    return {
        "titles": {norm: NORMS[norm].title for norm in s.norms},
        "flags": flags_of(study),
        "stack": stacks,
        "recurrent": recurrent,
        "rates": rates_of(study) if s.sweep else None,
    }
