"""A training checkpoint reads as a bundle, or says what is wrong; no pickle is ever run."""

import dataclasses
import os
import pickle

import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.bundle import load_bundle, load_checkpoint, save_bundle
from wavewn.errors import BundleError
from wavewn.models.wavenet import WaveNet
from wavewn.nn.weight_norm import apply_weight_norm, folded_state_dict


def checkpoint(model, spec, **changes):
    """Lay a checkpoint out as `wavewn train` does; `changes` go into its part "wavewn"."""
    state = model.state_dict()
    ours = {
        "format": 1,
        "recipe": {"mel": spec.to_dict(), "model": dataclasses.asdict(model.settings)},
        "speakers": [],
        "ema": {key: value.clone() for key, value in state.items()},
        "step": 7,
    }
    return {
        "wavewn": {**ours, **changes},
        "state_dict": {f"model.{k}": v for k, v in state.items()},
    }


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_checkpoint_loads_folded(small, spec, tmp_path, weights):
    raw, ema = small(seed=1), small(seed=2)
    apply_weight_norm(raw)
    apply_weight_norm(ema)
    torch.save(checkpoint(raw, spec, ema=ema.state_dict()), tmp_path / "a.ckpt")

    bundle = load_checkpoint(tmp_path / "a.ckpt", weights)

    wanted = folded_state_dict(ema if weights == "ema" else raw)
    for key, value in wanted.items():
        assert torch.equal(bundle.model.state_dict()[key], value), key
    assert bundle.mel == spec
    assert bundle.config["provenance"] == {"steps": 7, "weights": weights}
    save_bundle(tmp_path / "v", bundle.model, bundle.mel)
    assert load_bundle(tmp_path / "v").model.settings == raw.settings


def test_a_checkpoint_may_name_its_mel(small, tmp_path):
    spec = MelSpec.preset("wavewn-16k")
    model = WaveNet(small().settings, spec.n_mels, spec.hop_length, spec.log_floor)
    recipe = {"mel": "wavewn-16k", "model": dataclasses.asdict(model.settings)}
    torch.save(checkpoint(model, spec, recipe=recipe), tmp_path / "a.ckpt")

    assert load_checkpoint(tmp_path / "a.ckpt").mel == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "has format 9"),
        ({"recipe": None}, "holds no recipe"),
        ({"recipe": {"mel": "nonsense"}}, "no mel preset"),
        ({"recipe": {"mel": {}, "model": None}}, "model must be dict"),
        ({"ema": None}, "holds no ema weights"),
        ({"ema": {"a": 1}}, "holds no ema weights"),
        ({"ema": {}}, "fewer tensors"),
        ({"speakers": ["anna"]}, "0 speakers, 1 are named"),
    ],
)
def test_a_broken_checkpoint_says_what_is_wrong(small, spec, tmp_path, changes, message):
    torch.save(checkpoint(small(), spec, **changes), tmp_path / "a.ckpt")

    with pytest.raises(BundleError, match=message):
        load_checkpoint(tmp_path / "a.ckpt")


class Bomb:
    """Creates a file when it is unpickled by anything that runs what it reads."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, container):
    path, bomb = tmp_path / "a.ckpt", {"wavewn": Bomb(tmp_path / "harm")}
    if container == "torch":
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb, protocol=2))

    with pytest.raises(BundleError, match="pickled code is never run"):
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()

    if container == "torch":  # so that the line above can fail
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVEfmt ", b"PK\x03\x04 no zip"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)

    with pytest.raises(BundleError, match=r"a\.ckpt: "):
        load_checkpoint(tmp_path / "a.ckpt")


def test_other_torch_files_are_no_checkpoints(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pt")

    with pytest.raises(BundleError, match="not a checkpoint of `wavewn train`"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(BundleError, match="no such file"):
        load_checkpoint(tmp_path / "b.ckpt")
