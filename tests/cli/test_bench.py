"""`wavewn bench` from the command line: its lines, its table, its refusals."""

import json

import pytest

from wavewn.cli.main import main
from wavewn.engine.native import available

ENGINE = "onepass" if available() else "native"  # of one-pass models
QUICK = ["--engine", "reference", "--seconds", "0.001", "--repeats", "1"]


def test_json_gives_one_object_a_line(capsys):
    code = main(["bench", "--shape", "S", "--streams", "1,2", "--json", *QUICK])

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [row["streams"] for row in rows] == [1, 2]
    for row in rows:
        assert (row["engine"], row["shape"], row["precision"]) == ("reference", "S", "float32")
        assert row["rtf"] == pytest.approx(16_000 * row["streams"] / row["samples_per_s"])
        assert {"threads", "share_of_bound", "spread", "machine", "load"} <= set(row)
        assert row["device"] == "cpu"


def test_a_bundle_is_measured_with_its_own_mels(voice, capsys):
    assert main(["bench", str(voice), "--json", *QUICK]) == 0

    row = json.loads(capsys.readouterr().out)
    assert (row["shape"], row["rtf_24k"]) == (str(voice), None)


def test_people_get_a_table_with_the_machine_above_it(voice, capsys):
    assert main(["bench", str(voice), "--baselines", *QUICK]) == 0

    machine, head, *lines = capsys.readouterr().out.splitlines()
    assert machine.startswith("machine ")
    assert head.split()[:3] == ["shape", "engine", "precision"]
    assert len(lines) == 2  # asked for, and as a baseline; the others do not know speakers


def test_latency_times_single_pushes(voice, capsys):
    assert main(["bench", str(voice), "--latency", "--calls", "3", "--json", *QUICK]) == 0

    row = json.loads(capsys.readouterr().out)
    assert row["calls"] == 3
    assert row["frame_ms"] == pytest.approx(1.25)
    assert 0 < row["call_ms"] <= row["call_worst_ms"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shape", "XL"], "no shape 'XL'"),
        (["some-model", "--shape", "S"], "not both"),
        (["--seconds", "0"], "above 0"),
        (["--engine", "abacus"], "no engine 'abacus'"),
        (["--latency", "--baselines"], "leave --baselines out"),
        (["--device", "meta", "--baselines"], "--baselines run on the CPU"),
        (["--device", "meta"], "device 'meta' cannot be used here"),
        (["--engine", "cuda", "--shape", "S"], "of cuda none can run so here"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def no_graphs(monkeypatch):
    def refuse(subject, threads):
        raise ImportError("no package that runs graphs")

    monkeypatch.setattr("wavewn.bench.generator_lineup.OnnxContender", refuse)


def test_a_generator_runs_in_each_precision_beside_what_users_have(no_graphs, capsys, caplog):
    quick = ["--precision", "float32", "--seconds", "0.001", "--repeats", "1"]

    assert main(["bench", "--model", "spectral", "--json", *quick]) == 0

    ours, eager = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (ours["shape"], ours["engine"], ours["precision"]) == ("spectral", ENGINE, "float32")
    assert (eager["engine"], eager["precision"]) == ("torch", "float32")
    assert ours["rtf"] == pytest.approx(16_000 / ours["samples_per_s"])
    assert 0 < ours["share_of_bound"] < 1
    assert "onnxruntime: left out: no package that runs graphs" in caplog.text


def test_what_does_not_run_a_generator_is_left_out(capsys, caplog):
    quick = ["--seconds", "0.001", "--repeats", "1"]

    assert main(["bench", "--model", "spectral", "--engine", "graph", *quick]) == 2

    assert "nothing to measure" in capsys.readouterr().err
    assert "graph: left out: it does not run spectral" in caplog.text


def test_latency_of_a_generator_is_that_of_whole_frames(capsys):
    words = ["--model", "spectral", "--precision", "float32", "--latency", "--calls", "2"]

    assert main(["bench", *words, "--json"]) == 0

    row = json.loads(capsys.readouterr().out)
    assert (row["engine"], row["calls"]) == (ENGINE, 2)
    assert row["frame_ms"] == pytest.approx(12.5)
