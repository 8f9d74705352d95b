"""A corpus of chirps and a recipe so small that a step takes milliseconds."""

import numpy as np
import pytest
import yaml
from lightning.pytorch import Callback

from wavewn.audio.io import write_audio
from wavewn.data.manifest import Utterance, save_manifest
from wavewn.training.recipe import load_recipe
from wavewn.training.run import train

RATE = 4000
RECIPE = {
    "data": {
        "frames": 8,
        "batch_size": 2,
        "workers": 0,
        "valid_frames": 10,
        "valid_batch_size": 2,
        "valid_batches": 2,
    },
    "mel": {
        "sample_rate": RATE,
        "n_fft": 128,
        "hop_length": 50,
        "win_length": 128,
        "n_mels": 8,
        "f_min": 50.0,
        "f_max": 2000.0,
    },
    "model": {
        "residual_channels": 8,
        "skip_channels": 8,
        "head_channels": 8,
        "cycles": 1,
        "layers_per_cycle": 3,
        "head": {"kind": "mu-law", "classes": 32},
        "condition": {"channels": 8, "layers": 1, "look_ahead": 1},
    },
    "optimiser": {"lr": 0.01, "warmup_steps": 3, "decay_steps": 12},
    "clips": {"every": 0},
    "trainer": {
        "max_steps": 12,
        "val_check_interval": 4,
        "log_every_n_steps": 1,
        "precision": "32-true",
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "checkpoint_every": 4,
}

GENERATOR = {
    **RECIPE,
    "model": {
        "kind": "hifigan",
        "channels": 16,
        "upsample_rates": [10, 5],
        "upsample_kernel_sizes": [20, 10],
        "resblock": "2",
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilations": [[1, 2], [1, 3]],
    },
    "adversarial": {
        "discriminators": {
            "periods": [2, 3],
            "scales": 2,
            "resolutions": [[128, 32, 128]],
            "channels": 4,
            "max_channels": 16,
        },
        "mel_weight": 10.0,
    },
}

KINDS = {
    "hifigan": (),
    "noisy": (  # a generator that noise drives
        *("--model.kind", "parallel-wavegan"),
        *("--model.residual_channels", "8"),
        *("--model.gate_channels", "8"),
        *("--model.skip_channels", "8"),
        *("--model.cycles", "1"),
        *("--model.layers_per_cycle", "3"),
        *("--model.upsample_rates", "[10, 5]"),
    ),
    "spectral": (
        *("--model.kind", "spectral"),
        *("--model.channels", "8"),
        *("--model.hidden_channels", "8"),
        *("--model.dilations", "[1, 2]"),
        *("--model.look_ahead", "1"),
        *("--model.n_fft", "100"),
        *("--mel.n_fft", "256", "--mel.win_length", "150"),
    ),
}


def chirp(seed, samples=RATE):
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    phase = 2 * np.pi * (200 + 50 * seed) * time * (1 + 0.3 * time)
    return (0.4 * np.sin(phase) + 0.02 * generator.standard_normal(samples)).astype(np.float32)


@pytest.fixture
def manifest(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    found = []
    for number in range(6):
        path = folder / f"{number}.wav"
        write_audio(path, chirp(number), RATE)
        found.append(Utterance(path, RATE, RATE))
    save_manifest(folder, {"train": found[:4], "valid": found[4:5], "test": found[5:]}, [], "x")
    return folder


@pytest.fixture
def recipe_file(tmp_path, manifest):
    path = tmp_path / "tiny.yaml"
    data = {**RECIPE["data"], "manifest": str(manifest)}
    path.write_text(yaml.safe_dump({**RECIPE, "data": data}))
    return path


@pytest.fixture
def generator_file(tmp_path, manifest):
    path = tmp_path / "generator.yaml"
    data = {**GENERATOR["data"], "manifest": str(manifest)}
    path.write_text(yaml.safe_dump({**GENERATOR, "data": data}))
    return path


@pytest.fixture
def kinds():
    """Overrides of the recipe `generator_file`, by kind of model."""
    return KINDS


class Curve(Callback):
    """Remembers what Lightning logged."""

    def __init__(self):
        self.train, self.valid, self.first = {}, {}, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.first is None:
            self.first = {k: v.clone() for k, v in pl_module.model.state_dict().items()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.train[trainer.global_step] = outputs["loss"].item()

    def on_validation_end(self, trainer, pl_module):
        self.valid[trainer.global_step] = trainer.callback_metrics["loss/valid"].item()


@pytest.fixture
def run():
    """Train with overrides; gives the best checkpoint and the `Curve`."""

    def run(recipe_file, out, *overrides, **options):
        curve = Curve()
        best = train(load_recipe(recipe_file, list(overrides)), out, callbacks=[curve], **options)
        return best, curve

    return run
