"""`wavewn export` makes a bundle of a checkpoint, once."""

import dataclasses

import pytest
import torch

from wavewn.audio.io import write_audio
from wavewn.bundle import calibration_of, load_bundle
from wavewn.cli.main import main
from wavewn.data.manifest import Utterance, save_manifest
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


@pytest.fixture
def recordings(tmp_path, spec):
    """Four recordings of noise, listed in a manifest with the speakers of the model."""
    (tmp_path / "corpus").mkdir()
    rows = []
    for i in range(4):
        generator = torch.Generator().manual_seed(i)
        audio = 0.1 * torch.randn(spec.sample_rate // 2, generator=generator)
        write_audio(tmp_path / f"corpus/{i}.wav", audio, spec.sample_rate)
        speaker = ("anna", "boris")[i % 2]
        path = tmp_path / f"corpus/{i}.wav"
        rows.append(Utterance(path, len(audio), spec.sample_rate, speaker))
    save_manifest(tmp_path / "corpus", {"train": rows, "valid": [], "test": []}, [], "noise")
    return tmp_path / "corpus"


def test_without_recordings_only_float32_is_known(checkpoint, tmp_path, capsys):
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "v")]) == 0

    assert load_bundle(tmp_path / "v").config["verdict"] == {"float32": {"usable": True}}
    assert "usable precisions: float32 (for the others, name" in capsys.readouterr().out


def test_precisions_are_measured_on_the_corpus_of_the_checkpoint(
    checkpoint, recordings, tmp_path, capsys
):
    content = torch.load(checkpoint, weights_only=True)
    content["wavewn"]["recipe"]["data"] = {"manifest": str(recordings)}
    torch.save(content, checkpoint)

    assert main(["export", str(checkpoint), "-o", str(tmp_path / "v")]) == 0

    config = load_bundle(tmp_path / "v").config
    assert list(config["verdict"]) == ["float32", "float16", "int8"]
    calibration = calibration_of(config)
    assert len(calibration.inputs) == 3
    assert "measured on 4 recordings" in capsys.readouterr().out
    assert str(recordings) not in (tmp_path / "v/config.json").read_text()

    recordings.rename(tmp_path / "moved")
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "w")]) == 0
    assert list(load_bundle(tmp_path / "w").config["verdict"]) == ["float32"]
    assert "is not here; for the others, name" in capsys.readouterr().out


def test_a_bundle_gets_its_verdict_without_its_checkpoint(voice, recordings, tmp_path, capsys):
    before = load_bundle(voice)
    command = ["export", str(voice), "-o", str(voice), "--force"]
    assert main([*command, "--calibrate", str(recordings)]) == 0

    after = load_bundle(voice)
    assert list(after.config["verdict"]) == ["float32", "float16", "int8"]
    for key, value in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[key], value), key

    # and keeps it when it goes through again
    assert main(["export", str(voice), "-o", str(tmp_path / "copy"), "--licence", "MIT"]) == 0
    copy = load_bundle(tmp_path / "copy").config
    assert copy == after.config | {"licence": "MIT"}
    assert "(as measured before)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{corpus}/0.wav", "{corpus}/1.wav"], "is of no speaker of the model's; name a manifest"),
        (["{corpus}/none"], "no such file or folder"),
        (["{corpus}/empty"], "holds no recordings"),
        (["{corpus}/slow"], "has 8000 Hz, the model"),
        (["{corpus}/short"], "is too short"),
    ],
)
def test_recordings_that_cannot_be_used_are_named(
    voice, recordings, spec, arguments, message, capsys
):
    for name in ("empty", "slow", "short"):
        (recordings / name).mkdir()
    write_audio(recordings / "slow/a.wav", torch.zeros(8000), 8000)
    write_audio(recordings / "short/a.wav", torch.zeros(100), spec.sample_rate)
    given = [argument.format(corpus=recordings) for argument in arguments]
    (recordings / "manifest.json").unlink()

    assert main(["export", str(voice), "-o", str(voice.parent / "v"), "--calibrate", *given]) == 2

    assert message in capsys.readouterr().err
    assert not (voice.parent / "v").exists()


def test_a_bundle_has_no_raw_weights(voice, tmp_path, capsys):
    assert main(["export", str(voice), "-o", str(tmp_path / "v"), "--weights", "raw"]) == 2
    assert "--weights is for checkpoints" in capsys.readouterr().err
