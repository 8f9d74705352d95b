"""Distances between a recording and its copy-synthesis.

Functions take audio as 1-D float32 tensors `[samples]` at one sample rate, the recording
first, and return a float. A metric that has nothing to judge (no voiced frame, no speech)
returns NaN, never a flattering number. Copy-synthesis is aligned by construction, so nothing
here warps time; `reconcile` cuts the last incomplete hop away first.

Figures of different papers compare only where the definition is the same, so each docstring
states its own in full.
"""

import logging
import math
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.errors import ShapeError
from wavewn.losses import STFT_RESOLUTIONS, MultiResolutionStftLoss

log = logging.getLogger(__name__)

MEL_FLOOR = 1e-5
MCD_COEFFICIENTS = 13
F0_MIN_HZ, F0_MAX_HZ = 60.0, 400.0
JUDGE_RATE = 16_000  # PESQ-WB is defined at this rate, and STOI is taken at it as well
CLIPPED = 0.999  # 16-bit full scale, with room for rounding
FRAME_S = 0.02
STOI_S = 0.4  # STOI compares stretches of this length
SPEAKING_DB, SILENT_DB = -40.0, -60.0


def reconcile(reference: Tensor, generated: Tensor, hop_length: int) -> tuple[Tensor, Tensor]:
    """Cut two recordings to the shorter one.

    Raises:
        ShapeError: One is not `[samples]`, is empty, or they differ by more than one hop,
            which no frame grid explains.
    """
    for name, audio in (("reference", reference), ("generated", generated)):
        if audio.ndim != 1 or audio.shape[0] == 0:
            raise ShapeError(f"{name} audio must be [samples], got {list(audio.shape)}")
    samples = min(reference.shape[0], generated.shape[0])
    if max(reference.shape[0], generated.shape[0]) - samples > hop_length:
        raise ShapeError(
            f"reference has {reference.shape[0]} samples and generated {generated.shape[0]}: they "
            f"may differ by one hop ({hop_length}); are both at one sample rate, and was the mel "
            "of this very recording synthesized?"
        )
    return reference[:samples], generated[:samples]


def log_mel_l1(reference: Tensor, generated: Tensor, spec: MelSpec) -> float:
    """Mean absolute difference of natural-log magnitude mels.

    Bands and frames are those of `spec`; magnitudes are clamped at 1e-5 before the logarithm,
    whatever units and floor `spec` has, so that models with different mels compare.
    """
    difference = _natural_log_mel(reference, spec) - _natural_log_mel(generated, spec)
    return difference.abs().mean().item()


def mcd(reference: Tensor, generated: Tensor, spec: MelSpec) -> float:
    """Mel-cepstral distortion in dB, without time warping.

    The cepstrum is the orthonormal DCT-II over the bands of the mel that `log_mel_l1` judges;
    coefficients 1 to 13 count (0, the loudness, does not). The mean over frames of
    10 / ln 10 * sqrt(2 * sum of squared differences).

    Source:
        Kubichek 1993, "Mel-cepstral distance measure for objective speech quality assessment",
        with a DCT cepstrum in place of the paper's: not comparable with figures that rest on
        SPTK or WORLD cepstra.
    """
    from scipy.fft import dct

    difference = _natural_log_mel(reference, spec) - _natural_log_mel(generated, spec)
    cepstrum = dct(difference.double().numpy(), type=2, norm="ortho", axis=0)
    squared = (cepstrum[1 : MCD_COEFFICIENTS + 1] ** 2).sum(axis=0)
    return float(10 / math.log(10) * np.sqrt(2 * squared).mean())


def multi_resolution_stft(reference: Tensor, generated: Tensor) -> float:
    """Spectral convergence plus log-magnitude L1, averaged over three resolutions.

    What `MultiResolutionStftLoss` says in training; it equals auraloss's.

    Source:
        Yamamoto et al. 2020, "Parallel WaveGAN", section 2.2, arXiv:1910.11480.

    Returns:
        NaN for audio of 1024 samples and less: the longest window cannot be padded by reflection.
    """
    if reference.shape[0] <= max(n_fft for n_fft, _, _ in STFT_RESOLUTIONS) // 2:
        return math.nan
    return MultiResolutionStftLoss()(generated[None], reference[None]).item()


def pitch_track(audio: Tensor, sample_rate: int) -> Tensor:
    """Return F0 in Hz for each frame of about 16 ms, NaN where unvoiced, by pYIN.

    Between 60 and 400 Hz; windows of 1024 samples at 16 kHz, hop a quarter of the window.

    Source:
        Mauch and Dixon 2014, "pYIN", as librosa implements it with its defaults.
    """
    import librosa

    frame_length = 2 ** round(math.log2(0.064 * sample_rate))
    frequency, _, _ = librosa.pyin(
        audio.numpy(),
        sr=sample_rate,
        fmin=F0_MIN_HZ,
        fmax=F0_MAX_HZ,
        frame_length=frame_length,
        hop_length=frame_length // 4,
    )
    return torch.from_numpy(frequency.astype(np.float32))


def f0_rmse_cents(reference: Tensor, generated: Tensor) -> float:
    """Root mean square F0 error in cents over the frames that both tracks call voiced.

    Args:
        reference: Track of `pitch_track`, [frames].
        generated: The same of the copy.

    Returns:
        NaN where no frame is voiced in both.
    """
    both = ~(reference.isnan() | generated.isnan())
    if not both.any():
        return math.nan
    cents = 1200 * torch.log2(generated[both] / reference[both])
    return cents.square().mean().sqrt().item()


def vuv_f1(reference: Tensor, generated: Tensor) -> float:
    """F1 score of the voiced decisions of two tracks of `pitch_track`.

    Returns:
        2 TP / (2 TP + FP + FN); NaN where neither track has a voiced frame.
    """
    truth, claim = ~reference.isnan(), ~generated.isnan()
    marked = int(truth.sum() + claim.sum())
    return 2 * int((truth & claim).sum()) / marked if marked else math.nan


def rms_ratio_db(reference: Tensor, generated: Tensor) -> float:
    """Level of the copy above the recording in dB; each counts as -100 dBFS at the least."""
    levels = [audio.square().mean().sqrt().clamp(min=1e-5) for audio in (reference, generated)]
    return 20 * torch.log10(levels[1] / levels[0]).item()


def clipped_fraction(audio: Tensor) -> float:
    """Share of samples at full scale (0.999 and above)."""
    return (audio.abs() >= CLIPPED).float().mean().item()


def silent_fraction(reference: Tensor, generated: Tensor, sample_rate: int) -> float:
    """Share of speech that fell silent: 0 is healthy, 1 is a copy that collapsed to silence.

    Counts frames of 20 ms in which the recording is above -40 dBFS and the copy below -60.
    NaN where the recording never speaks, or is shorter than a frame.
    """
    if reference.shape[0] < round(FRAME_S * sample_rate):
        return math.nan
    speaking = _frame_levels_db(reference, sample_rate) > SPEAKING_DB
    silent = _frame_levels_db(generated, sample_rate) < SILENT_DB
    if not speaking.any():
        return math.nan
    return silent[speaking].float().mean().item()


def pesq_wb(reference: Tensor, generated: Tensor, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2) at 16 kHz; needs the extra `eval`.

    Returns:
        MOS-LQO between 1 and 4.64; NaN where PESQ finds no utterance or too little audio.
    """
    from pesq import BufferTooShortError, NoUtterancesError, pesq

    truth, copy = (_at_judge_rate(audio, sample_rate) for audio in (reference, generated))
    if not (truth.any() and copy.any()):  # pesq divides by the peak and may not return
        return math.nan
    try:
        return float(pesq(JUDGE_RATE, truth, copy, "wb"))
    except (NoUtterancesError, BufferTooShortError) as error:
        log.warning("PESQ cannot judge this recording: %s", error)
        return math.nan


def stoi(reference: Tensor, generated: Tensor, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), at 16 kHz; extra `eval`.

    Returns:
        At most 1; NaN where less than about 0.4 s of the recording is not silent.
    """
    from pystoi import stoi as pystoi

    truth, copy = (_at_judge_rate(audio, sample_rate) for audio in (reference, generated))
    if len(truth) < STOI_S * JUDGE_RATE:
        return math.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        score = float(pystoi(truth, copy, JUDGE_RATE))
    if any("STFT frames" in str(warning.message) for warning in caught):
        log.warning("STOI cannot judge this recording: too little speech")
        return math.nan
    return score


def missing_extras() -> dict[str, str]:
    """Return metric name to reason for each metric whose package is not installed."""
    from importlib.util import find_spec

    packages = {"pesq_wb": "pesq", "stoi": "pystoi"}
    return {
        metric: f"package {package} is not installed; pip install 'wavewn[eval]'"
        for metric, package in packages.items()
        if find_spec(package) is None
    }


def _natural_log_mel(audio: Tensor, spec: MelSpec) -> Tensor:
    """[bands, frames] on the bands and grid of `spec`, in the units that the metrics state."""
    judged = replace(
        spec,
        power=1.0,
        magnitude_epsilon=0.0,
        log_base="e",
        floor_kind="clamp",
        floor=MEL_FLOOR,
        mean=0.0,
        scale=1.0,
    )
    return mel_spectrogram(audio, judged)[0]


def _frame_levels_db(audio: Tensor, sample_rate: int) -> Tensor:
    """[frames] of 20 ms in dBFS, without overlap; the last incomplete one is left out."""
    length = round(FRAME_S * sample_rate)
    power = audio.unfold(0, length, length).square().mean(dim=1)
    return 10 * torch.log10(power.clamp(min=1e-12))


def _at_judge_rate(audio: Tensor, sample_rate: int) -> np.ndarray:
    if sample_rate == JUDGE_RATE:
        return audio.numpy()
    import librosa

    resampled: np.ndarray = librosa.resample(
        audio.numpy(), orig_sr=sample_rate, target_sr=JUDGE_RATE
    )
    return resampled
