"""Recipes: plain data in, dataclasses out, one line for a mistake."""

import json
from datetime import date

import pytest
import torch
import yaml

from wavewn.config import Gaussian, LogisticMixture
from wavewn.errors import ConfigError
from wavewn.shipped import shipped, shipped_names
from wavewn.training.recipe import load_recipe


def write(path, **parts):
    path.write_text(yaml.safe_dump({"data": {"manifest": "m"}, **parts}))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"sed": 1}, "sed"),
        ({"model": {"residual_chanels": 8}}, "residual_chanels"),
        ({"model": {"head": {"kind": "gaussian", "classes": 8}}}, "classes"),
        ({"model": {"head": {"kind": "gausian"}}}, "gausian"),
        ({"model": {"condition": {"lookahead": 1}}}, "lookahead"),
        ({"mel": {"sample_rat": 16000}}, "sample_rat"),
        ({"mel": "hifigan-22"}, "hifigan-22"),
        ({"trainer": None}, "trainer must be a group of keys"),
        ({"clips": 3}, "clips must be a group of keys"),
        ({"seed": date(2026, 1, 1)}, "seed"),
        ({"trainer": {"max_step": 5}}, "max_step"),
        ({"trainer": {"callbacks": "x"}}, "callbacks"),
        ({"trainer": {"limit_train_batches": 9}}, "limit_train_batches is wavewn's own"),
        ({"trainer": {"max_steps": -1}}, "max_steps"),
        ({"optimiser": {"lr": -1.0}}, "lr"),
        ({"optimiser": {"final": 1.5}}, "final"),
        ({"seed": 2**32}, "seed"),
        ({"data": {"manifest": "m", "frames": 0}}, "frames"),
        ({"data": {"manifest": "m", "frames": "many"}}, "frames"),
        ({"data": {}}, "manifest"),
    ],
)
def test_a_mistake_is_one_error_that_names_the_key(file, parts, key):
    with pytest.raises(ConfigError, match=key):
        load_recipe(write(file, **parts))


def test_a_misspelt_override_is_an_error_too(file):
    with pytest.raises(ConfigError, match="data.framez"):
        load_recipe(write(file), ["--data.framez", "20"])


def test_overrides_win_at_every_depth(file):
    recipe = load_recipe(
        write(file, model={"head": {"classes": 64}}, trainer={"devices": [0]}),
        [
            "--data.frames=20",
            "--mel",
            "hifigan-22k",
            "--mel.hop_length",
            "128",
            "--model.condition.look_ahead=0",
            "--model.head.kind",
            "logistic-mixture",
            "--model.head.components",
            "3",
            "--trainer.max_steps",
            "7",
        ],
    )

    assert recipe.data.frames == 20
    assert (recipe.mel.sample_rate, recipe.mel.hop_length) == (22050, 128)
    assert recipe.model.condition.look_ahead == 0
    assert recipe.model.head == LogisticMixture(components=3)
    assert recipe.trainer == {"devices": [0], "max_steps": 7}
    assert recipe.decay_steps == 7


def test_kinds_and_presets_of_the_file_are_heard(file):
    recipe = load_recipe(
        write(
            file, mel={"preset": "tacotron2", "f_max": 7000.0}, model={"head": {"kind": "gaussian"}}
        )
    )

    assert isinstance(recipe.model.head, Gaussian)
    assert (recipe.mel.grid, recipe.mel.f_max) == ("centred", 7000.0)


@pytest.mark.parametrize(
    "text",
    [
        "data: !!python/object/apply:os.system ['touch HARM']",
        "data: {manifest: m}\ntrainer: {x: {class_path: os.system, init_args: {command: touch}}}",
        "data: {manifest: m}\nmodel: {class_path: subprocess.Popen}",
        "data: {manifest: m}\ntrainer: {logger: {class_path: os.system}}",
        "- a list",
        "data: [",
        "",
    ],
)
def test_a_recipe_makes_no_objects(file, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file.write_text(text)

    with pytest.raises(ConfigError):
        load_recipe(file)
    assert not (tmp_path / "HARM").exists()


def test_the_plain_recipe_survives_torch_load_and_json(file, tmp_path):
    plain = load_recipe(write(file)).to_dict()

    torch.save(plain, tmp_path / "x.pt")

    assert torch.load(tmp_path / "x.pt", weights_only=True) == plain
    assert json.loads(json.dumps(plain)) == plain


def test_a_saved_recipe_is_the_recipe(file, tmp_path):
    recipe = load_recipe(write(file, mel="hifigan-22k", seed=3), ["--model.head.kind", "gaussian"])
    again = tmp_path / "again.yaml"

    again.write_text(yaml.safe_dump(recipe.to_dict()))

    assert load_recipe(again) == recipe


def test_print_config_shows_all_keys_and_stops(file, capsys):
    with pytest.raises(SystemExit) as stop:
        load_recipe(write(file), ["--print_config"])

    assert stop.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["head"] == {"kind": "mu-law", "classes": 256}
    assert shown["optimiser"]["beta2"] == 0.99


@pytest.mark.parametrize("name", shipped_names("recipes"))
def test_every_shipped_recipe_can_be_read(name):
    recipe = load_recipe(shipped("recipes", name), ["--data.manifest", "m"])

    assert (recipe.adversarial is None) is (recipe.model.kind == "wavenet")
