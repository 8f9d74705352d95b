"""Pictures of sound: spectrograms of a recording and its copies, side by side on one scale."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavewn.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_FFT = 1024
HOP_LENGTH = 256
RANGE_DB = 80.0


def draw_spectrograms(sounds: Mapping[str, Tensor], sample_rate: int) -> "Figure":
    """Draw one spectrogram below the other, all in dB under the loudest point of the first.

    The first sound sets the scale, so that a copy that is too loud, too weak or noisy looks so.

    Args:
        sounds: Title to audio [samples], at least one; put the recording first.
        sample_rate: Of all of them.

    Returns:
        A matplotlib figure on the Agg canvas; nothing global is touched.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not sounds:
        raise DataError("a spectrogram picture needs at least one sound, got none")
    levels = {title: _level_db(audio) for title, audio in sounds.items()}
    top = next(iter(levels.values())).max().item()
    figure = Figure(figsize=(10, 2.4 * len(levels) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(levels), 1, squeeze=False, sharex=True)[:, 0]
    for panel, (title, level) in zip(panels, levels.items(), strict=True):
        duration_s = sounds[title].shape[0] / sample_rate
        image = panel.imshow(
            (level - top).numpy(),
            origin="lower",
            aspect="auto",
            extent=(0.0, duration_s, 0.0, sample_rate / 2000),
            vmin=-RANGE_DB,
            vmax=0.0,
            cmap="magma",
        )
        panel.set(title=title, ylabel="kHz")
    panels[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(panels), label="dB under the loudest of the first")
    return figure


def save_spectrograms(path: Path, sounds: Mapping[str, Tensor], sample_rate: int) -> None:
    """Write `draw_spectrograms` as a PNG, whole or not at all.

    Raises:
        DataError: There is no sound to draw, or the file cannot be written.
    """
    figure = draw_spectrograms(sounds, sample_rate)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, format="png", dpi=100)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def _level_db(audio: Tensor) -> Tensor:
    """[bins, frames] in dB; sounds shorter than a window are drawn with silence behind them."""
    audio = torch.nn.functional.pad(audio, (0, max(0, N_FFT - audio.shape[0])))
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(audio, N_FFT, HOP_LENGTH, window=window, return_complex=True)
    return 20 * torch.log10(spectrum.abs().clamp(min=1e-7))
