"""Recipes of one-pass generators: every kind of model, and the game with the discriminators."""

import json
from dataclasses import replace

import pytest
import torch
import yaml

from wavewn.config import (
    DISCRIMINATORS,
    AdversarialConfig,
    DiscriminatorsConfig,
    HiFiGANConfig,
    MelGANConfig,
    SpectralConfig,
    WaveNetConfig,
)
from wavewn.config.presets import PRESETS
from wavewn.data.module import DataConfig
from wavewn.errors import ConfigError
from wavewn.training.recipe import Recipe, load_recipe


def write(path, **parts):
    parts = {"data": {"manifest": "m"}, "model": {"kind": "hifigan"}, **parts}
    path.write_text(yaml.safe_dump(parts))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("kind", ["hifigan", "melgan", "parallel-wavegan", "spectral"])
def test_every_kind_of_generator_is_read_and_plays_by_default(file, kind):
    recipe = load_recipe(write(file, model={"kind": kind}))

    assert recipe.model.kind == kind
    assert recipe.adversarial == AdversarialConfig()
    assert Recipe(DataConfig("m"), model=recipe.model).adversarial == AdversarialConfig()


def test_a_wavenet_plays_no_game(file):
    recipe = load_recipe(write(file, model={"kind": "wavenet"}))

    assert recipe.adversarial is None
    assert "adversarial" not in recipe.to_dict()
    for given in ({}, {"warmup_steps": 3}):
        with pytest.raises(ConfigError, match="adversarial is for one-pass generators"):
            load_recipe(write(file, model={"kind": "wavenet"}, adversarial=given))
    with pytest.raises(ConfigError, match="adversarial is for one-pass generators"):
        Recipe(DataConfig("m"), adversarial=AdversarialConfig())
    with pytest.raises(ConfigError, match="adversarial"):
        load_recipe(write(file, model={"kind": "wavenet"}), ["--adversarial.loss", "hinge"])


def test_discriminators_are_a_preset_with_changes(file):
    named = load_recipe(write(file, adversarial={"discriminators": "light"}))
    changed = {"discriminators": {"preset": "light", "periods": [2, 3]}}
    overrides = ["--adversarial.discriminators.channels", "16", "--adversarial.loss=hinge"]
    mixed = load_recipe(write(file, adversarial=changed), overrides)
    taken = load_recipe(write(file), ["--adversarial.discriminators", "light"])

    assert named.adversarial.discriminators == DISCRIMINATORS["light"]
    assert taken.adversarial.discriminators == DISCRIMINATORS["light"]
    assert mixed.adversarial.discriminators == DiscriminatorsConfig(
        periods=(2, 3),
        scales=0,
        resolutions=DISCRIMINATORS["light"].resolutions,
        channels=16,
        max_channels=64,
    )
    assert mixed.adversarial.loss == "hinge"


def test_a_model_is_a_preset_with_changes(file):
    named = load_recipe(write(file, model="hifigan-v3"))
    changed = load_recipe(write(file, model={"preset": "hifigan-v2-16k", "causal": True}))
    taken = load_recipe(file, ["--model", "melgan", "--model.stacks", "2"])

    assert named.model == PRESETS["hifigan-v3"]
    assert changed.model == replace(PRESETS["hifigan-v2-16k"], causal=True)
    assert taken.model == MelGANConfig(stacks=2)


def test_sizes_are_read_and_overridden_and_another_kind_drops_them(file):
    sizes = {"kind": "hifigan", "upsample_rates": [10, 5], "upsample_kernel_sizes": [20, 11]}
    path = write(file, model=sizes)

    recipe = load_recipe(path, ["--model.channels", "64", "--model.causal", "true"])
    other = load_recipe(path, ["--model.kind", "spectral", "--model.dilations", "[1, 3]"])

    assert recipe.model == HiFiGANConfig(
        channels=64, upsample_rates=(10, 5), upsample_kernel_sizes=(20, 11), causal=True
    )
    assert other.model == SpectralConfig(dilations=(1, 3))
    assert isinstance(load_recipe(path, ["--model.kind", "wavenet"]).model, WaveNetConfig)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"model": {"kind": "hifigam"}}, "model.kind must be one of wavenet, hifigan"),
        ({"model": "hifigan-v9"}, "no model preset is called 'hifigan-v9'; there are hifigan-v1"),
        ({"model": {"preset": "melgan", "kind": "hifigan"}}, "preset melgan is of kind melgan"),
        ({"model": None}, "model must be a group"),
        ({"model": {"kind": "hifigan", "skip_channels": 8}}, "skip_channels"),
        ({"model": {"kind": "hifigan", "head": {"kind": "mu-law"}}}, "head"),
        ({"model": {"kind": "hifigan", "causal": True, "padding": "reflect"}}, "causal"),
        ({"adversarial": {"discriminators": "lite"}}, "must be one of hifigan, light, got lite"),
        ({"adversarial": {"discriminators": {"preset": "light", "period": 3}}}, "period"),
        ({"adversarial": {"discriminators": None}}, "discriminators"),
        ({"adversarial": {"loss": "wasserstein"}}, "wasserstein"),
        ({"adversarial": {"mel_loss": "double"}}, "double"),
        ({"adversarial": {"mel_weight": -1.0}}, "mel_weight"),
        ({"adversarial": {"lr": 0.0}}, "adversarial.lr"),
        ({"adversarial": {"loss": None}}, "adversarial.loss must have a value"),
        ({"adversarial": {"warmup_steps": 5, "mel_weight": 0}}, "without discriminators"),
        ({"adversarial": {"mel_weight": 0, "adversarial_weight": 0}}, "all weights are 0"),
        ({"adversarial": {"gradient_clip_val": -1}}, "gradient_clip_val"),
        ({"adversarial": 3}, "adversarial must be a group of keys"),
        ({"data": {"manifest": "m", "noise": 0.1}}, "data.noise"),
        ({"data": {"manifest": "m", "dropout": 0.1}}, "data.dropout"),
        ({"optimiser": {"predictor_steps": 5}}, "predictor_steps"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "accumulate_grad_batches"),
    ],
)
def test_a_mistake_is_one_error_that_names_the_key(file, parts, key):
    with pytest.raises(ConfigError, match=key):
        load_recipe(write(file, **parts))


def test_the_plain_recipe_survives_torch_load_and_json_and_is_the_recipe(file, tmp_path):
    game = {"discriminators": "light", "lr": 1e-4, "context": 2, "mel_loss": "multi-scale-light"}
    recipe = load_recipe(write(file, adversarial=game))
    plain = recipe.to_dict()

    torch.save(plain, tmp_path / "x.pt")
    file.write_text(yaml.safe_dump(plain))

    assert torch.load(tmp_path / "x.pt", weights_only=True) == plain
    assert json.loads(json.dumps(plain)) == plain
    assert load_recipe(file) == recipe


def test_print_config_shows_the_game(file, capsys):
    with pytest.raises(SystemExit):
        load_recipe(write(file), ["--print_config"])

    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["kind"] == "hifigan"
    assert shown["adversarial"]["discriminators"]["periods"] == [2, 3, 5, 7, 11]


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [(["--adversarial.stft_weight", "1.0"], 1024), (["--adversarial.mel_loss=multi-scale"], 1024)],
)
def test_a_crop_that_the_losses_cannot_see_whole_is_refused(
    run, generator_file, tmp_path, overrides, needed
):
    with pytest.raises(ConfigError, match=f"data.frames is 8 .* more than {needed} at once"):
        run(generator_file, tmp_path / "run", *overrides)


def test_a_strategy_that_owns_the_backward_pass_is_refused(
    run, generator_file, tmp_path, monkeypatch
):
    class Other:
        """Makes the strategy of this machine one that is not known."""

    monkeypatch.setattr("wavewn.training.run.SingleDeviceStrategy", Other)

    with pytest.raises(ConfigError, match="trainer.strategy is SingleDevice.*take ddp"):
        run(generator_file, tmp_path / "run")


def test_a_hop_that_is_not_the_mels_is_refused(run, generator_file, tmp_path):
    with pytest.raises(ConfigError, match="hop_length"):
        run(generator_file, tmp_path / "run", "--mel.hop_length", "40")
