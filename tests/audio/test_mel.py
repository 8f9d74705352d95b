import dataclasses
import logging
import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch.testing import assert_close

from wavewn.audio.mel import MelSpec, check_mel, mel_filters, mel_spectrogram, prepare_audio
from wavewn.errors import MelError, ShapeError

LIBROSA = 1e-4  # nats; both sides compute in float32, in another order
LN = MelSpec()
LINEAR = dataclasses.replace(LN, log_base=None, floor=0.0)


def speech_like(spec=LN, seconds=1.5):
    """Harmonics with a moving pitch and syllables, over a whisper of noise, then silence."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * spec.sample_rate)) / spec.sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(4 * t)) / spec.sample_rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 40)) * np.sin(np.pi * 3 * t) ** 2 * 0.2
    audio = voice + rng.normal(0, 2e-5, t.size)
    audio[-len(t) // 5 :] = 0
    return torch.from_numpy(audio).float()


def noisy_speech(spec=LN):
    """Speech whose quiet bands lie above the float32 rounding of its loud ones."""
    audio = speech_like(spec)
    return audio + 3e-3 * torch.randn(len(audio), generator=torch.Generator().manual_seed(0))


def librosa_mel(audio, spec, **options):
    mel = librosa.feature.melspectrogram(
        y=audio, sr=spec.sample_rate, n_fft=spec.n_fft, hop_length=spec.hop_length,
        win_length=spec.win_length, n_mels=spec.n_mels, fmin=spec.f_min, fmax=spec.f_max,
        **{"power": 1.0, "htk": False, "pad_mode": "reflect", **options},
    )  # fmt: skip
    return mel


@pytest.mark.parametrize("samples", [22050, 22016, 3000])
def test_tacotron2_is_librosas_centred_mel(samples):
    spec = MelSpec.preset("tacotron2")
    audio = noisy_speech(spec)[:samples]
    theirs = np.log(np.maximum(librosa_mel(audio.numpy(), spec), 1e-5))
    assert_close(mel_spectrogram(audio, spec)[0].numpy(), theirs, rtol=0, atol=LIBROSA)


@pytest.mark.parametrize("name", ["hifigan-22k", "wavewn-16k"])
def test_half_hop_presets_are_librosas_mel_of_audio_padded_by_hand(name):
    spec = MelSpec.preset(name)
    audio = noisy_speech(spec)[:20001]
    half = (spec.n_fft - spec.hop_length) // 2
    padded = np.pad(audio.numpy(), half, mode="reflect")
    magnitude = np.abs(
        librosa.stft(padded, n_fft=spec.n_fft, hop_length=spec.hop_length,
                     win_length=spec.win_length, center=False)
    )  # fmt: skip
    magnitude = np.sqrt(magnitude**2 + spec.magnitude_epsilon)
    bank = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=80, fmin=spec.f_min, fmax=spec.f_max
    )
    theirs = np.log(np.maximum(bank @ magnitude, 1e-5))
    ours = mel_spectrogram(audio, spec)[0].numpy()
    assert ours.shape == (80, 20001 // spec.hop_length)
    assert_close(ours, theirs, rtol=0, atol=LIBROSA)


def test_every_other_field_follows_librosa_too():
    spec = dataclasses.replace(
        LN, mel_scale="htk", norm=None, power=2.0, grid="centred", pad_mode="constant",
        log_base="10", floor_kind="add", floor=1e-3, mean=-1.0, scale=(2.0,) * 80,
    )  # fmt: skip
    audio = speech_like()
    theirs = librosa_mel(audio.numpy(), spec, power=2.0, htk=True, norm=None, pad_mode="constant")
    theirs = (np.log10(theirs + 1e-3) + 1) / 2
    assert_close(mel_spectrogram(audio, spec)[0].numpy(), theirs, rtol=0, atol=LIBROSA)


def test_a_causal_grid_does_not_hear_the_future():
    for mode in ("constant", "replicate"):
        spec = dataclasses.replace(LN, grid="causal", pad_mode=mode)
        audio = torch.randn(4000)
        changed = audio.clone()
        changed[2000:] = 0  # frame i ends with sample (i + 1) * 200
        mel, other = mel_spectrogram(audio, spec), mel_spectrogram(changed, spec)
        assert torch.equal(mel[..., :10], other[..., :10])
        assert not torch.equal(mel[..., 10:12], other[..., 10:12])


def test_an_ahead_grid_hears_nothing_before_its_hop():
    spec = dataclasses.replace(LN, grid="ahead")
    audio = torch.randn(4000)
    changed = audio.clone()
    changed[:2000] = 0  # frame i begins with sample i * 200; its window has 112 zeros before
    mel, other = mel_spectrogram(audio, spec), mel_spectrogram(changed, spec)
    assert mel.shape == (1, 80, 20)
    assert torch.equal(mel[..., 10:], other[..., 10:])
    assert not torch.equal(mel[..., 9], other[..., 9])


@pytest.mark.parametrize("hop", [16, 32])
def test_squares_of_root_hann_windows_add_up_to_one(hop):
    spec = MelSpec(n_fft=64, hop_length=hop, win_length=64, n_mels=4, window="root-hann")
    window = mel_filters(spec, torch.device("cpu"))[1]
    assert_close(window.square().unflatten(0, (-1, hop)).sum(dim=0), torch.ones(hop))
    assert_close(window, window.flip(0))


@pytest.mark.parametrize("samples", [200, 300, 412, 413])
def test_audio_shorter_than_the_padding_is_reflected_as_numpy_does(samples):
    audio = speech_like()[3000 : 3000 + samples]
    padded = np.pad(audio.numpy(), (412, 412), mode="reflect")
    whole = dataclasses.replace(LN, grid="causal", pad_mode="constant")  # pads 824 zeros before
    by_hand = mel_spectrogram(torch.from_numpy(np.pad(padded[:1024], (176, 0))), whole)[0, :, -1]
    assert_close(mel_spectrogram(audio, LN)[0, :, 0], by_hand, rtol=0, atol=LIBROSA)


def test_one_sample_has_a_frame_on_the_centred_grid():
    assert mel_spectrogram(torch.zeros(1), MelSpec(grid="centred")).shape == (1, 80, 1)


def test_the_spectrogram_is_differentiable_even_of_silence():
    for spec in (LN, MelSpec.preset("hifigan-22k"), LINEAR):
        audio = torch.cat([torch.zeros(2000), speech_like()[:2000]]).requires_grad_()
        mel_spectrogram(audio, spec).sum().backward()
        assert audio.grad.isfinite().all() and audio.grad.abs().max() > 0


def test_autocast_and_inference_mode_change_nothing():
    audio = speech_like()
    with torch.inference_mode():
        first = mel_spectrogram(audio, dataclasses.replace(LN, f_min=61.0)).clone()
    trained = audio.clone().requires_grad_()
    mel_spectrogram(trained, dataclasses.replace(LN, f_min=61.0)).sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = mel_spectrogram(audio, dataclasses.replace(LN, f_min=61.0))
    assert again.dtype == torch.float32 and torch.equal(first, again)


def test_rows_of_a_batch_do_not_touch():
    audio = torch.randn(3, 4000)
    alone = torch.cat([mel_spectrogram(row, LN) for row in audio])
    assert_close(mel_spectrogram(audio, LN), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "audio", [torch.zeros(1, 1, 9), torch.zeros(0), torch.zeros(9, dtype=torch.int16)]
)
def test_what_is_not_audio_is_refused(audio):
    with pytest.raises(ShapeError, match=r"\[batch, samples\] or \[samples\], floating point"):
        mel_spectrogram(audio, LN)


def test_prepare_audio_does_nothing_unless_asked():
    audio = torch.randn(2, 1000)
    assert torch.equal(prepare_audio(audio, LN), audio)
    assert prepare_audio(audio[0], LN).shape == (1000,)


def test_prepare_audio_applies_peak_high_pass_pre_emphasis_gain_in_this_order():
    t = np.arange(16000) / 16000
    audio = torch.from_numpy(0.1 * np.sin(2 * np.pi * 1000 * t) + 0.1 * np.sin(2 * np.pi * 10 * t))
    peak = dataclasses.replace(LN, peak=0.95)
    high_pass = dataclasses.replace(LN, high_pass_hz=70.0)
    emphasis = dataclasses.replace(LN, pre_emphasis=0.85)
    loud = prepare_audio(audio, peak)
    assert loud.abs().max().item() == pytest.approx(0.95)
    clean = prepare_audio(loud, high_pass)
    spectrum = np.abs(np.fft.rfft(clean[-8000:].numpy() * np.hanning(8000)))
    assert spectrum[5] < 1e-3 * spectrum[500]  # 10 Hz against 1 kHz
    assert spectrum[500] == pytest.approx(0.5 * 0.5 * 8000 * 0.5 * 0.95, rel=0.02)
    theirs = lfilter([1, -0.85], [1], clean.numpy())
    emphasised = prepare_audio(clean, emphasis)
    assert_close(emphasised.numpy(), theirs.astype("f"), rtol=0, atol=1e-6)
    chain = dataclasses.replace(LN, peak=0.95, high_pass_hz=70.0, pre_emphasis=0.85, gain=0.55)
    assert_close(prepare_audio(audio, chain), emphasised * 0.55, rtol=0, atol=1e-6)


def test_silence_has_no_peak_to_scale():
    assert prepare_audio(torch.zeros(2, 100), MelSpec(peak=0.95)).abs().max() == 0


def plausible_audio():
    rng = torch.Generator().manual_seed(0)
    return {
        "speech": speech_like(),
        "silence": torch.zeros(8000),
        "loud noise": torch.rand(32000, generator=rng) * 2 - 1,
        "square noise": torch.randn(32000, generator=rng).sign(),
        "quiet speech": speech_like() * 1e-3,
        "noisy speech": speech_like() + 0.02 * torch.randn(24000, generator=rng),
        "full-scale tone": torch.sin(2 * math.pi * 100 * torch.arange(16000) / 16000),
        "offset": torch.ones(8000),
        "click": torch.eye(1, 8000)[0],
    }


@pytest.mark.parametrize("name", plausible_audio())
@pytest.mark.parametrize(
    "spec",
    [LN, MelSpec.preset("tacotron2"), MelSpec.preset("hifigan-22k"), LINEAR,
     dataclasses.replace(LN, log_base="10", floor=1e-10, mean=-2.0, scale=0.7),
     dataclasses.replace(LN, norm=None, mel_scale="htk", floor=1e-7, power=2.0)],
    ids=["ln", "tacotron2", "hifigan", "linear", "log10 affine", "vocos-like"],
)  # fmt: skip
def test_what_a_microphone_could_record_passes(name, spec):
    mel = mel_spectrogram(plausible_audio()[name], spec)
    check_mel(mel, spec)
    check_mel(mel[0, :, 3:4], spec)


def test_a_smooth_prediction_that_undershoots_the_floor_passes():
    mel = mel_spectrogram(speech_like(), LN)
    smooth = torch.nn.functional.avg_pool1d(mel, 5, 1, 2)
    check_mel(smooth - 0.5, LN)
    check_mel(torch.randn(80, 100, generator=torch.Generator().manual_seed(0)), LN)


def spoilt_mels():
    mel = mel_spectrogram(speech_like(), LN)[0]
    linear = mel_spectrogram(speech_like(), LINEAR)[0]
    nan, inf = mel.clone(), mel.clone()
    nan[3, 7] = math.nan
    inf[:, 5] = -math.inf
    return {
        "transposed": (mel.T, "transposed.*swap"),
        "transposed batch": (mel.T[None], "transposed"),
        "bands": (mel[:64], r"reads 80 bands, the mel is \[64, "),
        "axes": (mel[0], r"\[bands, frames\] or \[batch, bands, frames\]"),
        "empty": (mel[:, :0], "not empty"),
        "integers": (mel.int(), "floating point"),
        "NaN": (nan, "1 NaN or infinite values, the first in frame 7"),
        "inf": (inf, "80 NaN or infinite.*logarithm taken of zero"),
        "log10": (linear.clamp(min=1e-5).log10(), "this is log10; multiply by"),
        "log10 of Parallel WaveGAN": (linear.clamp(min=1e-10).log10(), "this is log10"),
        "dB": (20 * linear.clamp(min=1e-5).log10(), "these are decibels"),
        "dB below the peak": (librosa_db(linear), "these are decibels"),
        "linear": (linear, "linear magnitudes"),
        "from 0 to 1": ((mel - mel.min()) / (mel.max() - mel.min()), "normalised to start at 0"),
        "zeros": (torch.zeros(80, 10), "linear magnitudes"),
        "16-bit integers": (mel + math.log(32768), "16-bit integers"),
        "lower floor": (linear.clamp(min=1e-9).log(), "floor is not 1e-05; clamp"),
    }


def librosa_db(linear):
    return torch.from_numpy(librosa.amplitude_to_db(linear.numpy(), ref=np.max))


@pytest.mark.parametrize("name", spoilt_mels())
def test_an_impossible_mel_is_refused_with_its_likely_cause(name):
    mel, cause = spoilt_mels()[name]
    with pytest.raises(MelError, match=cause):
        check_mel(mel, LN)


def test_natural_log_for_log10_and_a_log_for_linear_are_refused():
    mel = mel_spectrogram(speech_like(), LN)
    with pytest.raises(MelError, match=r"this is the natural log; divide by ln\(10\)"):
        check_mel(mel, dataclasses.replace(LN, log_base="10"))
    with pytest.raises(MelError, match="was a logarithm taken"):
        check_mel(mel, LINEAR)


def test_a_mel_that_may_be_log10_or_noisy_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        check_mel(mel_spectrogram(speech_like(), LN), LN)
        assert caplog.messages == []
        check_mel(mel_spectrogram(plausible_audio()["noisy speech"], LN), LN)
    assert "noisy throughout, or this is log10" in caplog.text


def test_the_room_reads_neither_torchaudio_nor_librosa_on_import():
    import subprocess
    import sys

    script = (
        "import sys, wavewn.audio.mel, wavewn.audio.mel_files, wavewn.audio.io\n"
        "print([m for m in ('torchaudio', 'librosa', 'scipy', 'h5py') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
