"""The listening page: one HTML file with the sounds, pictures and figures of an evaluation.

The page holds everything as data URIs and says so to the browser (a content security policy that
allows nothing else, scripts included), so it can be mailed, kept and opened without a network.
Text comes from outside (file names, settings), so the template escapes all of it.

Pictures are bare pixels and the F0 tracks vector paths; their axes are text of the page. So they
follow the reader's font size and dark mode, and one colour scale holds for the whole page.
"""

import base64
import contextlib
import io
import math
import os
import platform
import uuid
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavewn.errors import DataError
from wavewn.evaluation.compare import METRICS, Comparison
from wavewn.evaluation.figures import RANGE_DB, encode_png, picture_levels
from wavewn.evaluation.metrics import F0_MAX_HZ, F0_MIN_HZ, pitch_track

MAX_EXAMPLES = 12
MAX_SECONDS = 10.0
MAX_BYTES = 12_000_000  # of data URIs; the rest of the page is small
SAMPLE_BYTES = 8 / 3  # 16 bits in base64
PICTURES_BYTES_PER_S = 35_000  # two of 64 x 256 pixels, six bits each, hardly compressed, base64
DIFFERENCE_DB = 30.0
LEVEL_COLOURS, DIFFERENCE_COLOURS = "magma", "RdBu_r"
PATH_WIDTH, PATH_HEIGHT = 1000, 100  # user units of an F0 track
VERSIONS = ("torch", "numpy", "librosa", "soundfile", "pesq", "pystoi")

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    """A recording to listen to, `[samples]`, and its copies by system."""

    name: str
    reference: Tensor
    copies: Mapping[str, Tensor]


def versions() -> dict[str, str]:
    """Return the versions that the figures rest on."""
    found = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def make_page(
    comparison: Comparison, examples: Sequence[Example], sample_rate: int, settings: Settings
) -> str:
    """Lay out an evaluation as a self-contained HTML page.

    Args:
        comparison: The figures, over all recordings.
        examples: Recordings to show, the most wanted first. At most `MAX_EXAMPLES` of them, their
            first `MAX_SECONDS` and about `MAX_BYTES` go in; the page says how much that is.
        sample_rate: Of all sounds.
        settings: Heading to name to value.

    Raises:
        DataError: There is no example, or one lacks the copy of a system.
    """
    from jinja2 import Environment, StrictUndefined

    summary = comparison.summary()
    if not examples:
        raise DataError("a listening page needs at least one recording, got none")
    for example in examples:
        if missing := summary.keys() - example.copies.keys():
            raise DataError(f"{example.name} has no copy by {', '.join(sorted(missing))}")
    bytes_per_s = (len(summary) + 1) * (SAMPLE_BYTES * sample_rate + PICTURES_BYTES_PER_S)
    seconds = min(MAX_SECONDS, MAX_BYTES / bytes_per_s)
    shown: list[dict[str, Any]] = []
    size = 0
    for example in examples[:MAX_EXAMPLES]:
        view = _view(example, list(summary), sample_rate, seconds)
        size += sum(len(card[key] or "") for card in view["cards"] for key in _URIS)
        if shown and size > MAX_BYTES:
            break
        shown.append(view)
    clips = {row.clip for row in comparison.rows}
    template = resources.files("wavewn.evaluation").joinpath("report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        systems=list(summary),
        figures=_figures(comparison, len(clips)),
        left_out={METRICS[metric]: why for metric, why in comparison.left_out.items()},
        examples=[view | {"scores": _scores(comparison, view["name"])} for view in shown],
        recordings=len(clips),
        seconds=f"{seconds:.1f}",
        settings=settings,
        khz=f"{sample_rate / 2000:.4g}",
        f0_hz=(round(F0_MIN_HZ), round(F0_MAX_HZ)),
        path_box=(PATH_WIDTH, PATH_HEIGHT),
        level_scale=_scale(LEVEL_COLOURS),
        range_db=round(RANGE_DB),
        difference_scale=_scale(DIFFERENCE_COLOURS),
        difference_db=round(DIFFERENCE_DB),
    )


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all; characters that UTF-8 lacks become escapes.

    Raises:
        DataError: The file cannot be written.
    """
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is not UTF-8 comes with surrogates.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            partial.unlink()


_URIS = ("audio", "picture", "difference")


def _view(example: Example, systems: list[str], rate: int, seconds: float) -> dict[str, Any]:
    """What the template shows of one recording: a card for it and one for each copy."""
    shortest = min(len(audio) for audio in (example.reference, *example.copies.values()))
    end = min(shortest, max(1, int(seconds * rate)))
    reference = example.reference[:end]
    levels = picture_levels(reference, rate)
    top = levels.max().item()
    levels = levels.clamp(min=top - RANGE_DB)
    pitch = pitch_track(reference, rate)
    cards = [_card("recording", reference, levels, top, pitch, rate)]
    for name in systems:
        copy = example.copies[name][:end]
        made = picture_levels(copy, rate).clamp(min=top - RANGE_DB)
        card = _card(name, copy, made, top, pitch_track(copy, rate), rate)
        difference = made - levels
        picture = encode_png(difference, -DIFFERENCE_DB, DIFFERENCE_DB, DIFFERENCE_COLOURS)
        cards.append(
            card
            | {
                "difference": _uri("image/png", picture),
                "apart_db": f"{difference.abs().mean().item():.1f}",
                "reference_path": cards[0]["path"],
                "reference_hz": cards[0]["hz"],
            }
        )
    return {
        "name": example.name,
        "cards": cards,
        "shown_s": f"{end / rate:.1f}",
        "whole_s": f"{len(example.reference) / rate:.1f}",
    }


def _card(
    name: str, audio: Tensor, levels: Tensor, top: float, pitch: Tensor, rate: int
) -> dict[str, Any]:
    voiced = pitch[~pitch.isnan()]
    return {
        "name": name,
        "audio": _uri("audio/wav", encode_wav(audio, rate)),
        "picture": _uri("image/png", encode_png(levels, top - RANGE_DB, top, LEVEL_COLOURS)),
        "difference": None,
        "path": pitch_path(pitch),
        "hz": f"{voiced.median().item():.0f}" if len(voiced) else None,
    }


def encode_wav(audio: Tensor, sample_rate: int) -> bytes:
    """Encode [samples] as a 16-bit mono WAV file; values beyond full scale are clamped."""
    samples = np.clip(np.rint(audio.numpy() * 32768.0), -32768, 32767).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())
    return content.getvalue()


def pitch_path(track: Tensor) -> str:
    """Return an F0 track as the path of an SVG, a stretch for each run of voiced frames.

    Args:
        track: Of `pitch_track`, [frames] in Hz, NaN where unvoiced.

    Returns:
        Path data in a box of 1000 x 100: time to the right, the logarithm of 60 to 400 Hz upwards.
    """
    parts, pen_down = [], False
    for i, hz in enumerate(track.tolist()):
        if math.isnan(hz):
            pen_down = False
            continue
        x = PATH_WIDTH * i / max(1, len(track) - 1)
        height = math.log(hz / F0_MIN_HZ) / math.log(F0_MAX_HZ / F0_MIN_HZ)
        y = PATH_HEIGHT * (1 - height)
        # `h0` makes a run of one frame a dot.
        parts.append(f"L{x:.1f} {y:.1f}" if pen_down else f"M{x:.1f} {y:.1f}h0")
        pen_down = True
    return "".join(parts)


def _figures(comparison: Comparison, recordings: int) -> list[dict[str, Any]]:
    """Rows of the table of means: label and a cell for each system."""
    summary = comparison.summary()
    lines = []
    for metric in next(iter(summary.values())):
        cells = []
        for by_metric in summary.values():
            one = by_metric[metric]
            interval = f"[{one.low:.3f}, {one.high:.3f}]"
            few = f"of {one.count}" if one.count < recordings else ""
            cells.append((f"{one.mean:.3f}", interval, few) if one.count else ("-", "", ""))
        lines.append({"label": METRICS[metric], "cells": cells})
    speeds = [(f"{comparison.real_time[name]:.2f}", "", "") for name in summary]
    return [*lines, {"label": "times real time", "cells": speeds}]


def _scores(comparison: Comparison, clip: str) -> list[tuple[str, list[str]]]:
    """Rows of a recording's own table."""
    rows = [row.metrics for row in comparison.rows if row.clip == clip]
    return [
        (
            METRICS[metric],
            ["-" if math.isnan(row[metric]) else f"{row[metric]:.3f}" for row in rows],
        )
        for metric in rows[0]
    ]


def _scale(colours: str) -> str:
    return _uri("image/png", encode_png(torch.linspace(0, 1, 64)[None], 0, 1, colours))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
