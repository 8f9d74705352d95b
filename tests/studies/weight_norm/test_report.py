"""The page: whole, self-contained, and saying what the figures say."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from wavewn.errors import DataError
from wavewn.studies.weight_norm.figures import PLOTS
from wavewn.studies.weight_norm.report import claim, write_report
from wavewn.studies.weight_norm.summary import Study


@pytest.fixture(scope="module")
def page(finished):
    return (finished[1] / "report.html").read_text("utf-8")


def test_the_page_needs_nothing_from_outside(page):
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)

    assert len(sources) > 10
    assert all(source.startswith("data:") for source in sources)
    assert "default-src 'none'" in page
    assert "<script" not in page


def test_the_page_holds_a_plot_an_experiment_and_a_player_a_network(page, toy):
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)

    assert len(pictures) == len(PLOTS) == 6
    assert all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    assert page.count('src="data:audio/wav') == 2 * len(toy.norms)


def test_the_page_is_well_formed(page):
    class Reader(HTMLParser):
        void = {"meta", "link", "img", "br"}
        open_tags = []

        def handle_starttag(self, tag, attrs):
            if tag not in self.void:
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

    reader = Reader()
    reader.feed(page)

    assert reader.open_tags == []


def test_precise_statistics_have_a_row_of_their_own_where_there_are_any(page):
    rows = re.findall(r'<th scope="row">([^<]+, precise statistics)</th>', page)

    assert rows == [f"{name} batch norm, precise statistics".strip() for name in ("", "mean-only")]


@pytest.mark.parametrize("heading", ["What does not follow", "Settings", "Three flags"])
def test_the_page_says_what_it_must(page, heading):
    assert heading in page


def test_the_table_of_flags_is_measured(page):
    flags = page[: page.index('id="losses"')]
    rows = dict(
        re.findall(r'<th scope="row">([^<]+)(?:<br>.*?)?</th>\s*(<td.*?)</tr>', flags, re.S)
    )
    words = {name: re.findall(r">(yes|no)\s", cells) for name, cells in rows.items()}

    assert words["weight norm with data init"] == ["yes", "yes", "yes"]
    assert words["batch norm"] == ["no", "yes", "yes"]
    assert words["layer norm"] == ["yes", "yes", "no"]
    assert words["group norm over time"] == ["no", "no", "no"]
    assert "exactly 0" in rows["weight norm with data init"]


def test_the_claim_comes_from_the_figures(finished):
    study, _ = finished
    said = claim(study)

    assert (
        "none with data init, weight norm with data init and layer norm moved no prediction" in said
    )
    assert "batch norm, mean-only batch norm and group norm over time moved theirs" in said
    apart = re.search(r"; batch norm ([+-][\d.]+) and ([+-][\d.]+);", said)
    losses = [
        sorted(a["equal_samples"]["eval"] - b["equal_samples"]["eval"] for a, b in pairs)
        for pairs in (
            list(zip(study.of("batch", n), study.of("weight-init", n), strict=True)) for n in (1, 2)
        )
    ]
    wanted = [f"{sum(both) / 2:+.3f}" for both in losses]
    assert [apart[1], apart[2]] == wanted

    without = Study(study.settings, {})
    assert claim(without) == "No network was measured."


def test_the_json_beside_the_page_holds_everything_and_no_path(finished, toy, corpus):
    study, out = finished
    text = (out / "results.json").read_text("utf-8")
    results = json.loads(text)

    assert results["settings"] == toy.to_dict()
    assert set(results["cells"]) == {cell.name for cell in study.cells}
    assert str(corpus.parent) not in text
    assert str(corpus.parent) not in (out / "report.html").read_text("utf-8")
    assert {path.stem for path in out.glob("*.png")} == set(PLOTS)


def test_a_diverged_network_leaves_a_gap_not_an_error(finished, toy):
    study, _ = finished
    none = {"eval": None, "batch": None}
    cells = {
        cell: {"equal_steps": none, "equal_samples": none} if cell.norm == "batch" else figures
        for cell, figures in study.cells.items()
    }

    broken = Study(toy, cells)

    assert all(plot(broken).axes for plot in PLOTS.values())
    assert "batch norm moved" not in claim(broken)


def test_a_report_that_cannot_be_written_is_a_users_mistake(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("wavewn.studies.weight_norm.report.draw_all", lambda study: {"a": b""})
    with pytest.raises(DataError, match="choose another --out"):
        write_report(finished[0], tmp_path / "nowhere")
