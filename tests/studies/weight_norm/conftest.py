"""A study that takes seconds: tiny networks on buzzing noise of two speakers."""

import dataclasses

import numpy as np
import pytest
import torch

from wavewn.audio.io import write_audio
from wavewn.data.manifest import Utterance, save_manifest
from wavewn.studies.weight_norm.report import write_report
from wavewn.studies.weight_norm.run import load_study_speech, run_cells
from wavewn.studies.weight_norm.settings import SIX, StudySettings
from wavewn.studies.weight_norm.summary import Study

RATE = 8000
TOY = StudySettings(
    "toy",
    norms=SIX,
    batches=(1, 2),
    seeds=(0, 1),
    steps=4,
    warmup=2,
    decay_from=3,
    classes=8,
    residual_channels=4,
    skip_channels=5,
    dilations=(1, 2),
    scored=32,
    held_out=6,
    free_samples=260,
    levels_db=(-20.0, 0.0),
    hidden=5,
    recurrent_steps=3,
    recurrent_batch=3,
    recurrent_length=16,
)


def buzz(seed, samples, hz):
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    audio = np.sign(np.sin(2 * np.pi * hz * time)) * 0.2 + generator.normal(0, 0.05, samples)
    return torch.from_numpy(audio.astype(np.float32))


def make_corpus(folder, speakers):
    """Two recordings to train on and one to test with for each speaker."""
    splits = {"train": [], "valid": [], "test": []}
    for number, speaker in enumerate(speakers):
        for i, split in enumerate(("train", "train", "test")):
            path = folder / f"{speaker}-{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, buzz(10 * number + i, 1600, 90 + 60 * number), RATE)
            splits[split].append(Utterance(path, 1600, RATE, speaker))
    save_manifest(folder, splits, [], "toy")
    return folder


@pytest.fixture(scope="session")
def toy():
    return TOY


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), ["anna", "boris"])


@pytest.fixture(scope="session")
def lonely_corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("lonely"), ["anna"])


@pytest.fixture(scope="session")
def speech(corpus):
    return load_study_speech(TOY, corpus)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, speech):
    """A finished study and its folder, with the report in it."""
    out = tmp_path_factory.mktemp("study")
    study = Study(TOY, run_cells(TOY, speech, out, workers=1))
    write_report(study, out)
    return study, out


@pytest.fixture
def changed():
    """Make settings like the toy's with something changed."""
    return lambda **values: dataclasses.replace(TOY, **values)
