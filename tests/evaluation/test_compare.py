"""An evaluation gives every system the same chance and loses no bad result."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.errors import DataError, ShapeError
from wavewn.evaluation import compare as module
from wavewn.evaluation.compare import (
    METRICS,
    Clip,
    Comparison,
    Row,
    bootstrap,
    compare,
    format_table,
    write_csv,
    write_json,
)

SPEC = MelSpec()


@pytest.fixture(scope="module")
def clips(voice):
    return [Clip(f"clip{i}", voice(100.0 + 20 * i, 0.6 + 0.1 * ((i * 2) % 3))) for i in range(3)]


def identity(recordings):
    return [one.clone() for one in recordings]


def muted(recordings):
    return [torch.zeros_like(one) for one in recordings]


@pytest.fixture(scope="module")
def comparison(clips):
    return compare(clips, {"identity": identity, "muted": muted}, SPEC, batch=2)


def test_rows_stand_in_the_order_given(comparison):
    expected = [(s, f"clip{i}") for s in ("identity", "muted") for i in range(3)]
    assert [(row.system, row.clip) for row in comparison.rows] == expected
    assert comparison.rows[1].duration_s == pytest.approx(0.8)


def test_each_row_belongs_to_its_own_recording(comparison, clips):
    for row in comparison.rows[:3]:
        assert row.metrics["m_stft"] == 0 and row.metrics["log_mel_l1"] == 0


def test_the_summary_tells_a_copy_from_silence(comparison):
    summary = comparison.summary()
    assert summary["identity"]["vuv_f1"].mean == 1
    assert summary["muted"]["vuv_f1"].mean == 0
    assert summary["muted"]["silent_fraction"].mean == 1
    assert summary["muted"]["f0_rmse_cents"].count == 0
    assert set(summary["identity"]) | set(comparison.left_out) == set(METRICS)


def test_systems_get_batches_of_at_most_the_size_asked_for(clips):
    sizes = []

    def counting(recordings):
        sizes.append(len(recordings))
        return identity(recordings)

    heard = []
    compare(clips, {"c": counting}, SPEC, batch=2, on_copy=lambda s, c, a: heard.append(c.name))
    assert sizes == [2, 1]
    assert sorted(heard) == ["clip0", "clip1", "clip2"]


def test_a_broken_system_is_named(clips):
    with pytest.raises(ShapeError, match="lossy made 2 copies of 3 recordings"):
        compare(clips, {"lossy": lambda all: all[1:]}, SPEC)
    with pytest.raises(ShapeError, match="may differ by one hop"):
        compare(clips, {"short": lambda all: [one[:-999] for one in all]}, SPEC)
    with pytest.raises(DataError, match="at least one recording"):
        compare([], {"identity": identity}, SPEC)


def test_a_missing_package_leaves_its_metric_out_and_says_why(clips, monkeypatch, caplog):
    reason = {"pesq_wb": "package pesq is not installed"}
    monkeypatch.setattr(module.metrics, "missing_extras", lambda: reason)
    result = compare(clips[:1], {"identity": identity}, SPEC)
    assert "pesq_wb" not in result.rows[0].metrics
    assert "pesq_wb is left out: package pesq is not installed" in caplog.text
    assert "PESQ" not in format_table(result)


def test_the_interval_agrees_with_the_normal_one_on_many_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = bootstrap(values.tolist())
    half = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)
    assert interval == bootstrap(values.tolist())
    assert interval != bootstrap(values.tolist(), seed=1)


def test_nan_is_counted_out_and_shown():
    interval = bootstrap([1.0, math.nan, 3.0])
    assert (interval.mean, interval.count) == (2.0, 2)
    assert bootstrap([math.nan]).count == 0


def test_files_hold_every_row_and_no_nan(comparison, tmp_path):
    write_json(tmp_path / "new" / "evaluation.json", comparison, {"seed": 0})
    write_csv(tmp_path / "new" / "evaluation.csv", comparison)

    stored = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert stored["settings"] == {"seed": 0}
    assert stored["means"]["muted"]["f0_rmse_cents"]["mean"] is None
    assert len(stored["rows"]) == 6
    with (tmp_path / "new" / "evaluation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["system"] for line in lines] == ["identity"] * 3 + ["muted"] * 3
    assert lines[3]["f0_rmse_cents"] == ""
    assert float(lines[0]["stoi"]) == pytest.approx(stored["rows"][0]["metrics"]["stoi"], rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "evaluation.csv",
        "evaluation.json",
    ]


def test_a_failed_write_is_one_clear_error(comparison, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_csv(tmp_path / "file" / "evaluation.csv", comparison)


def test_the_table_is_aligned():
    rows = [Row(s, "a", 1.0, dict.fromkeys(METRICS, v)) for s, v in (("x", 1.0), ("long", 22.0))]
    lines = format_table(Comparison(rows, {}, {"x": 2.0, "long": 0.5})).split("\n")
    column = lines[0].index("long")
    assert lines[1][column:] == "22.000 [22.000, 22.000]"
    assert lines[-1].startswith("times real time") and lines[-1][column:] == "0.50"
