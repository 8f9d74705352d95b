"""Runs systems over recordings and sums their metrics up: rows, means, intervals, JSON, CSV.

A system is any function from recordings to their copies, so a model, Griffin-Lim and a quantised
copy of the recording stand in one table. Intervals are percentile bootstraps over utterances
with a fixed seed: the same rows always give the same figures.
"""

import contextlib
import csv
import io
import json
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wavewn.audio.mel import MelSpec
from wavewn.errors import DataError, ShapeError
from wavewn.evaluation import metrics

log = logging.getLogger(__name__)

System = Callable[[list[Tensor]], list[Tensor]]

RESAMPLES = 10_000
CONFIDENCE = 0.95
METRICS = {  # in the order of the table: what it is called there
    "log_mel_l1": "log-mel L1 (lower is better)",
    "m_stft": "M-STFT (lower)",
    "mcd_db": "MCD, dB (lower)",
    "f0_rmse_cents": "F0 RMSE, cents (lower)",
    "vuv_f1": "V/UV F1 (higher)",
    "stoi": "STOI (higher)",
    "pesq_wb": "PESQ-WB (higher)",
    "rms_ratio_db": "level, dB (0)",
    "clipped_fraction": "clipped (0)",
    "silent_fraction": "speech lost (0)",
}


@dataclass(frozen=True)
class Clip:
    """A recording to copy: its name in the tables and `[samples]` of audio."""

    name: str
    audio: Tensor


@dataclass(frozen=True)
class Row:
    """What one system made of one recording; NaN where a metric had nothing to judge."""

    system: str
    clip: str
    duration_s: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval over `count` utterances; NaN rows are not in it."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """All rows of an evaluation.

    Attributes:
        rows: One for each system and recording, recordings in the order given.
        left_out: Metric to reason, for metrics that this machine cannot take.
        real_time: System to seconds of audio made in a second, batches as they were run.
    """

    rows: list[Row]
    left_out: dict[str, str]
    real_time: dict[str, float]

    def summary(self) -> dict[str, dict[str, Interval]]:
        """Return the interval of each metric by system."""
        systems = dict.fromkeys(row.system for row in self.rows)
        return {
            system: {
                metric: bootstrap(
                    [row.metrics[metric] for row in self.rows if row.system == system]
                )
                for metric in METRICS
                if metric not in self.left_out
            }
            for system in systems
        }


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Return mean and percentile bootstrap interval of the values that are not NaN."""
    kept = np.array([value for value in values if not math.isnan(value)])
    if not kept.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    draws = np.random.default_rng(seed).integers(kept.size, size=(RESAMPLES, kept.size))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(kept[draws].mean(axis=1), [tail, 1 - tail])
    return Interval(float(kept.mean()), float(low), float(high), int(kept.size))


def compare(
    clips: Sequence[Clip],
    systems: Mapping[str, System],
    spec: MelSpec,
    *,
    batch: int = 8,
    on_copy: Callable[[str, Clip, Tensor], object] = lambda system, clip, copy: None,
) -> Comparison:
    """Copy every recording with every system and judge the copies.

    Args:
        clips: Recordings at `spec.sample_rate`.
        systems: Name to system; each is called with up to `batch` recordings of similar length.
        spec: The mel that log-mel L1 and MCD are taken on.
        batch: Recordings a call.
        on_copy: Called with system, clip and copy once the copy is judged.

    Raises:
        DataError: There is nothing to judge.
        ShapeError: A system returned another number of recordings, or one of another length.
    """
    if not clips or not systems:
        raise DataError("evaluation needs at least one recording and one system, got none")
    left_out = metrics.missing_extras()
    for metric, reason in left_out.items():
        log.warning("%s is left out: %s", metric, reason)
    rows: dict[tuple[int, str], Row] = {}
    took_s = dict.fromkeys(systems, 0.0)
    order = sorted(range(len(clips)), key=lambda i: clips[i].audio.shape[-1])
    for indices in (order[i : i + batch] for i in range(0, len(order), batch)):
        references = [clips[i].audio for i in indices]
        pitches = [metrics.pitch_track(audio, spec.sample_rate) for audio in references]
        for name, system in systems.items():
            began = time.perf_counter()
            copies = system(references)
            took_s[name] += time.perf_counter() - began
            if len(copies) != len(references):
                raise ShapeError(
                    f"{name} made {len(copies)} copies of {len(references)} recordings"
                )
            for i, copy, pitch in zip(indices, copies, pitches, strict=True):
                scores = score(clips[i].audio, copy, pitch, spec, left_out)
                duration_s = clips[i].audio.shape[0] / spec.sample_rate
                rows[i, name] = Row(name, clips[i].name, duration_s, scores)
                on_copy(name, clips[i], copy)
    total_s = sum(clip.audio.shape[0] for clip in clips) / spec.sample_rate
    return Comparison(
        rows=[rows[i, name] for name in systems for i in range(len(clips))],
        left_out=left_out,
        real_time={name: total_s / max(spent, 1e-9) for name, spent in took_s.items()},
    )


def score(
    reference: Tensor,
    generated: Tensor,
    reference_pitch: Tensor,
    spec: MelSpec,
    left_out: Mapping[str, str],
) -> dict[str, float]:
    """Take every metric that is not left out.

    Args:
        reference: [samples].
        generated: [samples], within one hop of the reference's length.
        reference_pitch: `pitch_track(reference)`, taken once for all systems.
        spec: The mel of the spectral distances, and the sample rate.
        left_out: Names of metrics not to take.
    """
    reference, generated = metrics.reconcile(reference, generated, spec.hop_length)
    rate = spec.sample_rate
    pitch = metrics.pitch_track(generated, rate)
    frames = min(pitch.shape[0], reference_pitch.shape[0])
    pitch, reference_pitch = pitch[:frames], reference_pitch[:frames]
    calls: dict[str, Callable[[], float]] = {
        "log_mel_l1": lambda: metrics.log_mel_l1(reference, generated, spec),
        "m_stft": lambda: metrics.multi_resolution_stft(reference, generated),
        "mcd_db": lambda: metrics.mcd(reference, generated, spec),
        "f0_rmse_cents": lambda: metrics.f0_rmse_cents(reference_pitch, pitch),
        "vuv_f1": lambda: metrics.vuv_f1(reference_pitch, pitch),
        "stoi": lambda: metrics.stoi(reference, generated, rate),
        "pesq_wb": lambda: metrics.pesq_wb(reference, generated, rate),
        "rms_ratio_db": lambda: metrics.rms_ratio_db(reference, generated),
        "clipped_fraction": lambda: metrics.clipped_fraction(generated),
        "silent_fraction": lambda: metrics.silent_fraction(reference, generated, rate),
    }
    return {name: calls[name]() for name in METRICS if name not in left_out}


def format_table(comparison: Comparison) -> str:
    """Lay the means and intervals out: a line for each metric, a column for each system."""
    summary = comparison.summary()
    lines = [["", *summary]]
    for metric in next(iter(summary.values())):
        cells = [summary[system][metric] for system in summary]
        lines.append([METRICS[metric], *(_cell(cell) for cell in cells)])
    lines.append(["times real time", *(f"{comparison.real_time[name]:.2f}" for name in summary)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_json(path: Path, comparison: Comparison, settings: Mapping[str, Any]) -> None:
    """Write settings, means, intervals and rows; NaN becomes null. Replaces the file whole."""
    content = {
        "settings": dict(settings),
        "left_out": comparison.left_out,
        "times_real_time": comparison.real_time,
        "means": {
            system: {metric: asdict(interval) for metric, interval in by_metric.items()}
            for system, by_metric in comparison.summary().items()
        },
        "rows": [asdict(row) for row in comparison.rows],
    }
    text = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    _replace(path, text + "\n")


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write one line for each system and recording; NaN is empty. Replaces the file whole."""
    text = io.StringIO()
    names = [metric for metric in METRICS if metric not in comparison.left_out]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["system", "clip", "duration_s", *names])
    for row in comparison.rows:
        values = (row.metrics[name] for name in names)
        cells = ("" if math.isnan(value) else f"{value:.6g}" for value in values)
        writer.writerow([row.system, row.clip, f"{row.duration_s:.3f}", *cells])
    _replace(path, text.getvalue())


def _cell(interval: Interval) -> str:
    if not interval.count:
        return "-"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # nobody else's
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DataError(f"cannot write {path}: {error}") from error
