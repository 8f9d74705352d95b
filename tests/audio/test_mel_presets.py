"""Each preset against its family's own front end, written out in numpy and float64.

GOLDEN was computed once by these formulas; it pins them too, so that neither side can drift.
"""

import dataclasses

import numpy as np
import pytest
import torch

from wavewn.audio.mel import MelSpec, mel_spectrogram, prepare_audio
from wavewn.audio.mel_presets import FRAMES_FIRST, PRESETS

FLOAT32 = (1e-4, 1e-6)  # largest and mean difference: rounding in quiet bands beside loud ones
SYMMETRIC = (0.03, 2e-3)  # nats: a symmetric Hann window against a periodic one
HIGH_PASS = (0.4, 8e-3)  # log10: an FIR and a Butterworth filter near the corner of both


def signal(sample_rate):
    """Half a second: a vowel that glides over noise of fixed samples, then near silence."""
    t = np.arange(sample_rate // 2) / sample_rate
    voice = sum(np.sin(2 * np.pi * k * (110 * t + 60 * t**2)) / k for k in range(1, 30))
    noise = np.sin(2 * np.pi * (np.arange(t.size) ** 2 * 0.6180339887498949 % 1))
    return np.where(t < 0.35, 0.15 * voice + 0.01 * noise, 1e-3 * noise)


def hz_of_mel(mel, htk):
    if htk:
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def mel_of_hz(hz, htk):
    if htk:
        return 2595 * np.log10(1 + hz / 700)
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def triangles(sr, n_fft, bands, fmin, fmax, htk=False, area=True):
    """The mel filters [bands, bins] of Slaney's toolbox, or of HTK without area normalisation."""
    corners = hz_of_mel(np.linspace(mel_of_hz(fmin, htk), mel_of_hz(fmax, htk), bands + 2), htk)
    bins = np.arange(n_fft // 2 + 1) * sr / n_fft
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bank = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clip(0)
    return bank * 2 / (right - left) if area else bank


def stft(audio, n_fft, hop, win, pad, periodic=True):
    """Magnitudes [bins, frames] of Hann windows centred in n_fft, reflected by `pad` samples."""
    audio = np.pad(audio, pad, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / (win if periodic else win - 1))
    window = np.pad(window, (n_fft - win) // 2)
    starts = range(0, len(audio) - n_fft + 1, hop)
    return np.abs(np.fft.rfft([audio[i : i + n_fft] * window for i in starts])).T


def hifigan(y, sr, n_fft, hop, win, bands, fmin, fmax, epsilon=1e-9, periodic=True):
    spec = stft(y, n_fft, hop, win, (n_fft - hop) // 2, periodic)
    mel = triangles(sr, n_fft, bands, fmin, fmax) @ np.sqrt(spec**2 + epsilon)
    return np.log(np.maximum(mel, 1e-5))


def tacotron2(y, sr, n_fft, hop, win, bands, fmin, fmax):
    mel = triangles(sr, n_fft, bands, fmin, fmax) @ stft(y, n_fft, hop, win, n_fft // 2)
    return np.log(np.maximum(mel, 1e-5))


def parallel_wavegan(y, sr, n_fft, hop, win, bands, fmin, fmax):
    mel = triangles(sr, n_fft, bands, fmin, fmax) @ stft(y, n_fft, hop, win, n_fft // 2)
    return np.log10(np.maximum(mel, 1e-10))


def wavenet_vocoder(y, *sizes):
    """r9y9's: its high-pass is firwin(255) without the delay of 127 samples."""
    k = np.arange(255) - 127
    sinc = 70 * 2 / sizes[0] * np.sinc(70 * 2 / sizes[0] * k) * np.hamming(255)
    taps = (k == 0) - sinc / sinc.sum()
    taps /= taps @ np.cos(np.pi * k)  # unit gain at half the sample rate, as scipy scales it
    return parallel_wavegan(np.convolve(y, taps)[127:-127], *sizes)


def wavenet_vocoder_2018(y, sr, n_fft, hop, win, bands, fmin, fmax):
    """r9y9's of 2018 from its fourth frame on, the first that is not over the silence before."""
    rise = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, 2 * n_fft, 2) / (2 * n_fft))
    window = np.sqrt(rise * 2 * hop / n_fft)
    y = np.pad(y, (n_fft - hop, 2 * n_fft))
    frames = (len(y) - 3 * n_fft + hop) // hop + n_fft // hop - 1
    spec = np.abs(np.fft.rfft([y[i * hop : i * hop + n_fft] * window for i in range(frames)])).T
    mel = triangles(sr, n_fft, bands, fmin, fmax) @ spec
    decibels = 20 * np.log10(np.maximum(1e-5, mel)) - 20
    return np.clip((decibels + 100) / 100, 0, 1)[:, n_fft // hop - 1 :]


def vocos(y, sr, n_fft, hop, win, bands, fmin, fmax):
    bank = triangles(sr, n_fft, bands, fmin, fmax, htk=True, area=False)
    return np.log(np.maximum(bank @ stft(y, n_fft, hop, win, n_fft // 2), 1e-7))


def coqui(y, sr, n_fft, hop, win, bands, fmin, fmax):
    mel = triangles(sr, n_fft, bands, fmin, fmax) @ stft(y, n_fft, hop, win, n_fft // 2)
    decibels = 20 * np.log10(np.maximum(1e-5, mel)) - 20
    return np.clip((decibels + 100) / 100 * 8 - 4, -4, 4)


def nemo(y, *sizes):
    return hifigan(y, *sizes, epsilon=0.0, periodic=False)


LJ = (22050, 1024, 256, 1024, 80, 0.0, 8000.0)
FAMILIES = {
    "wavewn-16k": (lambda *a: hifigan(*a, epsilon=0), 16000, 1024, 200, 800, 80, 60.0, 7000.0),
    "hifigan-22k": (hifigan, *LJ),
    "univnet-24k": (hifigan, 24000, 1024, 256, 1024, 100, 0.0, 12000.0),
    "bigvgan-22k": (hifigan, 22050, 1024, 256, 1024, 80, 0.0, 11025.0),
    "bigvgan-22k-fmax8k": (hifigan, *LJ),
    "bigvgan-24k": (hifigan, 24000, 1024, 256, 1024, 100, 0.0, 12000.0),
    "bigvgan-44k": (hifigan, 44100, 2048, 512, 2048, 128, 0.0, 22050.0),
    "tacotron2": (tacotron2, *LJ),
    "waveglow": (tacotron2, *LJ),
    "melgan-22k": (tacotron2, *LJ),
    "nemo-hifigan-22k": (nemo, *LJ),
    "speechbrain-22k": (tacotron2, *LJ),
    "speechbrain-16k": (tacotron2, 16000, 1024, 256, 1024, 80, 0.0, 8000.0),
    "parallel-wavegan-16k": (parallel_wavegan, 16000, 1024, 256, 1024, 80, 80.0, 7600.0),
    "parallel-wavegan-22k": (parallel_wavegan, 22050, 1024, 256, 1024, 80, 80.0, 7600.0),
    "parallel-wavegan-24k": (parallel_wavegan, 24000, 2048, 300, 1200, 80, 80.0, 7600.0),
    "wavenet-vocoder-22k": (wavenet_vocoder, 22050, 1024, 256, 1024, 80, 125.0, 7600.0),
    "wavenet-vocoder-2018": (
        wavenet_vocoder_2018,
        22050,
        1024,
        256,
        1024,
        80,
        125.0,
        7600.0,
    ),
    "vocos-24k": (vocos, 24000, 1024, 256, 1024, 100, 0.0, 12000.0),
    "speecht5-16k": (parallel_wavegan, 16000, 1024, 256, 1024, 80, 80.0, 7600.0),
    "coqui-22k": (coqui, 22050, 1024, 256, 1024, 80, 0.0, 11025.0),
}
TOLERANCE = {"nemo-hifigan-22k": SYMMETRIC, "wavenet-vocoder-22k": HIGH_PASS}

# Frames; then mean, and the values at (band, frame) = (0, 0), (20, 5), (-1, 12), (40, -1).
GOLDEN = {
    "wavewn-16k": (40, -4.2508, 0.274, -2.6837, -4.8455, -8.5055),
    "hifigan-22k": (43, -4.4059, -0.3606, -3.0711, -5.2607, -7.3368),
    "univnet-24k": (46, -4.5956, -0.4763, -1.5623, -5.1351, -7.5546),
    "bigvgan-22k": (43, -4.5198, -0.3148, -2.8243, -5.0969, -7.237),
    "bigvgan-22k-fmax8k": (43, -4.4059, -0.3606, -3.0711, -5.2607, -7.3368),
    "bigvgan-24k": (46, -4.5956, -0.4763, -1.5623, -5.1351, -7.5546),
    "bigvgan-44k": (43, -4.2778, 0.1929, -3.1091, -4.7698, -7.3569),
    "tacotron2": (44, -4.4426, -0.2008, -2.7963, -5.052, -7.7026),
    "waveglow": (44, -4.4426, -0.2008, -2.7963, -5.052, -7.7026),
    "melgan-22k": (44, -4.4426, -0.2008, -2.7963, -5.052, -7.7026),
    "nemo-hifigan-22k": (43, -4.4061, -0.3596, -3.0701, -5.2603, -7.336),
    "speechbrain-22k": (44, -4.4426, -0.2008, -2.7963, -5.052, -7.7026),
    "speechbrain-16k": (32, -4.1898, -0.2351, -3.8477, -4.8078, -7.6033),
    "parallel-wavegan-16k": (32, -1.8118, 0.0085, -0.6616, -2.0618, -3.3599),
    "parallel-wavegan-22k": (44, -1.9248, -0.145, -0.7602, -2.1881, -3.2648),
    "parallel-wavegan-24k": (41, -1.6182, 0.1433, -0.4026, -1.8794, -3.0623),
    "wavenet-vocoder-22k": (44, -1.9427, -0.6475, -1.3002, -2.1887, -3.1073),
    "wavenet-vocoder-2018": (43, 0.3834, 0.6258, 0.6007, 0.3389, 0.0844),
    "vocos-24k": (47, -0.2041, 2.7282, 2.2232, 0.7011, -3.0207),
    "speecht5-16k": (32, -1.8118, 0.0085, -0.6616, -2.0618, -3.3599),
    "coqui-22k": (44, -0.7649, 2.2948, 0.2873, -1.1769, -2.7543),
}


def family_mel(name):
    front_end, *sizes = FAMILIES[name]
    return front_end(signal(sizes[0]), *sizes)


def golden_of(mel):
    values = (mel.mean(), mel[0, 0], mel[20, 5], mel[-1, 12], mel[40, -1])
    return (mel.shape[1], *(round(float(value), 4) for value in values))


def our_mel(name):
    spec = MelSpec.preset(name)
    audio = torch.from_numpy(signal(spec.sample_rate))
    return mel_spectrogram(prepare_audio(audio, spec), spec)[0].double().numpy()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_mel_of_its_family(name):
    theirs, ours = family_mel(name), our_mel(name)
    assert theirs.shape == ours.shape
    difference = np.abs(theirs - ours)
    largest, mean = TOLERANCE.get(name, FLOAT32)
    assert difference.max() < largest and difference.mean() < mean


@pytest.mark.parametrize("name", PRESETS)
def test_the_golden_values_stand(name):
    within = TOLERANCE.get(name, (2e-4,))[0]  # GOLDEN is rounded to four digits
    assert golden_of(family_mel(name)) == pytest.approx(GOLDEN[name], abs=2e-4)
    assert golden_of(our_mel(name)) == pytest.approx(GOLDEN[name], abs=within)


def test_the_golden_values_tell_different_presets_apart():
    for name, spec in PRESETS.items():
        for other, its_spec in PRESETS.items():
            assert (spec == its_spec) == (GOLDEN[name] == GOLDEN[other]), (name, other)


@pytest.mark.parametrize("name", PRESETS)
def test_silence_rests_on_the_floor_of_the_family(name):
    front_end, *sizes = FAMILIES[name]
    silence = front_end(np.zeros(4000), *sizes)
    assert silence.min() == silence.max() == pytest.approx(MelSpec.preset(name).log_floor)


def test_no_family_is_left_without_its_formula():
    assert FAMILIES.keys() == PRESETS.keys() == GOLDEN.keys()
    assert FRAMES_FIRST < PRESETS.keys()


def test_statistics_are_added_to_a_preset():
    name = "parallel-wavegan-16k"
    mean, scale = np.linspace(-3, -1, 80), np.linspace(0.5, 1, 80)
    spec = dataclasses.replace(MelSpec.preset(name), mean=tuple(mean), scale=tuple(scale))
    ours = mel_spectrogram(torch.from_numpy(signal(16000)), spec)[0].double().numpy()
    theirs = (family_mel(name) - mean[:, None]) / scale[:, None]
    assert np.abs(ours - theirs).max() < 2 * FLOAT32[0]  # scale is at least a half
