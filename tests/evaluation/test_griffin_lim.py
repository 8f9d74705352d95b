"""The baseline is aligned with the recording on every frame grid, and sounds like it."""

import pytest
import torch

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.errors import MelError
from wavewn.evaluation.griffin_lim import griffin_lim
from wavewn.evaluation.metrics import log_mel_l1

SPEC = MelSpec()
MAX_LOG_MEL_L1 = 0.25
MAX_LAG = 30  # samples; a grid mistaken by half a hop is 100 off


def bursts(voice, noise):
    """Noise bursts with sharp onsets over a voice, which tell where time lies."""
    audio = voice(seconds=1.0)
    gate = (torch.arange(audio.shape[0]) // 1777) % 2
    return (audio + noise(audio, 0.05)) * (0.02 + gate)


def envelope_lag(reference, generated):
    """Samples by which the energy of `generated` comes later, by cross-correlation."""
    window = torch.hann_window(161)[None, None]
    energies = [
        torch.nn.functional.conv1d(one[None, None].square(), window, padding=80)[0, 0]
        for one in (reference, generated)
    ]
    first, second = ((one - one.mean()) for one in energies)
    lags = range(-300, 301)
    products = [torch.dot(first[300:-300], second[300 + k : len(second) - 300 + k]) for k in lags]
    return lags[int(torch.stack(products).argmax())]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        MelSpec(grid="centred"),
        MelSpec(grid="causal", pad_mode="constant"),
        MelSpec(grid="ahead", win_length=1024, hop_length=256, window="root-hann"),
        MelSpec(hop_length=201, win_length=804),
        MelSpec(log_base="10", power=2.0, floor_kind="add", floor=1e-9, mean=-2.0, scale=1.5),
    ],
    ids=["half-hop", "centred", "causal", "ahead", "odd-hop", "other-units"],
)
def test_the_inversion_is_aligned_and_close(spec, voice, noise):
    audio = bursts(voice, noise)
    mel = mel_spectrogram(audio, spec)[0]
    copy = griffin_lim(mel, spec)

    assert copy.shape == (mel.shape[1] * spec.hop_length,) and copy.dtype == torch.float32
    samples = min(len(copy), len(audio))
    assert abs(envelope_lag(audio[:samples], copy[:samples])) <= MAX_LAG
    if spec.grid not in ("causal", "ahead"):  # an end of theirs lies under one window alone
        assert log_mel_l1(audio[:samples], copy[:samples], SPEC) < MAX_LOG_MEL_L1


def test_a_mistaken_grid_would_be_seen(voice, noise):
    audio = bursts(voice, noise)
    mel = mel_spectrogram(audio, SPEC)[0]
    copy = griffin_lim(mel, MelSpec(grid="centred"))
    assert abs(envelope_lag(audio, copy[: len(audio)])) > MAX_LAG


def test_the_same_seed_gives_the_same_audio(voice):
    mel = mel_spectrogram(voice(seconds=0.2), SPEC)[0]
    assert griffin_lim(mel, SPEC, seed=1).equal(griffin_lim(mel, SPEC, seed=1))
    assert not griffin_lim(mel, SPEC, seed=1).equal(griffin_lim(mel, SPEC, seed=2))


def test_a_transposed_mel_is_refused(voice):
    mel = mel_spectrogram(voice(seconds=0.2), SPEC)[0]
    with pytest.raises(MelError, match=r"\[80 bands, frames\], got \[16, 80\]"):
        griffin_lim(mel.T, SPEC)
