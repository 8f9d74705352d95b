"""`wavewn inspect` says what a file is, with figures, and whether it goes with a model."""

import json
import os

import numpy as np
import pytest
import torch

from wavewn.audio.io import write_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.bundle import save_bundle
from wavewn.cli.main import main
from wavewn.config import Condition, WaveNetConfig
from wavewn.models.wavenet import WaveNet

TACOTRON2 = MelSpec.preset("tacotron2")


@pytest.fixture
def audio():
    """Half a second of bursts, [11025] at 22050 Hz, with silence between them."""
    noise = torch.randn(11025, generator=torch.Generator().manual_seed(0)) * 0.1
    return noise * torch.sin(torch.linspace(0, 12, 11025)).clamp(min=0) ** 2


@pytest.fixture
def mel(audio):
    """Its mel, [80, 44]."""
    return mel_spectrogram(audio, TACOTRON2)[0]


@pytest.fixture
def reader(tmp_path):
    """A random model that reads tacotron2's mels."""
    settings = WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        cycles=1,
        layers_per_cycle=2,
        condition=Condition(channels=4),
    )
    torch.manual_seed(0)
    model = WaveNet(settings, TACOTRON2.n_mels, TACOTRON2.hop_length, TACOTRON2.log_floor)
    save_bundle(tmp_path / "reader", model, TACOTRON2, licence="MIT")
    return tmp_path / "reader"


def inspect(capsys, *arguments):
    """Inspect once for people and once as JSON; return both."""
    capsys.readouterr()
    assert main(["inspect", *map(str, arguments)]) == 0
    text = capsys.readouterr().out
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return text, json.loads(capsys.readouterr().out)


def test_a_mel_is_told_with_its_audio_and_its_model(audio, mel, reader, tmp_path, capsys):
    np.save(tmp_path / "a.npy", mel.numpy())
    write_audio(tmp_path / "a.wav", audio, 22050, subtype="FLOAT")

    text, report = inspect(capsys, tmp_path / "a.npy", "--against", reader)

    assert text.startswith(f"{tmp_path / 'a.npy'}: mel spectrogram, 80 bands, 44 frames\n")
    assert "findings     the natural log of magnitudes (values -11.51 to" in text
    assert report["figures"]["low"] == pytest.approx(-11.513, abs=1e-3)
    assert "tacotron2" in report["fits"] and "vocos-24k" in report["fits not"]
    assert report["against"]["goes"] is True
    assert report["audio"]["file"] == str(tmp_path / "a.wav")
    assert "44 frames, correlation 1.0000, natural log" in report["audio"]["matches"][0]
    assert report["audio"]["frame grid"].endswith("on the centred grid")


def test_a_mel_that_does_not_go_with_the_model_says_why(mel, reader, tmp_path, capsys):
    decibels = mel.T * 20 / np.log(10)
    torch.save({"mel": decibels.contiguous(), "speaker": "anna"}, tmp_path / "a.pt")
    write_audio(tmp_path / "other.wav", torch.ones(16000) / 2, 22050)

    _, report = inspect(
        capsys, tmp_path / "a.pt", "--against", reader, "--audio", tmp_path / "other.wav"
    )

    assert [finding["what"] for finding in report["findings"]] == ["in decibels", "transposed"]
    assert report["against"]["goes"] is False
    assert "the mel is transposed" in report["against"]["why"]
    assert "a frame every 363.6 samples" in report["audio"]["frame grid"]


def test_a_mel_of_nothing_but_nan_is_told(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.full((80, 9), np.nan, np.float32))

    text, report = inspect(capsys, tmp_path / "a.npy")

    assert "720 NaN" in text
    assert report["figures"] is None


def test_a_bundle_is_told_by_folder_and_name_and_against_another(reader, voice, capsys):
    text, report = inspect(capsys, reader, "--against", voice)

    assert ": bundle, wavenet, " in text and "licence      MIT" in text
    assert report["mel"]["sample_rate"] == 22050
    assert report["same mel as"][0] == "tacotron2"
    assert report["against"]["goes"] is False
    assert report["against"]["differs"]["n_mels"] == [80, 8]
    assert "what lies inside a band is not known" in report["against"]["in the way"]["n_mels"]
    assert inspect(capsys, "wavenet-ru-16k")[1]["same mel as"] == ["wavewn-16k"]
    assert inspect(capsys, reader, "--against", reader)[1]["against"]["goes"] is True


@pytest.mark.parametrize(
    ("name", "content", "family", "spelling"),
    [
        (
            "g_02500000",
            {"generator": {"conv_pre.weight_g": 0, "ups.0.weight_g": 0, "resblocks.0.weight": 0}},
            "HiFi-GAN",
            "weight_g",
        ),
        (
            "checkpoint-9steps.pkl",
            {"model": {"generator": {"first_conv.weight": 0, "conv_layers.0.conv1x1_aux.bias": 0}}},
            "Parallel WaveGAN",
            "plain weights",
        ),
        (
            "model.pt",
            {"backbone.convnext.0.gamma": 0, "head.out.parametrizations.weight.original0": 0},
            "Vocos",
            "a parametrization",
        ),
        ("some.ckpt", {"state_dict": {"a": 0, "b": 0}}, "unknown", "plain weights"),
    ],
)
def test_a_foreign_checkpoint_is_told_by_its_names(
    tmp_path, capsys, name, content, family, spelling
):
    def filled(value):
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return torch.zeros(3, 2)

    torch.save(filled(content), tmp_path / name)

    text, report = inspect(capsys, tmp_path / name)

    assert "checkpoint of another program" in text
    assert report["family"].startswith(family)
    assert spelling in report["weight norm"]
    assert report["not finite"] == []


def test_a_recording_is_measured(reader, tmp_path, capsys):
    t = torch.arange(8000) / 8000
    loud = (1.3 * torch.sin(2 * np.pi * 1000 * t) + 0.05).clamp(-1, 1)
    write_audio(tmp_path / "a.wav", loud, 8000)

    text, report = inspect(capsys, tmp_path / "a.wav", "--against", reader)

    assert text.startswith(f"{tmp_path / 'a.wav'}: recording, 1.00 s, 8000 Hz, 1 channel(s)\n")
    assert report["level"]["peak_db"] == pytest.approx(0, abs=1e-3)
    findings = " ".join(report["findings"])
    assert "clipped" in findings and "offset" in findings
    assert "nothing above" in findings
    assert report["against"]["frames"] == 1 + 22050 // 256
    assert "the model's is 22050 Hz: is resampled" in report["against"]["sample rate"]


def test_a_clean_recording_has_no_findings(tmp_path, capsys):
    write_audio(tmp_path / "a.wav", 0.1 * torch.randn(8000), 16000)
    assert inspect(capsys, tmp_path / "a.wav")[1]["findings"] == []

    write_audio(tmp_path / "b.wav", torch.zeros(100), 16000)
    assert inspect(capsys, tmp_path / "b.wav")[1]["findings"] == ["it is digital silence"]


class Bomb:
    """Makes a folder when something runs it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bomb.pt"], "pickled code is never run"),
        (["notes.txt"], "expected a bundle's folder or a file of"),
        (["text.ckpt"], "no torch file"),
        (["text.npy"], "cannot be read"),
        (["numbers.ckpt"], "holds no weights"),
        (["nothing"], "check the spelling"),
        (["empty"], "expected a bundle"),
        (["bomb.pt", "--against", "nothing"], "check the spelling"),
        (["a.wav", "--audio", "a.wav"], "--audio goes with a mel file"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"mel": Bomb(tmp_path / "harm")}, "bomb.pt")
    torch.save([1, 2], "numbers.ckpt")
    for name in ("notes.txt", "text.ckpt", "text.npy"):
        (tmp_path / name).write_text("no file of ours\n" * 9)
    write_audio("a.wav", torch.ones(9) / 2, 16000)
    (tmp_path / "empty").mkdir()

    assert main(["inspect", *arguments]) == 2

    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "harm").exists()
