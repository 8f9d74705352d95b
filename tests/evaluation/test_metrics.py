"""Each metric against an independent formula, or against a change whose size is known."""

import math

import auraloss
import numpy as np
import pytest
import torch

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.errors import ShapeError
from wavewn.evaluation import metrics

RATE = 16_000
SPEC = MelSpec()
ATOL = 1e-4  # float32 sums over some 10^5 values
PITCH_BIN_CENTS = 10  # the resolution of librosa's pyin


@pytest.fixture(scope="module")
def clean(voice):
    return voice()


def distances(reference, generated):
    return {
        "log_mel_l1": metrics.log_mel_l1(reference, generated, SPEC),
        "mcd": metrics.mcd(reference, generated, SPEC),
        "m_stft": metrics.multi_resolution_stft(reference, generated),
        "level": abs(metrics.rms_ratio_db(reference, generated)),
    }


def test_a_recording_is_at_no_distance_from_itself(clean):
    assert set(distances(clean, clean.clone()).values()) == {0.0}


def test_more_noise_is_more_distance(clean, noise):
    little, much = (distances(clean, clean + noise(clean, level)) for level in (0.003, 0.1))
    for name in little:
        assert 0 < little[name] < much[name], name


def test_a_gain_moves_log_mel_and_level_by_its_logarithm(clean, noise):
    loud = clean + noise(clean, 0.01)  # noise keeps every band off the floor
    assert metrics.log_mel_l1(loud, 2 * loud, SPEC) == pytest.approx(math.log(2), abs=1e-5)
    assert metrics.rms_ratio_db(clean, 2 * clean) == pytest.approx(6.0206, abs=1e-3)


def test_distances_do_not_depend_on_the_units_of_the_mel(clean, noise):
    other = MelSpec(log_base="10", floor=1e-3, power=2.0, mean=-1.0, scale=3.0)
    noisy = clean + noise(clean, 0.01)
    assert metrics.mcd(clean, noisy, other) == pytest.approx(metrics.mcd(clean, noisy, SPEC))


def test_mcd_is_the_written_out_cosine_transform(clean, noise):
    noisy = clean + noise(clean, 0.01)
    mels = [mel_spectrogram(one, SPEC)[0].double().numpy() for one in (clean, noisy)]
    bands = SPEC.n_mels
    total = 0.0
    for k in range(1, 14):
        basis = np.sqrt(2 / bands) * np.cos(np.pi * k * (np.arange(bands) + 0.5) / bands)
        total = total + (basis @ (mels[0] - mels[1])) ** 2
    expected = np.mean(10 / np.log(10) * np.sqrt(2 * total))
    assert metrics.mcd(clean, noisy, SPEC) == pytest.approx(expected, rel=1e-6)


def test_mcd_does_not_hear_loudness(clean, noise):
    loud = clean + noise(clean, 0.01)  # noise keeps every band off the floor
    assert metrics.mcd(loud, 2 * loud, SPEC) < 1e-4
    assert metrics.log_mel_l1(loud, 2 * loud, SPEC) > 0.5


def test_multi_resolution_stft_equals_auraloss(clean, noise):
    noisy = clean + noise(clean, 0.02)
    theirs = auraloss.freq.MultiResolutionSTFTLoss()(noisy[None, None], clean[None, None])
    assert metrics.multi_resolution_stft(clean, noisy) == pytest.approx(theirs.item(), abs=ATOL)
    assert metrics.multi_resolution_stft(noisy, clean) != pytest.approx(theirs.item(), abs=ATOL)


def test_a_shift_of_pitch_is_measured_in_cents(voice):
    tracks = [metrics.pitch_track(voice(120.0 * 2 ** (c / 1200)), RATE) for c in (0, 50)]
    assert metrics.f0_rmse_cents(*tracks) == pytest.approx(50, abs=PITCH_BIN_CENTS / 2)
    assert metrics.f0_rmse_cents(tracks[0], tracks[0]) == 0
    assert metrics.vuv_f1(*tracks) > 0.95
    assert tracks[0].nanmedian().item() == pytest.approx(120, rel=0.006)


def test_pitch_error_counts_frames_that_both_call_voiced():
    nan = math.nan
    truth = torch.tensor([100.0, 100.0, nan, 100.0, nan])
    claim = torch.tensor([200.0, nan, 300.0, 100.0, nan])
    assert metrics.f0_rmse_cents(truth, claim) == pytest.approx(1200 / math.sqrt(2))
    assert metrics.vuv_f1(truth, claim) == pytest.approx(2 * 2 / (3 + 3))


def test_noise_has_no_pitch(clean, noise):
    track = metrics.pitch_track(noise(clean, 0.1), RATE)
    assert metrics.vuv_f1(metrics.pitch_track(clean, RATE), track) < 0.3


def test_what_cannot_be_judged_is_nan():
    silence, unvoiced = torch.zeros(RATE), torch.full((10,), math.nan)
    assert math.isnan(metrics.f0_rmse_cents(unvoiced, unvoiced))
    assert math.isnan(metrics.vuv_f1(unvoiced, unvoiced))
    assert math.isnan(metrics.silent_fraction(silence, silence, RATE))
    assert math.isnan(metrics.silent_fraction(silence[:300], silence[:300], RATE))
    noise = torch.rand(1025, generator=torch.Generator().manual_seed(0))
    assert math.isnan(metrics.multi_resolution_stft(noise[:1024], 0.5 * noise[:1024]))
    assert metrics.multi_resolution_stft(noise, 0.5 * noise) > 0.5


def test_a_collapse_shows_in_energy(clean):
    silence = torch.zeros_like(clean)
    assert metrics.rms_ratio_db(clean, silence) < -60
    assert metrics.silent_fraction(clean, silence, RATE) == 1
    assert metrics.silent_fraction(clean, clean, RATE) == 0
    half = torch.cat([clean[: RATE // 2], silence[RATE // 2 :]])
    assert metrics.silent_fraction(clean, half, RATE) == pytest.approx(0.5, abs=0.05)


def test_clipping_is_counted_in_both_directions():
    audio = torch.tensor([0.0, 1.0, -1.0, 0.5])
    assert metrics.clipped_fraction(audio) == 0.5
    assert metrics.clipped_fraction(0.99 * audio) == 0


def test_lengths_within_a_hop_are_cut_and_more_is_an_error(clean):
    first, second = metrics.reconcile(clean, clean[:-200], hop_length=200)
    assert first.shape == second.shape == (RATE - 200,)
    with pytest.raises(ShapeError, match="16000 samples and generated 15799"):
        metrics.reconcile(clean, clean[:-201], hop_length=200)
    with pytest.raises(ShapeError, match=r"generated audio must be \[samples\], got \[1, 16000\]"):
        metrics.reconcile(clean, clean[None], hop_length=200)


def speech_like(voice, noise):
    """Bursts of noise and tone: PESQ and STOI need onsets and silences."""
    audio = voice(seconds=2.0) + noise(torch.empty(2 * RATE), 0.02)
    gate = (torch.arange(2 * RATE) // 4000) % 3 != 2
    return audio * gate + noise(audio, 1e-4, seed=1)


@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_stoi_and_pesq_fall_with_noise(rate, noise, voice):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    clean = speech_like(voice, noise)
    noisy = clean + noise(clean, 0.1, seed=2)
    for metric, best in ((metrics.stoi, 1.0), (metrics.pesq_wb, 4.64)):
        assert metric(clean, clean, rate) == pytest.approx(best, abs=0.02)
        assert metric(clean, noisy, rate) < metric(clean, clean, rate) - 0.1


def test_silence_and_snippets_have_no_pesq_or_stoi(clean):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    silence = torch.zeros_like(clean)
    assert math.isnan(metrics.pesq_wb(silence, clean, RATE))
    assert math.isnan(metrics.pesq_wb(clean, silence, RATE))
    assert math.isnan(metrics.pesq_wb(clean[:2000], clean[:2000], RATE))
    assert math.isnan(metrics.stoi(clean[:2000], clean[:2000], RATE))
    assert math.isnan(metrics.stoi(clean[:100], clean[:100], RATE))


def test_a_missing_package_is_named(monkeypatch):
    assert metrics.missing_extras() == {}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'wavewn[eval]'" in metrics.missing_extras()["pesq_wb"]
