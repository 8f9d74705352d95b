"""Files that were cut, bit-flipped or scribbled over: a `WavewnError` or a good answer, no more."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavewn.audio.io import audio_info, read_audio, read_segment
from wavewn.audio.mel_files import load_mel
from wavewn.bundle import load_bundle, load_checkpoint, save_bundle
from wavewn.data.manifest import SPLITS, Utterance, load_manifest, load_summary, save_manifest
from wavewn.errors import WavewnError
from wavewn.training.recipe import load_recipe

RATE = 16000
MEL = np.random.default_rng(0).uniform(-11, 1, (4, 30)).astype(np.float32)
# The same examples every time: what fails for one fails for all.
HARD = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def read_recording(path):
    read_audio(path, 8000)
    read_segment(path, 100, 200)
    assert audio_info(path).sample_rate > 0


def read_manifest(path):
    load_summary(path.parent)
    for split in SPLITS:
        for utterance in load_manifest(path.parent, split):
            assert utterance.duration_s >= 0


def save_h5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["mel"] = MEL


def save_recording(path, **options):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 2000)
    soundfile.write(path, audio, RATE, **options)


def save_corpus(path):
    folder = path.parent
    (folder / "a.wav").touch()
    found = [Utterance(folder / "a.wav", 100, RATE, "anna", "text")] * 3
    save_manifest(folder, {"train": found, "valid": found, "test": found}, [], "x", force=True)


def save_recipe(path):
    parts = {"data": {"manifest": "m"}, "mel": "hifigan-22k", "trainer": {"max_steps": 5}}
    path.write_text(yaml.safe_dump({**parts, "model": {"head": {"kind": "gaussian"}}}))


FILES = {  # how a good one is written, and read
    "a.wav": (save_recording, read_recording),
    "a.flac": (save_recording, read_recording),
    "a.ogg": (save_recording, read_recording),
    "a.mp3": (save_recording, read_recording),
    "a.npy": (lambda path: np.save(path, MEL), load_mel),
    "a.npz": (lambda path: np.savez_compressed(path, mel=MEL), load_mel),
    "a.pt": (lambda path: torch.save({"mel": torch.from_numpy(MEL)}, path), load_mel),
    "a.h5": (save_h5, load_mel),
    "a.yaml": (save_recipe, load_recipe),
    "manifest.json": (save_corpus, read_manifest),
    "train.jsonl": (save_corpus, read_manifest),
}


def read_or_refuse(read, path):
    """Read; an error must be ours, in one plain line."""
    try:
        read(path)
    except WavewnError as error:
        assert str(error).strip()
        assert "weights_only" not in str(error)


@pytest.mark.parametrize("name", FILES)
@HARD
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(name, data, damaged, tmp_path_factory):
    write, read = FILES[name]
    folder = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    if not folder.is_dir():
        folder.mkdir()
        write(folder / name)
        read(folder / name)  # so that the errors below come from the damage
        (folder / f"{name}.good").write_bytes((folder / name).read_bytes())
    whole = (folder / f"{name}.good").read_bytes()
    before = sorted(folder.iterdir())
    broken = data.draw(damaged(whole))
    (folder / name).write_bytes(broken)

    read_or_refuse(read, folder / name)

    assert (folder / name).read_bytes() == broken
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@HARD
@given(data=st.data())
def test_a_damaged_bundle_is_read_or_refused(name, data, damaged, model, spec, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "damaged-bundle"
    save_bundle(folder, model, spec, force=folder.exists())
    broken = data.draw(damaged((folder / name).read_bytes()))
    (folder / name).write_bytes(broken)

    read_or_refuse(load_bundle, folder)

    assert (folder / name).read_bytes() == broken


@HARD
@given(data=st.data())
def test_a_damaged_checkpoint_is_read_or_refused(data, damaged, model, spec, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    recipe = {"model": dataclasses.asdict(model.settings), "mel": spec.to_dict()}
    ours = {"format": 1, "recipe": recipe, "speakers": [], "step": 3, "ema": model.state_dict()}
    torch.save({"state_dict": {}, "wavewn": ours}, path)
    load_checkpoint(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))

    read_or_refuse(load_checkpoint, path)


KEYS = st.sampled_from(
    ["data", "manifest", "mel", "preset", "model", "head", "kind", "trainer", "optimiser", "lr"]
    + ["config", "print_config", "help", "clips", "seed", "init_from", "class_path", "init_args"]
)
LEAVES = st.sampled_from(
    [None, True, -1, 2**64, 10**400, 1e308, float("nan"), float("inf"), "", "m", "\0", "é" * 99]
    + ["--help", "os.system", "/dev/zero", "/etc/passwd", "wavenet", "hifigan-22k", "gaussian"]
)
TREES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=4),
    max_leaves=8,
)


@HARD
@given(tree=st.dictionaries(KEYS, TREES, max_size=5))
def test_any_tree_is_a_recipe_or_refused(tree, tmp_path_factory, capsys):
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(yaml.safe_dump({"data": {"manifest": "m"}, **tree}), "utf-8")

    read_or_refuse(load_recipe, path)


@HARD
@given(field=st.sampled_from(["model", "mel", "speakers", "verdict", "provenance"]), value=TREES)
def test_any_field_of_a_bundle_is_checked(field, value, model, spec, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "fields"
    save_bundle(folder, model, spec, force=folder.exists())
    config = json.loads((folder / "config.json").read_text())
    if isinstance(config[field], dict) and isinstance(value, (int, float)):
        for key in config[field]:
            changed = {**config, field: {**config[field], key: value}}
            (folder / "config.json").write_text(json.dumps(changed))
            read_or_refuse(load_bundle, folder)
    else:
        (folder / "config.json").write_text(json.dumps({**config, field: value}))
        read_or_refuse(load_bundle, folder)
