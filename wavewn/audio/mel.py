"""Mel spectrograms: audio to mel by a `MelSpec`, and the check of a mel that came from elsewhere.

The definition itself, with its presets, lives in `mel_spec.py`; `MelSpec` is imported from here.
The filters are librosa's, so that "slaney" means what everybody means by it; everything else is
torch, in float32 even under autocast, and differentiable, so that losses use the same function.
"""

import functools
import logging
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.audio.companding import pre_emphasis
from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import MelError, ShapeError

__all__ = ["MelSpec", "check_mel", "mel_spectrogram", "prepare_audio"]

logger = logging.getLogger(__name__)

FLOORS = (1e-5, 1e-7, 1e-8, 1e-9, 1e-10)  # at which the vocoder families clamp
BELOW_FLOOR = 2.0  # nats that an acoustic model's prediction may undershoot the floor by


def mel_spectrogram(audio: Tensor, spec: MelSpec) -> Tensor:
    """Compute the mel spectrogram that `spec` defines, of audio that went through its chain.

    Args:
        audio: [batch, samples] or [samples], at `spec.sample_rate`. Audio shorter than the
            padding is reflected as often as it takes, as numpy does.
        spec: The definition; its chain (`prepare_audio`) is not applied here.

    Returns:
        [batch, n_mels, spec.frames(samples)], float32; batch is 1 for [samples].

    Raises:
        ShapeError: The audio has another number of axes, no samples, or is not floating point.
    """
    audio = _rows(audio)
    samples = audio.shape[1]
    frames = spec.frames(samples)
    if frames == 0:
        return audio.new_zeros(audio.shape[0], spec.n_mels, 0)
    with torch.autocast(audio.device.type, enabled=False):
        filters, window = mel_filters(spec, audio.device)
        spectrum = torch.stft(
            _pad(audio, spec.padding, spec.pad_mode),
            spec.n_fft,
            spec.hop_length,
            spec.win_length,
            window,
            center=False,
            return_complex=True,
        )
        mel = (filters @ _magnitude(spectrum[..., :frames], spec)).contiguous()
        mel = mel.clamp(min=spec.floor) if spec.floor_kind == "clamp" else mel + spec.floor
        if spec.log_base is not None:
            mel = mel.log() if spec.log_base == "e" else mel.log10()
        return (mel - _column(spec.mean, mel)) / _column(spec.scale, mel)


def prepare_audio(audio: Tensor, spec: MelSpec) -> Tensor:
    """Send audio through the chain of `spec`: peak, high-pass, pre-emphasis, gain.

    The high-pass is a causal Butterworth filter of order 4. Carries no gradient through it.

    Args:
        audio: [batch, samples] or [samples], whole files, because of the peak.
        spec: Whose `peak`, `high_pass_hz`, `pre_emphasis` and `gain` apply.

    Returns:
        Audio of the same shape.
    """
    rows = _rows(audio)
    if spec.peak is not None:
        loudest = rows.abs().amax(dim=1, keepdim=True)
        rows = rows * torch.where(loudest > 0, spec.peak / loudest, 1.0)
    if spec.high_pass_hz is not None:
        from scipy.signal import butter, sosfilt

        sos = butter(4, spec.high_pass_hz, "highpass", fs=spec.sample_rate, output="sos")
        filtered = sosfilt(sos, rows.detach().cpu().numpy().astype(np.float64), axis=1)
        rows = torch.from_numpy(filtered.astype(np.float32)).to(rows.device)
    if spec.pre_emphasis:
        rows = pre_emphasis(rows, spec.pre_emphasis)
    return (rows * spec.gain).reshape(audio.shape)


def _rows(audio: Tensor) -> Tensor:
    """Give [batch, samples] in float32."""
    if audio.dim() not in (1, 2) or audio.shape[-1] == 0 or not audio.is_floating_point():
        raise ShapeError(
            "audio must be [batch, samples] or [samples], floating point and not empty, "
            f"got {list(audio.shape)} {audio.dtype}"
        )
    return audio.reshape(-1, audio.shape[-1]).float()


def _pad(audio: Tensor, padding: tuple[int, int], mode: str) -> Tensor:
    samples = audio.shape[1]
    if mode != "reflect" or max(padding) < samples:
        # torch pads by reflection and replication only what has a channel axis
        return F.pad(audio.unsqueeze(1), padding, mode=mode).squeeze(1)
    index = torch.arange(-padding[0], samples + padding[1], device=audio.device)
    index = index % max(2 * (samples - 1), 1)
    return audio[:, torch.minimum(index, (2 * (samples - 1) - index).abs())]


def _magnitude(spectrum: Tensor, spec: MelSpec) -> Tensor:
    if spec.magnitude_epsilon == 0:
        magnitude = spectrum.abs()  # its gradient at 0 is 0; that of a root is not finite
        return magnitude if spec.power == 1 else magnitude**spec.power
    energy = spectrum.real.square() + spectrum.imag.square() + spec.magnitude_epsilon
    return energy.sqrt() if spec.power == 1 else energy ** (spec.power / 2)


@functools.lru_cache(maxsize=16)
def mel_filters(spec: MelSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give the mel filters [n_mels, bins] and the window [win_length]."""
    import librosa

    bank = librosa.filters.mel(
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min,
        fmax=spec.f_max,
        htk=spec.mel_scale == "htk",
        norm=spec.norm,
        dtype=np.float32,
    )
    # Tensors born under inference_mode could never be trained with, and these are kept.
    with torch.inference_mode(False):
        window = torch.hann_window(spec.win_length, periodic=True, dtype=torch.float32)
        if spec.window == "root-hann":
            places = (torch.arange(spec.win_length, dtype=torch.float64) + 0.5) / spec.win_length
            overlaps = spec.win_length / (2 * spec.hop_length)
            window = (torch.sin(math.pi * places) / math.sqrt(overlaps)).float()
        return torch.tensor(bank, device=device), window.to(device)


def _column(value: float | tuple[float, ...], like: Tensor) -> Tensor:
    """Give one number, or one per band, in a shape that meets [batch, bands, frames]."""
    return like.new_tensor(value).reshape(-1, 1)


def check_mel(mel: Tensor, spec: MelSpec) -> None:
    """Refuse a mel that cannot be what `spec` says, naming the likely cause.

    What a microphone could have recorded passes: silence, full-scale noise, a prediction that
    undershoots the floor a little. What is only suspicious is logged as a warning.

    Args:
        mel: [bands, frames] or [batch, bands, frames].
        spec: What the mel claims to be.

    Raises:
        MelError: As `judge_mel`.
    """
    suspicion = judge_mel(mel, spec)
    if suspicion is not None:
        logger.warning("%s", suspicion)


def judge_mel(mel: Tensor, spec: MelSpec) -> str | None:
    """Do what `check_mel` does, but return what is only suspicious instead of logging it.

    Raises:
        MelError: Wrong layout, number of bands, NaN, or values that no audio in [-1, 1] gives.
    """
    shape = list(mel.shape)
    if len(shape) not in (2, 3) or not mel.is_floating_point() or mel.numel() == 0:
        raise MelError(
            "a mel must be [bands, frames] or [batch, bands, frames], floating point and not "
            f"empty, got {shape} {mel.dtype}"
        )
    if shape[-2] != spec.n_mels and shape[-1] == spec.n_mels:
        raise MelError(f"the mel is transposed: {shape} is [frames, bands]; swap its last two axes")
    if shape[-2] != spec.n_mels:
        raise MelError(
            f"this model reads {spec.n_mels} bands, the mel is {shape} [.., bands, frames]; "
            "it was made for another vocoder"
        )
    mel = mel.detach().float()
    strange = ~torch.isfinite(mel)
    if strange.any():
        frame = int(strange.nonzero()[0, -1])
        raise MelError(
            f"the mel holds {int(strange.sum())} NaN or infinite values, the first in frame "
            f"{frame}; was a logarithm taken of zero, or did the acoustic model diverge?"
        )
    return _check_range(without_affine(mel, spec), spec)


def without_affine(mel: Tensor, spec: MelSpec) -> Tensor:
    """Undo the mean and scale of `spec`: what is left is the logarithm itself."""
    return mel * _column(spec.scale, mel) + _column(spec.mean, mel)


def _check_range(values: Tensor, spec: MelSpec) -> str | None:
    """Compare values before the affine with what audio in [-1, 1] can give."""
    low, high, middle = (float(v) for v in (values.min(), values.max(), values.median()))
    came = f"values go from {low:.4g} to {high:.4g}"
    if spec.log_base is None:
        if low < -1.0:
            raise MelError(f"linear magnitudes are never negative, {came}: was a logarithm taken?")
        return None
    nats = 1.0 if spec.log_base == "e" else 1.0 / math.log(10)
    mine, other = ("natural log", "log10") if spec.log_base == "e" else ("log10", "natural log")
    floor, noise, limit = math.log(spec.floor) * nats, *(v * nats for v in noise_levels(spec))
    expected = f"expected {mine} between {floor:.4g} and {limit:.3g}, {came}"
    if low >= 0 > floor and (noise < nats or middle < 0.05 * high):
        raise MelError(
            f"{expected}: these are linear magnitudes, or values normalised to start at 0; "
            f"take the {mine} of max(mel, {spec.floor:g})"
        )
    if low < floor - BELOW_FLOOR * nats:
        cause = f"its floor is not {spec.floor:g}; clamp the mel at {floor:.5g}"
        if low < -30.0:
            cause = "these are decibels; multiply by ln(10) / 20 = 0.1151 (for log10 by 0.05)"
        elif other == "natural log":
            cause = "this is the natural log; divide by ln(10) = 2.3026"
        raise MelError(f"{expected}: {cause}")
    if high > limit:
        raise MelError(
            f"{expected}: too loud; is it decibels, energy, normalised by statistics of its own, "
            "or taken from audio in 16-bit integers?"
        )
    if other != "log10":
        return None
    resting = int((values < low + 1e-4).sum())
    clamped = any(abs(low - math.log10(f)) < 1e-3 for f in (*FLOORS, spec.floor))
    if clamped and low > floor + 0.5 and resting >= 8 and high - low > 2:
        raise MelError(
            f"{expected}, and {resting} values rest at {low:.4g}: this is log10; "
            "multiply by ln(10) = 2.3026"
        )
    if values.shape[-1] >= 20 and low > 0.55 * floor and high - low > 3:
        return (
            f"the mel's {came} and never come near the floor, {floor:.4g}: either the recording "
            "is noisy throughout, or this is log10 (then multiply by 2.3026)"
        )
    return None


@functools.lru_cache(maxsize=16)
def noise_levels(spec: MelSpec) -> tuple[float, float]:
    """Give, in nats, the level of +-1 white noise and a limit above all audio in [-1, 1]."""
    filters, window = mel_filters(spec, torch.device("cpu"))
    areas = filters.sum(dim=1)
    noise = areas.median() * window.square().sum().sqrt() ** spec.power
    bound = areas.max() * window.sum() ** spec.power
    return math.log(noise), max(6.0, math.log(bound) + 1.0)
