"""Spectral losses: distances between generated and recorded audio as spectrograms.

Modules of the generated audio first and the recording second, both [batch, samples]; they hold
windows and filters as buffers that are not saved, and have no parameters. Gradients flow into
the first only where the caller detached the second.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.audio.mel import MelSpec, mel_filters, mel_spectrogram
from wavewn.errors import ShapeError
from wavewn.nn.spectrum import spectrum

STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window
STFT_FLOOR = 1e-4  # of a magnitude
MEL_FLOOR = 1e-5  # of a mel band's magnitude
MEL_SCALES = {  # (n_fft, hop_length, n_mels)
    "published": tuple((n, n // 4, n * 5 // 32) for n in (32, 64, 128, 256, 512, 1024, 2048)),
    "light": ((2048, 512, 160), (512, 128, 80), (128, 32, 20)),
}


class MelLoss(nn.Module):
    """Mean absolute difference of the log mel spectrograms that a `MelSpec` defines.

    HiFi-GAN listens up to half the sample rate where its generator's mel stops at 8 kHz: give
    `dataclasses.replace(spec, f_max=spec.sample_rate / 2)` for that.

    Source: Kong et al. 2020, "HiFi-GAN", section 2.4, arXiv:2010.05646.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Compare audio [batch, samples], in float32."""
        check_pair(generated, reference)
        with torch.autocast(generated.device.type, enabled=False):
            difference = mel_spectrogram(generated, self.spec) - mel_spectrogram(
                reference, self.spec
            )
            return difference.abs().mean()


class MultiScaleMelLoss(nn.Module):
    """Sum over scales of the mean absolute difference of log10 mel spectrograms.

    Long windows hear pitch, short ones hear when something happens. Magnitudes are clamped at
    1e-5, frames are centred, bands are Slaney's from 0 Hz to half the sample rate.

    Args:
        sample_rate: In Hz.
        scales: (n_fft, hop_length, n_mels) each; `MEL_SCALES` has the published ones, and three
            that cost a CPU less than half.

    Source: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN",
        arXiv:2306.06546, as its code defines it; BigVGAN-v2 trains with the same.
    """

    def __init__(
        self,
        sample_rate: int,
        scales: tuple[tuple[int, int, int], ...] = MEL_SCALES["published"],
    ) -> None:
        super().__init__()
        self.scales = scales
        for i, (n_fft, hop_length, n_mels) in enumerate(scales):
            spec = MelSpec(
                sample_rate=sample_rate,
                n_fft=n_fft,
                hop_length=hop_length,
                win_length=n_fft,
                n_mels=n_mels,
                f_min=0.0,
                f_max=sample_rate / 2,
            )
            with warnings.catch_warnings():  # narrow bands between two bins are empty
                warnings.filterwarnings("ignore", "Empty filters detected")
                filters, window = mel_filters(spec, torch.device("cpu"))
            self.register_buffer(f"window_{i}", window, persistent=False)
            self.register_buffer(f"filters_{i}", filters.T.contiguous(), persistent=False)

    def forward(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Compare audio [batch, samples], longer than half the longest window, in float32."""
        check_pair(generated, reference, max(n_fft for n_fft, _, _ in self.scales))
        with torch.autocast(generated.device.type, enabled=False):
            total = generated.new_zeros((), dtype=torch.float32)
            for scale in range(len(self.scales)):
                with torch.no_grad():
                    target = self.log_mel(reference, scale)
                total = total + F.l1_loss(self.log_mel(generated, scale), target)
        return total

    def log_mel(self, audio: Tensor, scale: int) -> Tensor:
        """Return [batch, frames, n_mels] of one scale."""
        n_fft, hop_length, _ = self.scales[scale]
        window, filters = (self.get_buffer(f"{name}_{scale}") for name in ("window", "filters"))
        bands = spectrum(audio, n_fft, hop_length, window).abs() @ filters
        return bands.clamp(min=MEL_FLOOR).log10()


class MultiResolutionStftLoss(nn.Module):
    """Spectral convergence plus log-magnitude L1, averaged over resolutions.

    Equals `auraloss.freq.MultiResolutionSTFTLoss()` with its defaults: magnitudes are clamped at
    1e-4, and the norms of the convergence run over the whole batch at once.

    Args:
        resolutions: (n_fft, hop_length, win_length) each.

    Source: Yamamoto et al. 2020, "Parallel WaveGAN", section 2.2, arXiv:1910.11480.
    """

    def __init__(self, resolutions: tuple[tuple[int, int, int], ...] = STFT_RESOLUTIONS) -> None:
        super().__init__()
        self.resolutions = resolutions
        for i, (_, _, win_length) in enumerate(resolutions):
            self.register_buffer(f"window_{i}", torch.hann_window(win_length), persistent=False)

    def forward(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Compare audio [batch, samples], longer than half the longest transform, in float32."""
        check_pair(generated, reference, max(n_fft for n_fft, _, _ in self.resolutions))
        with torch.autocast(generated.device.type, enabled=False):
            total = generated.new_zeros((), dtype=torch.float32)
            for i, (n_fft, hop_length, _) in enumerate(self.resolutions):
                window = self.get_buffer(f"window_{i}")
                estimate, target = (
                    spectrum(audio, n_fft, hop_length, window).abs().clamp(min=STFT_FLOOR)
                    for audio in (generated, reference)
                )
                total = total + torch.linalg.norm(target - estimate) / torch.linalg.norm(target)
                total = total + F.l1_loss(estimate.log(), target.log())
        return total / len(self.resolutions)


def check_pair(generated: Tensor, reference: Tensor, n_fft: int = 0) -> None:
    """Raise ShapeError unless both are [batch, samples] alike and longer than half of `n_fft`."""
    if generated.shape != reference.shape or generated.ndim != 2:
        raise ShapeError(
            "generated and recorded audio must both be [batch, samples], got "
            f"{list(generated.shape)} and {list(reference.shape)}"
        )
    if generated.shape[1] <= n_fft // 2:
        raise ShapeError(
            f"audio must be longer than {n_fft // 2} samples, half the longest transform, got "
            f"{generated.shape[1]}; take longer crops or shorter transforms"
        )
