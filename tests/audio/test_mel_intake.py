"""Mels from anywhere become the mel that a model reads, or are refused for what they look like."""

import math

import numpy as np
import pytest
import torch

from wavewn.audio.mel import MelSpec, check_mel, mel_spectrogram
from wavewn.audio.mel_intake import read_mel, refuse_unlike
from wavewn.errors import ConfigError, MelError

TACOTRON2 = MelSpec.preset("tacotron2")
FLOAT32 = 1e-4  # nats


@pytest.fixture(scope="module")
def mel():
    """Bursts of noise and silence between them, [80, 87]."""
    audio = torch.randn(22050, generator=torch.Generator().manual_seed(0)) * 0.1
    audio *= torch.sin(torch.linspace(0, 12, 22050)).clamp(min=0) ** 2
    return mel_spectrogram(audio, TACOTRON2)[0]


def test_a_good_mel_is_read_as_it_is(mel, tmp_path):
    np.save(tmp_path / "a.npy", mel.numpy())

    assert torch.equal(read_mel(tmp_path / "a.npy", TACOTRON2), mel)


@pytest.mark.parametrize("turned", [False, True])
def test_a_preset_is_converted_in_either_layout(mel, tmp_path, turned):
    coqui = MelSpec.preset("coqui-22k")
    nats = mel.clamp(min=math.log(1e-4))
    stored = (nats / math.log(10) - coqui.mean) / coqui.scale
    np.save(tmp_path / "a.npy", (stored.T if turned else stored).numpy())
    to = MelSpec(**{**coqui.to_dict(), "mean": 0.0, "scale": 1.0, "log_base": "e"})

    read = read_mel(tmp_path / "a.npy", to, "coqui-22k")

    torch.testing.assert_close(read, nats, rtol=0, atol=FLOAT32)


def test_what_does_not_convert_is_refused_with_file_and_preset(mel, tmp_path):
    np.save(tmp_path / "a.npy", mel.numpy())

    with pytest.raises(MelError, match=r"a\.npy as a mel of tacotron2: .*converted exactly, f_max"):
        read_mel(tmp_path / "a.npy", MelSpec.preset("bigvgan-22k"), "tacotron2")
    with pytest.raises(MelError, match=r"a\.npy as a mel of vocos-24k: expected 100 bands"):
        read_mel(tmp_path / "a.npy", MelSpec.preset("hifigan-22k"), "vocos-24k")
    with pytest.raises(ConfigError, match="no mel preset is called 'taco'"):
        read_mel(tmp_path / "a.npy", TACOTRON2, "taco")


def test_confined_differences_are_accepted_and_all_but_the_grid_are_said(mel, tmp_path, caplog):
    np.save(tmp_path / "a.npy", mel.numpy())

    read = read_mel(tmp_path / "a.npy", MelSpec.preset("hifigan-22k"), "tacotron2")

    torch.testing.assert_close(read, mel, rtol=0, atol=FLOAT32)
    assert "magnitude_epsilon differs" in caplog.text and "nats at the floor" in caplog.text
    assert "grid" not in caplog.text


def unlike(mel):
    own = (mel - mel.mean(dim=1, keepdim=True)) / mel.std(dim=1, keepdim=True)
    return {
        "clipped": (mel.clamp(min=-4.0), r"rest at -4, and silence is -11\.51"),
        "padded": (torch.cat([mel, torch.zeros(80, 6)], dim=1), "last 6 of 93 frames hold nothing"),
        "constant": (torch.full_like(mel, -2.0), "100 % of the values rest at -2"),
        "own statistics": (own, "normalised by its own statistics"),
    }


@pytest.mark.parametrize("name", ["clipped", "padded", "constant", "own statistics"])
def test_what_check_mel_lets_pass_but_no_audio_gives_is_refused(mel, name):
    spoilt, cause = unlike(mel)[name]

    check_mel(spoilt, TACOTRON2)
    with pytest.raises(MelError, match=cause):
        refuse_unlike(spoilt, TACOTRON2)


def test_the_refusal_tells_what_it_looks_like_and_what_converts(mel):
    with pytest.raises(MelError, match="; it is in decibels .*values -100 to"):
        refuse_unlike(mel * 20 / math.log(10), TACOTRON2)
    log10 = MelSpec(**{**TACOTRON2.to_dict(), "log_base": "10"})
    with pytest.raises(MelError, match="mels of tacotron2 or waveglow .*can be converted"):
        refuse_unlike(mel, log10)


def test_silence_and_short_mels_pass(mel, caplog):
    refuse_unlike(torch.full((80, 50), TACOTRON2.log_floor), TACOTRON2)
    refuse_unlike(mel[:, 20:21], TACOTRON2)
    refuse_unlike(mel, TACOTRON2)

    assert caplog.messages == []


def test_what_is_only_suspicious_is_logged(mel, caplog):
    refuse_unlike(mel.clamp(min=-6) + 0.2 * torch.randn(80, 87).abs(), TACOTRON2)

    assert "noisy throughout, or this is log10" in caplog.text
