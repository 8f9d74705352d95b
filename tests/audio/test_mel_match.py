"""The audio of a mel tells whose mel it is, in which scale and on which grid."""

import math
import re

import pytest
import torch

from wavewn.audio.io import write_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.audio.mel_match import audio_beside, grid_text, match_audio

NAMES = ("tacotron2", "hifigan-22k", "parallel-wavegan-22k", "speechbrain-16k", "vocos-24k")
SPECS = {name: MelSpec.preset(name) for name in NAMES}


@pytest.fixture
def recording(tmp_path):
    """Half a second of noise that comes and goes, [11025] at 22050 Hz."""
    audio = torch.randn(11025, generator=torch.Generator().manual_seed(0)) * 0.2
    audio *= torch.sin(torch.linspace(0, 20, 11025)) ** 2 + 0.01
    write_audio(tmp_path / "a.wav", audio, 22050, subtype="FLOAT")
    return tmp_path / "a.wav", audio


@pytest.mark.parametrize(
    ("scale", "slope", "offset"),
    [("natural log", 1, 0), ("log10", 1 / math.log(10), 0), ("decibels", 20 / math.log(10), -20)],
)
@pytest.mark.parametrize("name", ["tacotron2", "hifigan-22k"])
def test_the_definition_and_the_scale_are_found(recording, name, scale, slope, offset):
    path, audio = recording
    mel = mel_spectrogram(audio, SPECS[name])[0] * slope + offset

    first, *others = match_audio(mel, path, SPECS)

    assert first.name == name
    assert first.frames == mel.shape[1]
    assert first.correlation > 0.9999 > max(match.correlation for match in others)
    assert first.slope == pytest.approx(slope, rel=1e-3)
    assert first.offset == pytest.approx(offset, abs=0.02)
    assert f"{scale} (slope" in str(first)
    assert [match.name for match in others].count("vocos-24k") == 0  # of 100 bands


def test_linear_magnitudes_and_other_audio_are_told(recording):
    path, audio = recording
    linear = mel_spectrogram(audio, SPECS["tacotron2"])[0].exp() ** 2
    assert str(match_audio(linear, path, SPECS)[0]).endswith("another scale (slope 2, offset +0)")

    other = mel_spectrogram(audio.flip(0), SPECS["tacotron2"])[0]
    assert match_audio(other, path, SPECS)[0].correlation < 0.9


@pytest.mark.parametrize(
    ("frames", "right", "text"),
    [
        (43, True, "43 frames, 43 expected of 11025 samples at 22050 Hz on the half-hop grid"),
        (44, False, "this is the centred grid, the half-hop grid is wanted"),
        (41, False, "the audio was trimmed or padded"),
        (55, False, r"a frame every 200\.5 samples \(9\.09 ms\), where the hop is 256"),
    ],
)
def test_the_number_of_frames_tells_the_grid(recording, frames, right, text):
    found = grid_text(frames, recording[0], SPECS["hifigan-22k"])

    assert found[0] is right
    assert re.search(text, found[1])


def test_the_audio_beside_a_mel_has_its_name(recording, tmp_path):
    suffixes = (".flac", ".wav")
    assert audio_beside(tmp_path / "a.npy", suffixes) == recording[0]
    assert audio_beside(tmp_path / "b.npy", suffixes) is None
    assert audio_beside(recording[0], suffixes) is None
