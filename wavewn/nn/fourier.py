"""Fourier transforms of real frames, twice: by torch's FFT, and as products with matrices.

Both compute the same. The first is fast, and goes frame by frame (`LoneFourier`) where the bits of
one may not depend on how many there are. The second is for graphs that others run (export/), where
complex numbers and transforms of any length are seldom to be had: a spectrum is then a pair of
real tensors. A model keeps one of them as its `fourier` and works on its spectra by these methods,
`real`, `imag`, and the product with a real tensor and the sum that both kinds of spectrum have.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Spectrum(Protocol):
    """Bins of real frames; a complex tensor is one."""

    @property
    def real(self) -> Tensor:
        """Real part."""

    @property
    def imag(self) -> Tensor:
        """Imaginary part."""

    def __mul__(self, gain: Tensor) -> "Spectrum":
        """Scale by a real gain a bin."""

    def __add__(self, other: "Spectrum") -> "Spectrum":
        """Sum."""


class Fourier(nn.Module):
    """Transforms by FFT; spectra are complex tensors."""

    def rfft(self, frames: Tensor, length: int) -> Spectrum:
        """Give the bins of frames [..., samples], at most `length` long, zeros after them."""
        return torch.fft.rfft(frames, length)

    def irfft(self, spectrum: Spectrum, length: int) -> Tensor:
        """Give frames of `length` samples."""
        assert isinstance(spectrum, Tensor), "a spectrum of another kind"
        return torch.fft.irfft(spectrum, length)

    def turned(self, spectrum: Spectrum, gain: Tensor, angle: Tensor) -> Spectrum:
        """Scale and turn each bin."""
        assert isinstance(spectrum, Tensor), "a spectrum of another kind"
        return spectrum * torch.polar(gain, angle)


class LoneFourier(Fourier):
    """Transforms one frame after another: libraries promise no bits to several at once."""

    def rfft(self, frames: Tensor, length: int) -> Spectrum:
        """See `Fourier.rfft`."""
        rows = frames.reshape(-1, frames.shape[-1]).unbind(0)
        spectra: Any = torch.stack([torch.fft.rfft(row, length) for row in rows])
        spectrum: Spectrum = spectra.view(*frames.shape[:-1], -1)
        return spectrum

    def irfft(self, spectrum: Spectrum, length: int) -> Tensor:
        """See `Fourier.irfft`."""
        assert isinstance(spectrum, Tensor), "a spectrum of another kind"
        rows = spectrum.reshape(-1, spectrum.shape[-1]).unbind(0)
        frames = torch.stack([torch.fft.irfft(row, length) for row in rows])
        return frames.view(*spectrum.shape[:-1], length)


@dataclass(frozen=True)
class Pair:
    """A spectrum without complex numbers."""

    real: Tensor
    imag: Tensor

    def __mul__(self, gain: Tensor) -> "Pair":
        return Pair(self.real * gain, self.imag * gain)

    def __add__(self, other: Spectrum) -> "Pair":
        return Pair(self.real + other.real, self.imag + other.imag)


class MatrixFourier(Fourier):
    """Transforms as products with matrices; spectra are pairs.

    Args:
        lengths: Of the transforms that are asked for, even.
    """

    def __init__(self, *lengths: int) -> None:
        super().__init__()
        for length in set(lengths):
            bins = torch.arange(length // 2 + 1, dtype=torch.float64)
            angle = torch.arange(length, dtype=torch.float64)[:, None] * bins % length
            angle = angle * (2 * math.pi / length)
            share = torch.full((length // 2 + 1, 1), 2 / length, dtype=torch.float64)
            share[[0, -1]] /= 2  # every other bin stands for its mirror image, too
            for name, value in {
                "cos": angle.cos(),
                "sin": -angle.sin(),
                "back_cos": angle.cos().T * share,
                "back_sin": -angle.sin().T * share,
            }.items():
                self.register_buffer(f"{name}_{length}", value.float(), persistent=False)

    def rfft(self, frames: Tensor, length: int) -> Pair:
        """See `Fourier.rfft`."""
        samples = frames.shape[-1]
        cos, sin = (self.get_buffer(f"{name}_{length}")[:samples] for name in ("cos", "sin"))
        return Pair(frames @ cos, frames @ sin)

    def irfft(self, spectrum: Spectrum, length: int) -> Tensor:
        """See `Fourier.irfft`."""
        cos, sin = (self.get_buffer(f"back_{name}_{length}") for name in ("cos", "sin"))
        return spectrum.real @ cos + spectrum.imag @ sin

    def turned(self, spectrum: Spectrum, gain: Tensor, angle: Tensor) -> Pair:
        """See `Fourier.turned`."""
        cos, sin = gain * angle.cos(), gain * angle.sin()
        real, imag = spectrum.real, spectrum.imag
        return Pair(real * cos - imag * sin, real * sin + imag * cos)
