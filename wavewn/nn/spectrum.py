"""The short-time Fourier transform of losses and discriminators, with a cheaper way back.

Its forward pass is `torch.stft`'s. Going back, torch transforms complex frames of which half are
zeros; here the adjoint is a real inverse transform of half the spectrum and an overlap-add, for

    X_k = sum_t x_t exp(-2 pi i k t / n), k = 0 .. n / 2      (frames x, real)
    dL/dx_t = Re sum_k G_k exp(2 pi i k t / n)                (G_k = dL/dRe X_k + i dL/dIm X_k)

which is the unscaled inverse of G with all bins halved but the first and the last.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Transform(torch.autograd.Function):
    """Frames of padded audio times a window, transformed; see the module. Not twice derivable."""

    @staticmethod
    def forward(ctx: Any, audio: Tensor, window: Tensor, hop_length: int) -> Tensor:
        """Transform audio [batch, samples] to [batch, frames, bins], complex."""
        ctx.save_for_backward(window)
        ctx.samples, ctx.hop_length = audio.shape[1], hop_length
        return torch.fft.rfft(audio.unfold(1, window.shape[0], hop_length) * window)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the audio."""
        (window,) = ctx.saved_tensors
        n_fft, hop = window.shape[0], ctx.hop_length
        batch, frames, bins = gradient.shape
        halves = torch.full((bins,), 0.5, device=window.device)
        halves[0] = halves[-1] = 1.0
        rows = torch.fft.irfft(gradient * halves, n_fft, norm="forward").mul_(window)
        pieces = -(-n_fft // hop)
        audio = rows.new_zeros(batch, max((frames - 1 + pieces) * hop, ctx.samples))
        grid = audio[:, : (frames - 1 + pieces) * hop].view(batch, -1, hop)
        for i in range(pieces):
            piece = rows[..., i * hop : (i + 1) * hop]
            grid[:, i : i + frames, : piece.shape[2]] += piece
        return audio[:, : ctx.samples], None, None


def spectrum(audio: Tensor, n_fft: int, hop_length: int, window: Tensor) -> Tensor:
    """Transform centred frames of audio, its ends reflected; float32 even under autocast.

    Args:
        audio: [batch, samples], longer than half of `n_fft`.
        n_fft: Length of the transform, even.
        hop_length: Samples from one frame to the next.
        window: [n_fft] or shorter, then centred.

    Returns:
        [batch, 1 + samples // hop_length, n_fft / 2 + 1], complex64: frames before bins, as
        they lie in memory.
    """
    with torch.autocast(audio.device.type, enabled=False):
        lack = n_fft - window.shape[0]
        window = F.pad(window, (lack // 2, lack - lack // 2))
        padded = F.pad(audio.float().unsqueeze(1), (n_fft // 2, n_fft // 2), mode="reflect")
        result: Tensor = Transform.apply(padded.squeeze(1), window, hop_length)
    return result
