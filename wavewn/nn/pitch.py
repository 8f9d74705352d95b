"""The fundamental frequency of recordings, for a network to learn it from mels.

YIN, with the difference function taken for all lags at once through Fourier transforms. It runs on
batches, on any device, in a few milliseconds.

Source: de Cheveigne and Kawahara 2002, "YIN, a fundamental frequency estimator for speech and
music", steps 1 to 5.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

F_MIN, F_MAX = 55.0, 550.0  # Hz
DIP = 0.15  # the first lag whose normalised difference is below it is the period
VOICED = 0.25  # a frame whose smallest one is above it is unvoiced
WINDOW_S = 0.03
SILENCE = 1e-4  # mean square below which nothing is voiced


@torch.no_grad()
def fundamental_frequency(audio: Tensor, sample_rate: int, hop_length: int) -> Tensor:
    """Estimate F0 at the middle of every hop.

    Args:
        audio: [batch, samples].
        sample_rate: In Hz.
        hop_length: Samples from one estimate to the next.

    Returns:
        [batch, samples // hop_length] in Hz; 0 where unvoiced.
    """
    longest, shortest = math.ceil(sample_rate / F_MIN), math.floor(sample_rate / F_MAX)
    window = int(WINDOW_S * sample_rate)
    length = window + longest + 1
    before = (length - hop_length) // 2
    hops = audio.shape[1] // hop_length
    padded = F.pad(audio.float(), (max(before, 0), length))
    stretches = padded.unfold(1, length, hop_length)[:, :hops]
    size = 1 << (length - 1).bit_length()
    head = F.pad(stretches[..., :window], (0, length - window))
    product = torch.fft.rfft(stretches, size) * torch.fft.rfft(head, size).conj()
    correlation = torch.fft.irfft(product, size)[..., : longest + 1]
    energy = F.pad(stretches.double().square().cumsum(-1), (1, 0))
    lagged = (energy[..., window : window + longest + 1] - energy[..., : longest + 1]).float()
    difference = (lagged[..., :1] + lagged - 2 * correlation).clamp_min(0)
    lags = torch.arange(1, longest + 1, device=audio.device)
    mean = difference[..., 1:].cumsum(-1) / lags
    normalised = difference[..., 1:] / mean.clamp_min(1e-12)
    normalised[..., : shortest - 1] = math.inf
    falls = normalised[..., :-1] <= normalised[..., 1:]  # no smaller one follows at once
    dips = F.pad(falls & (normalised[..., :-1] < DIP), (0, 1))
    first = torch.where(dips.any(-1), dips.int().argmax(-1), normalised.argmin(-1))
    best = first.clamp(shortest, longest - 2)
    around = torch.stack([best - 1, best, best + 1], -1)
    a, b, c = normalised.gather(-1, around).unbind(-1)
    shift = (0.5 * (a - c) / (a - 2 * b + c).clamp_min(1e-6)).nan_to_num().clamp(-0.5, 0.5)
    loud = lagged[..., 0] / window > SILENCE**2
    voiced = (b < VOICED) & loud
    return torch.where(voiced, sample_rate / (best + 1 + shift), 0.0)
