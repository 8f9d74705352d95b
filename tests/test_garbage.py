"""Whatever garbage comes in: one clear line on stderr, exit code 2, and nothing written."""

import json
import os

import numpy as np
import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.bundle import save_bundle
from wavewn.cli.main import main
from wavewn.config import Condition, WaveNetConfig
from wavewn.models.wavenet import WaveNet

SPEC = MelSpec()


class Bomb:
    """Makes a folder when it is unpickled by anything that runs what it reads."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def home(tmp_path):
    """A folder with a random voice, a good mel, and every kind of garbage."""
    torch.manual_seed(0)
    settings = WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        cycles=1,
        layers_per_cycle=2,
        condition=Condition(channels=4),
    )
    model = WaveNet(settings, SPEC.n_mels, SPEC.hop_length, SPEC.log_floor)
    for name in ("voice", "cut-json", "cut-weights", "newer"):
        save_bundle(tmp_path / name, model, SPEC)
    mel = np.random.default_rng(0).uniform(SPEC.log_floor, 0, (SPEC.n_mels, 3)).astype(np.float32)
    np.save(tmp_path / "good.npy", mel)
    np.save(tmp_path / "transposed.npy", mel.T)
    broken = mel.copy()
    broken[3, 1] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    np.save(tmp_path / "objects.npy", np.array([Bomb(tmp_path / "harm")], dtype=object))
    torch.save({"mel": Bomb(tmp_path / "harm")}, tmp_path / "bomb.pt")
    torch.save({"state_dict": Bomb(tmp_path / "harm")}, tmp_path / "bomb.ckpt")
    (tmp_path / "text.wav").write_text("To be, or not to be, that is the question\n" * 100)
    (tmp_path / "empty.wav").touch()
    for name, file in (("cut-json", "config.json"), ("cut-weights", "model.safetensors")):
        content = (tmp_path / name / file).read_bytes()
        (tmp_path / name / file).write_bytes(content[: len(content) // 2])
    config = json.loads((tmp_path / "newer/config.json").read_text())
    (tmp_path / "newer/config.json").write_text(json.dumps(config | {"format": 99}))
    (tmp_path / "misspelt.yaml").write_text(
        "data: {manifest: nowhere}\nmel: wavewn-16k\nmodel: {kind: wavenet, residual_chanels: 32}\n"
    )
    (tmp_path / "broken.yaml").write_text("model: [}")
    return tmp_path


def tree(folder):
    """Every path below `folder` with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


SYNTH = "synth {home}/%s {home}/%s -o {home}/out"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SYNTH % ("voice", "text.wav"), "not an audio file"),
        (SYNTH % ("voice", "empty.wav"), "empty (0 bytes)"),
        (SYNTH % ("voice", "transposed.npy"), "the mel is transposed"),
        (SYNTH % ("voice", "nan.npy"), "NaN"),
        (SYNTH % ("voice", "objects.npy"), "cannot be read"),
        (SYNTH % ("voice", "bomb.pt"), "pickled code is never run"),
        (SYNTH % ("cut-json", "good.npy"), "truncated"),
        (SYNTH % ("cut-weights", "good.npy"), "truncated"),
        (SYNTH % ("newer", "good.npy"), "upgrade wavewn"),
        (SYNTH % ("bomb.pt", "good.npy"), "pickled code is never run"),
        (SYNTH % ("text.wav", "good.npy"), "not a checkpoint of `wavewn train`"),
        (SYNTH % ("wavenet-xx", "good.npy"), "check the spelling"),
        ("export {home}/bomb.ckpt -o {home}/out", "pickled code is never run"),
        ("export {home}/good.npy -o {home}/out", "good.npy"),
        ("export {home} -o {home}/out", "expected a checkpoint, a .ckpt file"),
        ("export {home}/voice -o {home}/out --calibrate {home}/text.wav", "not an audio file"),
        ("export {home}/voice -o {home}/out --calibrate {home}/none", "no such file or folder"),
        ("export {home}/cut-json -o {home}/out", "truncated"),
        ("export {home}/none.ckpt -o {home}/out", "no such file"),
        ("train {home}/misspelt.yaml", "residual_chanels"),
        ("train {home}/broken.yaml", "cannot be read as YAML"),
        ("train nonsense", "check the spelling"),
        ("prepare {home}/text.wav --out {home}/out", "text.wav"),
    ],
)
def test_garbage_is_one_line_and_harms_nothing(home, monkeypatch, capsys, command, message):
    monkeypatch.chdir(home)
    before = tree(home)

    assert main(command.format(home=home).split()) == 2

    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("wavewn: error: ")
    assert message in error[0]
    assert tree(home) == before


def test_the_good_ones_pass(home):
    assert main((SYNTH % ("voice", "good.npy")).format(home=home).split()) == 0
    assert (home / "out/good.wav").stat().st_size > 600 * 2
