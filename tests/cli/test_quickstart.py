"""`wavewn quickstart` does the whole job, and only once a folder."""

import dataclasses
import json

import pytest
import torch

from wavewn.audio.io import read_audio
from wavewn.audio.mel import MelSpec
from wavewn.bundle import load_bundle, save_bundle
from wavewn.cli.main import main
from wavewn.config import SpectralConfig
from wavewn.data.manifest import load_summary
from wavewn.models.spectral import Spectral
from wavewn.models.wavenet import WaveNet
from wavewn.shipped import shipped


def test_a_finished_quickstart_is_not_done_again(tmp_path, capsys):
    (tmp_path / "metrics.json").touch()

    assert main(["quickstart", "--out", str(tmp_path)]) == 2
    assert "holds a finished quickstart; choose another --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("option", [["--steps", "0"], ["--seconds", "nan"]])
def test_impossible_options_are_refused(tmp_path, capsys, option):
    assert main(["quickstart", "--out", str(tmp_path / "q"), *option]) == 2
    assert "--steps must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


@pytest.mark.slow  # pyin alone needs seconds to get going
@pytest.mark.parametrize("kind", ["wavenet", "spectral"])
def test_the_whole_job_is_done(tmp_path, model, capsys, kind):
    spec, out = MelSpec(), tmp_path / "q"
    settings = dataclasses.replace(model.settings, speakers=0)
    if kind == "wavenet":
        small = WaveNet(settings, spec.n_mels, spec.hop_length, spec.log_floor)
    else:
        small = Spectral(SpectralConfig(8, 8, dilations=(1,)), spec)
    before = [parameter.clone() for parameter in small.parameters()]
    save_bundle(tmp_path / "small", small, spec, licence="ours")

    arguments = ["--model", str(tmp_path / "small"), "--steps", "3", "--seconds", "1"]
    assert main(["quickstart", "--out", str(out), *arguments]) == 0

    names = ("recording", "shipped", "fine-tuned", "griffin-lim")
    assert {path.stem for path in out.glob("*.wav")} == set(names)
    assert all(read_audio(out / f"{name}.wav").shape == (16000,) for name in names)
    assert (out / "spectrograms.png").read_bytes().startswith(b"\x89PNG")
    means = json.loads((out / "metrics.json").read_text())["means"]
    assert set(means) == set(names[1:])
    assert means["griffin-lim"]["log_mel_l1"]["mean"] < means["shipped"]["log_mel_l1"]["mean"]
    tuned = load_bundle(out / "fine-tuned")
    corpus = load_summary(shipped("recipes", "corpus/festvox-ru")).licence
    assert tuned.config["licence"] == f"{corpus}; ours"
    assert tuned.config["provenance"]["steps"] == 3
    after = list(tuned.model.parameters())
    assert len(after) == len(before)
    assert not any(torch.equal(*both) for both in zip(before, after, strict=True))
    printed = capsys.readouterr().out
    assert "log-mel L1 (lower is better)" in printed
    assert "next: wavewn synth" in printed
