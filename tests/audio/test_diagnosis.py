"""A mel spoilt in every way that users' programs spoil it, and what is said of it."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

from wavewn.audio.diagnosis import diagnose, upright
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.audio.mel_presets import PRESETS

TACOTRON2 = MelSpec.preset("tacotron2")
LINEAR = dataclasses.replace(TACOTRON2, log_base=None, floor=0.0)


def speech_like(spec=TACOTRON2, seconds=2.0):
    """Syllables of a gliding voice with breath in them, over a quiet room."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * spec.sample_rate)) / spec.sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(4 * t)) / spec.sample_rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 60)) + 0.1 * rng.normal(0, 1, t.size)
    audio = voice * np.sin(np.pi * 2 * t) ** 4 * 0.2 + rng.normal(0, 2e-4, t.size)
    return torch.from_numpy(audio).float()


@pytest.fixture(scope="module")
def linear():
    """Mel magnitudes [80, frames] that no floor has touched."""
    return mel_spectrogram(speech_like(), LINEAR)[0]


def ln(linear):
    """Natural log, with the silence at the end that recordings have."""
    mel = linear.clamp(min=1e-5).log()
    return torch.cat([mel, torch.full((80, 4), math.log(1e-5))], dim=1)


def db(linear):
    return 20 * linear.clamp(min=1e-5).log10()


def normalised(linear):
    """The recipe of wavenet_vocoder and coqui: 0 to 1 for 100 dB below 20 dB."""
    return ((db(linear) - 20 + 100) / 100).clamp(0, 1)


def standardised(mel, of_the_corpus):
    mean, deviation = mel.mean(dim=1, keepdim=True), mel.std(dim=1, keepdim=True)
    return (mel - 0.9 * mean) / (1.2 * deviation) if of_the_corpus else (mel - mean) / deviation


LOOKS = {  # what is done, the scale, the first finding, sure
    "ln": (ln, "natural log", "natural log of magnitudes", True),
    "ln in float16": (lambda x: ln(x).half(), "natural log", "natural log", True),
    "ln without silence": (lambda x: x.log(), "natural log", "natural log", False),
    "log10 clipped": (lambda x: (x / 9).clamp(min=1e-5).log10(), "log10", "log10", True),
    "log10": (lambda x: x.log10(), "log10", "or the natural log of a noisy recording", False),
    "decibels": (db, "decibels", "in decibels", True),
    "linear": (lambda x: x, "linear", "linear, without a logarithm", True),
    "0 to 1": (lambda x: normalised(x / 9), "normalised", r"normalised to \[0, 1\]", True),
    "-1 to 1": (lambda x: 2 * normalised(x / 9) - 1, "normalised", r"to \[-1, 1\]", True),
    "-4 to 4": (lambda x: 8 * normalised(x) - 4, "normalised", r"to \[-4, 4\]", True),
    "own": (lambda x: standardised(ln(x), False), "normalised", "by mean and variance", True),
    "corpus": (lambda x: standardised(x.log(), True), "normalised", "mean and variance", False),
    "constant": (torch.ones_like, "unknown", "constant", True),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_mel_is_recognised_with_the_evidence(linear, name):
    spoil, scale, what, sure = LOOKS[name]

    diagnosis = diagnose(spoil(linear))

    assert diagnosis.scale == scale
    first = diagnosis.findings[0]
    assert first.sure is sure
    assert re.search(what, first.what)
    assert "values " in first.evidence
    assert len(diagnosis.findings) == 1


def test_the_figures_are_numpys(linear):
    mel = ln(linear)
    figures = diagnose(mel).figures

    assert figures.low == figures.resting_at == pytest.approx(math.log(1e-5))
    assert figures.resting_share == pytest.approx(float((mel <= mel.min() + 1e-4).float().mean()))
    assert figures.quantiles[0.5] == pytest.approx(np.quantile(mel.numpy(), 0.5))
    assert figures.mean == pytest.approx(float(mel.mean()), rel=1e-4)
    assert "% at -11.513" in str(figures)
    assert diagnose(linear.log()).figures.resting_at is None


def test_decibels_below_the_files_own_peak_have_lost_the_level(linear):
    mel = db(linear)
    peak, absolute = (diagnose(m).findings[0].remedy for m in (mel - mel.max(), mel))

    assert "level of the recording is lost" in peak
    assert "multiply by ln(10) / 20" in absolute


@pytest.mark.parametrize(
    ("spoil", "bands", "what"),
    [
        (lambda x: ln(x).T, 80, "transposed"),
        (lambda x: ln(x)[:77], 77, "of an unusual number of bands"),
        (lambda x: ln(x)[:, :100], 80, "[bands, frames], or else transposed"),
        (lambda x: ln(x)[:1].expand(513, -1).T, 513, "a spectrogram without mel bands"),
    ],
)
def test_what_is_odd_about_the_axes_is_found(linear, spoil, bands, what):
    diagnosis = diagnose(spoil(linear))

    assert diagnosis.bands == bands
    assert what in [finding.what for finding in diagnosis.findings]


def test_who_knows_the_bands_decides_the_layout(linear):
    mel = ln(linear)[:, :100]

    assert upright(mel, 80)[1] is None
    turned, finding = upright(mel.T, 80)
    assert torch.equal(turned, mel) and finding.what == "transposed"


def test_nan_and_padding_are_found_and_the_rest_is_still_judged(linear):
    mel = torch.cat([ln(linear), torch.zeros(80, 5)], dim=1)
    mel[3, 7] = math.nan
    mel[:, 9] = -math.inf

    diagnosis = diagnose(mel)

    assert diagnosis.scale == "natural log"
    found = {finding.what: finding for finding in diagnosis.findings}
    assert found["not finite"].evidence == "1 NaN, 80 infinite, the first in frame 7"
    assert "last 5 frames hold nothing but 0" in found["padded"].evidence
    assert diagnose(mel * math.nan).figures is None


def test_the_presets_whose_silence_and_bands_it_has_fit(linear):
    fits = {fit.preset: fit for fit in diagnose(ln(linear)).fits}

    assert fits.keys() == PRESETS.keys()
    assert fits["tacotron2"].fits == fits["hifigan-22k"].fits == "yes"
    assert "-11.513, is where values rest; the loudest percent lies" in fits["tacotron2"].evidence
    assert "reads 100 bands" in fits["vocos-24k"].evidence
    assert fits["parallel-wavegan-22k"].fits == "no"
    assert diagnose(8 * normalised(linear / 9) - 4).fitting() == ["coqui-22k"]
    assert diagnose(20 * ln(linear)).fitting() == []


def test_the_level_tells_filters_of_equal_height_from_those_of_equal_area():
    vocos = PRESETS["vocos-24k"]
    fits = {fit.preset: fit for fit in diagnose(mel_spectrogram(speech_like(vocos), vocos)[0]).fits}
    quiet = dataclasses.replace(vocos, floor=1e-5)
    loud = diagnose(mel_spectrogram(speech_like(vocos), quiet)[0])

    assert fits["vocos-24k"].fits != "no"
    assert {fit.preset: fit.fits for fit in loud.fits}["bigvgan-24k"] == "no"
