"""`wavewn train` as a user meets it."""

import argparse

import pytest
import yaml

from wavewn.cli.train import add_train
from wavewn.errors import ConfigError, WavewnError
from wavewn.shipped import shipped_folder
from wavewn.training import run


def call(*arguments):
    """Parse as `wavewn` does, and run."""
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers())
    args, unknown = parser.parse_known_args(["train", *map(str, arguments)])
    args.overrides = [*args.overrides, *unknown]
    args.run(args)


@pytest.fixture
def asked(monkeypatch):
    """Record what the training is asked for instead of training."""
    calls = []

    def train(recipe, out, **options):
        calls.append((recipe, out, options))
        return out / "checkpoints" / "best.ckpt"

    monkeypatch.setattr(run, "train", train)
    return calls


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": {"manifest": "corpus"}}))
    return "mine.yaml"


def test_a_recipe_trains_and_the_next_command_is_told(recipe, asked, capsys):
    call(recipe, "--data.frames", "20", "--out", "here", "--init-from", "x")

    settings, out, options = asked[0]
    assert settings.data.frames == 20
    assert str(out) == "here"
    assert options["init_from"] == "x" and options["resume"] is None
    assert str(options["folder"]) == "."
    assert "wavewn export here/checkpoints/best.ckpt" in capsys.readouterr().out


def test_the_run_is_named_after_the_recipe_and_resume_needs_no_value(recipe, asked):
    call(recipe, "--resume")

    assert asked[0][1].as_posix() == "runs/mine"
    assert asked[0][2]["resume"] == "auto"


def test_a_shipped_recipe_finds_the_corpus_beside_it_but_overrides_start_here(
    recipe, asked, monkeypatch
):
    call("quickstart")
    call("quickstart", "--data.manifest", "corpus")
    call("festvox-ru-wavenet", "--init_from", "mine")

    assert asked[0][2]["folder"] == shipped_folder("recipes")
    assert (shipped_folder("recipes") / asked[0][0].data.manifest / "manifest.json").is_file()
    assert str(asked[1][2]["folder"]) == "."
    assert str(asked[2][2]["folder"]) == "."  # `wavewn prepare` makes its corpus, here
    assert asked[2][2]["init_from"] == "mine"


def test_mistakes_are_one_line(recipe, asked):
    with pytest.raises(ConfigError, match="data.framez"):
        call(recipe, "--data.framez", "20")
    with pytest.raises(WavewnError, match="quickstart"):
        call("quickstrat")


def test_the_command_answers_a_misspelt_key_with_exit_code_2(recipe, capsys):
    main = pytest.importorskip("wavewn.cli.main").main
    with open(recipe, "a") as file:
        file.write("modle: {residual_channels: 8}\n")

    assert main(["train", recipe]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "modle" in error


def test_ctrl_c_tells_how_to_go_on(recipe, monkeypatch, capsys):
    from pathlib import Path

    from wavewn.training.callbacks import Interrupted

    def train(*args, **options):
        raise Interrupted(Path("runs/mine/checkpoints/last.ckpt"), 7)

    monkeypatch.setattr(run, "train", train)

    with pytest.raises(KeyboardInterrupt):
        call(recipe, "--data.frames", "20")

    said = capsys.readouterr().err
    assert "stopped at step 7" in said
    assert "wavewn train mine.yaml --out runs/mine --resume --data.frames 20" in said
