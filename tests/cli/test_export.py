"""`wavewn export` makes a bundle of a checkpoint, once."""

import dataclasses

import pytest
import torch

from wavewn.bundle import load_bundle
from wavewn.cli.main import main
from wavewn.nn.weight_norm import apply_weight_norm, folded_state_dict


@pytest.fixture
def checkpoint(tmp_path, model, spec):
    """A checkpoint as `wavewn train` writes it, whose averaged weights are all halved."""
    apply_weight_norm(model)
    state = model.state_dict()
    content = {
        "wavewn": {
            "format": 1,
            "recipe": {"mel": spec.to_dict(), "model": dataclasses.asdict(model.settings)},
            "speakers": ["anna", "boris"],
            "ema": {key: v / 2 if "original0" in key else v for key, v in state.items()},
            "step": 1200,
        },
        "state_dict": {f"model.{key}": value for key, value in state.items()},
    }
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_bundle_comes_out(checkpoint, model, tmp_path, capsys):
    out = tmp_path / "voice"

    assert main(["export", str(checkpoint), "-o", str(out), "--licence", "CC0 1.0"]) == 0

    bundle = load_bundle(out)
    assert bundle.speakers == ["anna", "boris"]
    assert bundle.config["licence"] == "CC0 1.0"
    assert bundle.config["provenance"] == {"steps": 1200, "weights": "ema"}
    whole = folded_state_dict(model)["output.weight"]
    torch.testing.assert_close(bundle.model.output.weight, whole / 2)
    assert "CC0 1.0" in (out / "README.md").read_text()
    assert "after 1200 steps (ema, float32)" in capsys.readouterr().out


def test_raw_weights_and_float16_are_options(checkpoint, model, tmp_path):
    out = tmp_path / "voice"

    assert (
        main(["export", str(checkpoint), "-o", str(out), "--weights", "raw", "--dtype", "float16"])
        == 0
    )

    whole = folded_state_dict(model)["output.weight"]
    assert torch.equal(load_bundle(out).model.output.weight, whole.half().float())


def test_a_bundle_is_replaced_only_with_force(checkpoint, voice, capsys):
    before = (voice / "model.safetensors").read_bytes()

    assert main(["export", str(checkpoint), "-o", str(voice)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (voice / "model.safetensors").read_bytes() == before

    assert main(["export", str(checkpoint), "-o", str(voice), "--force"]) == 0
    assert (voice / "model.safetensors").read_bytes() != before
