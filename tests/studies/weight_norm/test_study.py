"""The study end to end at toy size: its claim, its determinism, its resuming."""

import pytest
import torch

from wavewn.errors import ConfigError, DataError
from wavewn.studies.weight_norm.run import run_cell, run_cells
from wavewn.studies.weight_norm.settings import PRESETS, Cell, list_cells
from wavewn.studies.weight_norm.summary import flags_of, summarise

LEAKY = {"batch", "mean-only", "group"}


def test_weight_norm_and_its_causal_rivals_leak_exactly_nothing_and_batch_statistics_do(finished):
    flags = flags_of(finished[0])

    assert {norm for norm, one in flags.items() if not one["causal"]} == LEAKY
    assert all(flags[norm]["leak"] == 0 for norm in set(flags) - LEAKY)
    assert all(flags[norm]["leak"] > 1e-4 for norm in LEAKY)


def test_only_group_norm_cannot_stream_and_only_norms_of_rows_and_signals_stay(finished):
    flags = flags_of(finished[0])

    assert {norm for norm, one in flags.items() if not one["streams"]} == {"group"}
    assert {norm for norm, one in flags.items() if not one["folds"]} == {"layer", "group"}


def test_the_kind_of_statistics_matters_to_batch_norms_alone(finished, toy):
    stack = summarise(finished[0])["stack"]

    for norm in toy.norms:
        gaps = [abs(stack[norm][str(batch)]["gap"]["median"]) for batch in toy.batches]
        assert (max(gaps) > 1e-4) == (norm in {"batch", "mean-only"})
        assert (stack[norm]["1"]["precise"] is not None) == (norm in {"batch", "mean-only"})


def test_every_figure_is_there(finished, toy):
    study, out = finished
    summary = summarise(study)

    for norm in toy.norms:
        for batch in toy.batches:
            (first, _) = study.of(norm, batch)
            assert set(first) >= {"equal_steps", "equal_samples", "flags", "shift", "free"}
            assert len(first["shift"]["change"]["eval"]) == 16
            assert set(first["shift"]["level"]) == {"-20", "0"}
            found = summary["stack"][norm][str(batch)]["equal_samples"]
            assert found["min"] <= found["median"] <= found["max"]
    assert all(one["beyond"] for one in summary["recurrent"].values())
    assert len(list((out / "audio").glob("*.wav"))) == 2 * len(toy.norms)  # of the first seed


def test_equal_samples_are_more_steps_for_small_batches(finished, toy):
    for cell, figures in finished[0].cells.items():
        if cell.kind == "stack":
            same = figures["equal_steps"] == figures["equal_samples"]
            assert same == (cell.batch == toy.batches[-1])


@pytest.mark.parametrize(
    ("kind", "norm", "batch"), [("stack", "batch", 2), ("recurrent", "weight", 3)]
)
def test_a_cell_is_a_function_of_its_arguments(finished, toy, speech, kind, norm, batch):
    cell = Cell(kind, norm, batch, 0, toy.rate)
    torch.manual_seed(1234)  # global draws must not matter

    assert run_cell(toy, speech, cell)[0] == finished[0].cells[cell]
    assert run_cell(toy, speech, Cell(kind, norm, batch, 1, toy.rate))[0] != finished[0].cells[cell]


def test_a_study_goes_on_behind_what_is_there(tmp_path, changed, speech, monkeypatch):
    settings = changed(norms=("weight",), seeds=(0,), recurrent=("none",))
    whole = run_cells(settings, speech, tmp_path / "whole", workers=1)
    cells = list_cells(settings)
    done = []

    def stop(cell):
        done.append(cell)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(settings, speech, tmp_path / "broken", workers=1, on_done=stop)
    ran = []
    module = "wavewn.studies.weight_norm.run.run_cell"
    monkeypatch.setattr(module, lambda *args: ran.append(args[2]) or run_cell(*args))
    seen = []
    again = run_cells(settings, speech, tmp_path / "broken", workers=1, on_done=seen.append)

    assert ran == cells[2:]
    assert seen == cells
    assert again == whole


def test_a_folder_belongs_to_one_study(finished, changed, speech):
    with pytest.raises(DataError, match="holds another study"):
        run_cells(changed(steps=5), speech, finished[1], workers=1)


@pytest.mark.slow  # two fresh processes import torch
def test_processes_change_no_figure(tmp_path, changed, speech):
    settings = changed(norms=("batch",), seeds=(0,), recurrent=("layer",))

    assert run_cells(settings, speech, tmp_path / "two", workers=2) == run_cells(
        settings, speech, tmp_path / "one", workers=1
    )


def test_a_sweep_tries_other_rates_at_both_ends(changed):
    cells = list_cells(changed(sweep=(1e-3,), batches=(1, 2, 3)))
    other = {(cell.batch, cell.seed) for cell in cells if cell.rate == 1e-3}

    assert other == {(1, 0), (3, 0)}
    assert len({cell.name for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"norms": ("batchy",)}, "unknown norms batchy; expected some of none, none-init"),
        ({"batches": (2, 1)}, r"ascend from 1 on, got \(2, 1\)"),
        ({"seeds": ()}, "at least one seed|one seed"),
        ({"held_out": 3}, "twice the largest batch, 4, got 3"),
    ],
)
def test_impossible_settings_are_refused(changed, values, message):
    with pytest.raises(ConfigError, match=message):
        changed(**values)


def test_the_presets_are_what_they_are_called():
    quick, default, full = (PRESETS[name] for name in ("quick", "default", "full"))

    assert (len(quick.seeds), len(quick.batches)) == (1, 2)
    assert default.batches == (1, 2, 4, 8)
    assert len(default.seeds) == 3
    assert full.sweep
    assert set(full.norms) > set(default.norms)
