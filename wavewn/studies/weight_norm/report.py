"""The page of a study: plots, sounds, flags and settings in one HTML file that needs no network.

Its words are fixed where they state what is known from elsewhere, and come from the figures
where they state what this run has shown.
"""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

from wavewn.errors import DataError
from wavewn.nn.norms import NORMS
from wavewn.studies.weight_norm.figures import draw_all
from wavewn.studies.weight_norm.run import read_identity, to_json, versions, write_text
from wavewn.studies.weight_norm.summary import Figures, Study, dig, middle, summarise

CAPTIONS = {
    "e1-leak": (
        "Leak of the future",
        "In train mode the second half of the input is silenced, and the predictions of the first "
        "half are watched. A network whose predictions move was given a hint from what it is to "
        "predict; its training loss is then not a likelihood.",
    ),
    "e2-batches": (
        "Batch size",
        "Loss on held-out speech as the network would be used (running statistics), after equally "
        "many steps and after equally many samples, and how much batch statistics change it.",
    ),
    "e3-streaming": (
        "Streaming",
        "The trained network is run one sample at a time and compared with whole passes. Near "
        "1e-15 is rounding; anything above is another network than the one that was trained.",
    ),
    "e4-free-running": (
        "Free running",
        "The network hears its own samples. Long-term spectrum and level against recordings; "
        "these say nothing about how it sounds, so listen below.",
    ),
    "e5-shift": (
        "Change of level and speaker",
        "Held-out speech louder and quieter than in training, and a strange speaker who begins in "
        "the middle of a crop. Solid: running statistics; dotted, where it differs: statistics of "
        "the crops themselves.",
    ),
    "e6-recurrent": (
        "Recurrent network",
        "A GRU is followed to four times the length that it was trained on. Batch norm a time "
        "step has no statistics there and goes on with those of the last step.",
    ),
    "rates": (
        "Learning rates",
        "First seed, after equally many samples. All other figures use one rate for all norms.",
    ),
}
NOTES = {
    "batch-frozen": "frozen after a fifth of the training; before, it is batch norm. The flags "
    "hold for the frozen network.",
    "spectral": "its power iteration goes on in train mode, so that E3 shows a small step there.",
}


def claim(study: Study) -> str:
    """State in two sentences what this run shows, from its figures alone; seeds are paired."""
    summary = summarise(study)
    flags = summary["flags"]
    silent = [name for name, one in flags.items() if one["causal"]]
    leaky = [name for name in flags if name not in silent]
    first = "No network was measured."
    if flags:
        said = []
        if silent:
            said.append(f"{_titles(silent)} moved no prediction by a single bit")
        if leaky:
            said.append(f"{_titles(leaky)} moved theirs")
        first = (
            "When only the future of the input, or the rest of the batch, changed while training, "
            + "; ".join(said)
            + "."
        )
    parts = []
    for norm in ("none-init", "batch", "layer"):
        apart = [_apart(study, norm, batch) for batch in study.ends]
        if None not in apart:
            parts.append(f"{_title(norm)} {' and '.join(str(one) for one in apart)}")
    if not parts:
        return first
    batches = " and ".join(str(batch) for batch in study.ends)
    return (
        f"{first} Held-out loss over that of weight norm with data init, in nats a sample, median "
        f" at batch {batches} after equally many samples: {'; '.join(parts)}."
    )


def _apart(study: Study, norm: str, batch: int) -> str | None:
    """Median over the seeds of a norm's loss minus that of weight norm, as text."""
    path = ("equal_samples", "eval")
    pairs = zip(study.of(norm, batch), study.of("weight-init", batch), strict=False)
    losses = [(dig(one, *path), dig(other, *path)) for one, other in pairs]
    found = middle(None if None in pair else pair[0] - pair[1] for pair in losses)
    return f"{found['median']:+.3f}" if found else None


def _title(norm: str) -> str:
    return NORMS[norm].title


def _titles(norms: list[str]) -> str:
    titles = [_title(norm) for norm in norms]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if len(titles) > 1 else titles)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _loss_rows(study: Study, summary: Figures) -> list[dict[str, Any]]:
    rows = []
    for norm in study.settings.norms:
        by_batch = [summary["stack"][norm][str(batch)] for batch in study.settings.batches]
        rows.append(_loss_row(_title(norm), [one["equal_samples"] for one in by_batch]))
        precise = [one.get("precise") for one in by_batch]
        if any(precise):
            rows.append(_loss_row(f"{_title(norm)}, precise statistics", precise))
    return rows


def _loss_row(title: str, found: list[Figures | None]) -> dict[str, Any]:
    cells = [
        (f"{one['median']:.3f}", f"{one['min']:.3f} to {one['max']:.3f}") if one else ("-", "")
        for one in found
    ]
    return {"title": title, "cells": cells}


def _voices(study: Study, out: Path) -> list[dict[str, str]]:
    s = study.settings
    found = []
    for norm in s.norms:
        for batch in study.ends:
            file = out / "audio" / f"stack-{norm}-b{batch}-s{s.seeds[0]}-r{s.rate:g}.wav"
            if file.is_file():
                label = f"{_title(norm)}, batch {batch}"
                found.append({"label": label, "audio": _uri("audio/wav", file.read_bytes())})
    return found


def make_page(study: Study, out: Path, pictures: dict[str, bytes]) -> str:
    """Lay out a study as a self-contained HTML page.

    Args:
        study: Finished.
        out: Its folder, for sounds and the description of its speech.
        pictures: From `draw_all`.
    """
    from jinja2 import Environment, StrictUndefined

    summary = summarise(study)
    template = resources.files("wavewn.studies.weight_norm").joinpath("report.html")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text("utf-8")).render(
        preset=study.settings.name,
        claim=claim(study),
        flags=[
            {"title": _title(norm), "note": NOTES.get(norm, "")} | one
            for norm, one in summary["flags"].items()
        ],
        batches=study.settings.batches,
        seeds=len(study.settings.seeds),
        losses=_loss_rows(study, summary),
        plots=[
            {"name": name, "caption": CAPTIONS[name], "picture": _uri("image/png", picture)}
            for name, picture in pictures.items()
        ],
        voices=_voices(study, out),
        settings={
            "Study": study.settings.to_dict(),
            "Speech": read_identity(out)["corpus"],
            "Versions": versions(),
        },
    )


def write_report(study: Study, out: Path) -> Path:
    """Write `report.html`, `results.json` and a PNG for each plot; return the page's path."""
    pictures = draw_all(study)
    try:
        for name, picture in pictures.items():
            (out / f"{name}.png").write_bytes(picture)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error}; choose another --out") from error
    results = {
        **read_identity(out),
        "claim": claim(study),
        "summary": summarise(study),
        "cells": {cell.name: figures for cell, figures in study.cells.items()},
        "versions": versions(),
    }
    write_text(out / "results.json", to_json(results))
    page = out / "report.html"
    write_text(page, make_page(study, out, pictures))
    return page
