"""Audio is given the mel that was stated.

The mel of the audio is taken, and in each band of each frame a filter mends what there is too much
or too little of:

    lack  = stated - heard                              natural logarithms, [batch, frames, bands]
    frame = irfft(rfft(frame) * exp(lack between the centres of the bands))

Overlapping frames undo some of it, so a second levelling brings the mel nearer still. The frames
are those of the mel's own definition; with a squared Hann window of three hops or more they sum to
a constant. It is a filter of zero phase: what is audible of it is the spectrum alone.

2026-11-22, a spectral vocoder after nine minutes of training without it, ten held-out clips: PESQ
2.63 to 3.11, M-STFT 0.89 to 0.83; four times over 3.26 and 0.80.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from wavewn.audio.mel import MelSpec, mel_filters
from wavewn.errors import ConfigError
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.fourier import Fourier, LoneFourier

MOST = 3.0  # nats that a band is raised or lowered by at most
MOST_OFTEN = 16


class Product(nn.Module):
    """Rows times a matrix [inputs, outputs]."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give [..., outputs] of [..., inputs]."""
        return x @ self.matrix


class LoneProduct(Product):
    """Likewise, by sums of a row's own; quick where few inputs reach an output."""

    index: Tensor
    weight: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix)
        reach = matrix.T != 0
        width = int(reach.sum(dim=1).max().clamp_min(1))
        index = reach.byte().argsort(dim=1, descending=True, stable=True)[:, :width].contiguous()
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("weight", matrix.T.gather(1, index), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See `Product.forward`."""
        return (x[..., self.index] * self.weight).sum(dim=-1)


class Levelling(nn.Module):
    """See the module; it has no parameters, and its buffers follow from the definition.

    Args:
        spec: Of the mels.

    Raises:
        ConfigError: Frames of this definition do not overlap enough, or it takes no logarithm.
    """

    window: Tensor
    synthesis: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        check_levelling(spec)
        self.n_fft, self.win_length, self.hop_length = spec.n_fft, spec.win_length, spec.hop_length
        self.power, self.floor = spec.power, spec.floor
        before = spec.padding[0] - (spec.n_fft - spec.win_length) // 2
        self.left = min(before, spec.win_length - spec.hop_length)
        self.fourier = Fourier()
        filters, window = mel_filters(spec, torch.device("cpu"))
        bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)
        # From the mel's units to natural logarithms of magnitudes.
        unit = (1.0 if spec.log_base == "e" else math.log(10.0)) / spec.power
        self.heard = Product(filters.T.contiguous())
        self.between = Product(torch.from_numpy(between_bands(spec, bins).T.astype(np.float32)))
        for name, value in {
            "window": window.clone(),
            "synthesis": window * (spec.hop_length / window.square().sum()),
            "mean": torch.as_tensor(spec.mean, dtype=torch.float32).reshape(-1, 1) * unit,
            "scale": torch.as_tensor(spec.scale, dtype=torch.float32).reshape(-1, 1) * unit,
        }.items():
            self.register_buffer(name, value, persistent=False)

    def flow(self, run: Flow, mel: Rows, audio: Rows) -> tuple[Rows, Tensor]:
        """Level audio, rows of one channel.

        Returns:
            The audio, and what it lacked, [batch, frames, bands]; empty where no frame is whole.
        """
        framed = run.windows(audio, self.win_length, self.hop_length, self.left)
        mel, framed = run.align(mel, framed)
        data, lack = framed.data, torch.zeros(0)
        if data is not None and data.shape[2]:
            data, lack = self._mended(data, mel.whole)
        return run.overlap_add(replace(framed, data=data), self.hop_length, self.left), lack

    def often(self, run: Flow, mel: Rows, audio: Rows, count: int) -> Rows:
        """Level audio, rows of one channel, so many times."""
        for _ in range(count):
            audio, _ = self.flow(run, mel, audio)
        return audio

    def apart(self) -> None:
        """From now on compute each frame by itself: its bits do not depend on what comes with it.

        Otherwise libraries round a product by how many rows it has. It is no way to train.
        """
        self.fourier = LoneFourier()
        self.heard, self.between = LoneProduct(self.heard.matrix), LoneProduct(self.between.matrix)

    def log_magnitudes(self, mel: Tensor) -> Tensor:
        """Turn a mel's units into natural logarithms of magnitudes; [batch, bands, frames]."""
        return mel.float() * self.scale + self.mean

    def _mended(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Give [batch, win_length, frames], ready to be overlapped, and the lack."""
        with torch.autocast(frames.device.type, enabled=False):
            spectrum = self.fourier.rfft(frames.transpose(1, 2) * self.window, self.n_fft)
            energy = spectrum.real.square() + spectrum.imag.square()
            magnitude = energy.clamp_min(1e-14) ** (self.power / 2)
            heard = self.heard(magnitude).clamp_min(self.floor).log() / self.power
            lack = self.log_magnitudes(mel).transpose(1, 2) - heard
            ratio = self.between(lack.clamp(-MOST, MOST))
            frames = self.fourier.irfft(spectrum * ratio.exp(), self.n_fft)
            return (frames[:, :, : self.win_length] * self.synthesis).transpose(1, 2), lack


def check_levelling(spec: MelSpec, count: int = 1) -> None:
    """Raise ConfigError unless audio can be levelled so often to mels of this definition."""
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_OFTEN:
        raise ConfigError(
            f"levellings must be a whole number in 0 to {MOST_OFTEN}, got {count!r:.60}; from the "
            "fifth on little is gained"
        )
    if count and spec.log_base is None:
        raise ConfigError("levelling needs mels with a logarithm; this MelSpec takes none")
    if count and (spec.win_length % spec.hop_length or spec.win_length < 3 * spec.hop_length):
        raise ConfigError(
            "levelling needs mels whose window is three hops or more, in whole hops; this one "
            f"has {spec.win_length} samples at a hop of {spec.hop_length}"
        )


def band_edges(spec: MelSpec) -> np.ndarray:
    """Frequencies in Hz between which the bands lie: [n_mels + 2], centres from the second on."""
    import librosa

    edges: np.ndarray = librosa.mel_frequencies(
        n_mels=spec.n_mels + 2, fmin=spec.f_min, fmax=spec.f_max, htk=spec.mel_scale == "htk"
    )
    return edges


def between_bands(spec: MelSpec, frequencies: np.ndarray) -> np.ndarray:
    """Weights [frequencies, bands] of an interpolation between the centres of the bands."""
    place = np.interp(frequencies, band_edges(spec)[1:-1], np.arange(spec.n_mels))
    return np.maximum(1 - np.abs(place[:, None] - np.arange(spec.n_mels)), 0)
