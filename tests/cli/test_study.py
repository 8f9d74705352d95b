"""`wavewn study` runs, shows its table, and refuses what it cannot do."""

import dataclasses
import re

import pytest

from wavewn.cli.main import main
from wavewn.studies.weight_norm import settings

TINY = dataclasses.replace(
    settings.PRESETS["quick"],
    norms=("weight-init", "batch"),
    batches=(1, 2),
    steps=2,
    classes=8,
    residual_channels=4,
    skip_channels=4,
    dilations=(1, 2),
    scored=32,
    held_out=4,
    free_samples=260,
    recurrent=("none",),
    hidden=4,
    recurrent_steps=2,
    recurrent_length=16,
)


def test_a_study_of_the_embedded_speech_leaves_a_page_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(settings.PRESETS, "quick", TINY)
    words = ["study", "weight-norm", "--quick", "--workers", "1", "--out", str(tmp_path / "s")]

    assert main(words) == 0
    first, page = capsys.readouterr(), (tmp_path / "s/report.html").read_bytes()
    assert re.search(
        r"^weight norm with data init +yes +yes +yes +\d\.\d{3}", first.out, re.MULTILINE
    )
    assert re.search(r"^batch norm +no +yes +yes ", first.out, re.MULTILINE)
    assert "report.html, plots and results.json, after" in first.out
    assert "5 networks: 100%" in first.err

    assert main(words) == 0  # nothing is trained again
    assert (tmp_path / "s/report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--corpus", "nowhere"], "no manifest in nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, capsys, words, message):
    out = tmp_path / "s"

    assert main(["study", "weight-norm", "--quick", "--out", str(out), *words]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
