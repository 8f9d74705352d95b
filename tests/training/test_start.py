"""What a training starts from, what it refuses, and every switch of a recipe once."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wavewn.audio.io import write_audio
from wavewn.bundle import load_checkpoint, save_bundle
from wavewn.data.manifest import load_manifest, save_manifest
from wavewn.errors import ConfigError, DataError, TrainingError, WavewnError

SAVED = runpy.run_path(str(Path(__file__).with_name("checkpoints.py")))
read, last = SAVED["read"], SAVED["last"]


def test_init_from_starts_with_these_weights(run, recipe_file, tmp_path):
    best, fresh = run(recipe_file, tmp_path / "first")
    bundle = load_checkpoint(best)
    save_bundle(tmp_path / "bundle", bundle.model, bundle.mel)
    short = ("--trainer.max_steps", "1", "--seed", "5")

    _, from_bundle = run(recipe_file, tmp_path / "a", *short, init_from=tmp_path / "bundle")
    _, from_checkpoint = run(recipe_file, tmp_path / "b", *short, init_from=best)

    ema = read(best)["wavewn"]["ema"]
    direction = "hidden.parametrizations.weight.original0"
    assert not torch.allclose(fresh.first[direction], ema[direction])
    for curve in (from_bundle, from_checkpoint):
        assert torch.allclose(curve.first[direction], ema[direction], rtol=1e-5)  # folded, unfolded
        assert curve.train[1] < fresh.train[1]


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["--model.residual_channels", "4"], "another model"),
        (["--mel.f_max", "1900"], "mels are not"),
    ],
)
def test_init_from_refuses_what_does_not_fit(run, recipe_file, tmp_path, overrides, what):
    best, _ = run(recipe_file, tmp_path / "first", "--trainer.max_steps", "1")

    with pytest.raises(ConfigError, match=what):
        run(recipe_file, tmp_path / "second", *overrides, init_from=last(tmp_path / "first"))


def test_another_model_is_not_resumed_and_a_run_not_replaced(run, recipe_file, tmp_path):
    run(recipe_file, tmp_path / "run", "--trainer.max_steps", "1")

    with pytest.raises(TrainingError, match="--resume"):
        run(recipe_file, tmp_path / "run")
    with pytest.raises(ConfigError, match="other model or mel settings"):
        run(recipe_file, tmp_path / "run", "--model.skip_channels", "4", resume="auto")
    with pytest.raises(TrainingError, match="no such checkpoint"):
        run(recipe_file, tmp_path / "run", resume="nowhere.ckpt")


def test_the_recipe_of_a_run_can_be_trained_from_the_current_folder(run, recipe_file, tmp_path):
    run(
        recipe_file,
        tmp_path / "run",
        "--data.manifest",
        "corpus",
        "--trainer.max_steps",
        "1",
        folder=tmp_path,
    )

    _, curve = run(
        tmp_path / "run" / "recipe.yaml",
        tmp_path / "run",
        "--trainer.max_steps",
        "2",
        resume="auto",
    )

    assert list(curve.train) == [2]


def test_a_place_that_cannot_be_written_is_an_error_before_the_first_step(run, recipe_file):
    with pytest.raises(ConfigError, match="--out: cannot write into .*checkpoints"):
        run(recipe_file, recipe_file / "run")


def test_a_training_that_cannot_start_leaves_no_folder(run, recipe_file, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        run(recipe_file, tmp_path / "run", "--data.manifest", "nowhere")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "error", "what"),
    [
        (["--trainer.accelerator", "abacus"], ConfigError, "abacus"),
        (["--trainer.precision", "7"], ConfigError, "7"),
        (["--data.manifest", "nowhere"], DataError, "nowhere"),
        (["--data.frames", "5000"], DataError, "data.frames"),
        (["--model.speakers", "3"], ConfigError, "model.speakers"),
        (["--mel.gain", "2.0"], ConfigError, "mel.gain"),
        (["--init_from", "no-bundle"], WavewnError, "no-bundle"),
    ],
)
def test_what_cannot_run_says_why(run, recipe_file, tmp_path, overrides, error, what):
    with pytest.raises(error, match=re.escape(what)):
        run(recipe_file, tmp_path / "run", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["--model.head.kind", "logistic-mixture", "--model.head.components", "2"],
        ["--model.head.kind", "gaussian", "--trainer.precision", "bf16-mixed"],
        ["--model.condition.upsampling", "transposed", "--model.kernel_size", "3"],
        ["--optimiser.weight_decay", "0.1", "--data.workers", "2", "--optimiser.decay_steps", "9"],
    ],
)
def test_every_switch_trains(run, recipe_file, tmp_path, overrides):
    _, curve = run(recipe_file, tmp_path / "run", *overrides)

    assert len(curve.train) == 12
    assert np.isfinite(list(curve.train.values())).all()


def test_generated_clips_and_their_pictures_reach_tensorboard(run, recipe_file, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(recipe_file, tmp_path / "run", "--clips.every", "2", "--clips.seconds", "0.1")

    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert events.Tags()["audio"] == ["clip/4", "clip/4/recording"]
    assert [event.step for event in events.Audio("clip/4")] == [8]
    assert events.Images("clip/4")[0].width == 8  # frames of 0.1 s
    assert {"loss/train", "loss/valid", "gradient_norm"} <= set(events.Tags()["scalars"])


def test_speakers_are_learnt_named_and_generated(run, recipe_file, manifest, tmp_path):
    splits = {}
    for split in ("train", "valid", "test"):
        found = load_manifest(manifest, split)
        splits[split] = [replace(one, speaker=f"s{int(one.path.stem) % 2}") for one in found]
    save_manifest(manifest, splits, [], "x", force=True)

    clips = ("--clips.every", "1", "--clips.seconds", "0.1")
    best, _ = run(recipe_file, tmp_path / "run", "--model.speakers", "2", *clips)

    assert read(best)["wavewn"]["speakers"] == load_checkpoint(best).speakers == ["s0", "s1"]
    embedding = read(best)["state_dict"]["model.condition.embedding.weight"]
    assert not torch.equal(embedding[0], embedding[1])

    renamed = {k: [replace(u, speaker=f"x{u.speaker}") for u in v] for k, v in splits.items()}
    save_manifest(manifest, renamed, [], "x", force=True)
    with pytest.raises(ConfigError, match="speakers s0, s1, the manifest names xs0, xs1"):
        run(recipe_file, tmp_path / "run", "--model.speakers", "2", resume="auto")


def test_silence_cannot_initialise(run, recipe_file, manifest, tmp_path):
    for path in manifest.glob("*.wav"):
        write_audio(path, np.zeros(4000, np.float32), 4000)

    with pytest.raises(WavewnError, match="silen"):
        run(recipe_file, tmp_path / "run")
