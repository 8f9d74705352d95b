"""Pictures of sound: spectrograms of a recording and its copies, side by side on one scale.

`draw_spectrograms` makes one picture with axes, for a file or a log. `picture_levels` and
`encode_png` make the bare pictures of a page, which writes the axes itself so that they follow
the reader's font and colours.
"""

import io
import math
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
PICTURE_WINDOW_S = 0.064
PICTURE_ROWS = 256
PICTURE_COLUMNS_PER_S = 64
COLOURS = 64  # steps of a bare picture; more would show nothing and compress worse


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


def picture_levels(audio: Tensor, sample_rate: int) -> Tensor:
    """Return the levels that a bare picture shows.

    Args:
        audio: [samples].
        sample_rate: In Hz.

    Returns:
        [at most 256 rows, about 64 columns a second] in dB, the lowest frequency first; a row
        is the mean power of its bins, and the rows reach up to half the sample rate.
    """
    n_fft = 2 ** round(math.log2(PICTURE_WINDOW_S * sample_rate))
    audio = torch.nn.functional.pad(audio, (0, max(0, n_fft - audio.shape[0])))
    spectrum = torch.stft(
        audio,
        n_fft,
        max(1, sample_rate // PICTURE_COLUMNS_PER_S),
        window=torch.hann_window(n_fft),
        return_complex=True,
    )
    power = spectrum[:-1].abs().square()  # without the last bin, the rest is a power of two
    rows = power.unflatten(0, (-1, max(1, n_fft // 2 // PICTURE_ROWS))).mean(dim=1)
    return 10 * torch.log10(rows.clamp(min=1e-14))


def encode_png(levels: Tensor, low: float, high: float, colours: str) -> bytes:
    """Encode [rows, columns] as a PNG of a pixel each, row 0 at the bottom.

    Args:
        levels: What to show; values outside `low` to `high` take the colour of the end.
        low: Value of the first colour.
        high: Value of the last colour.
        colours: Name of a matplotlib colour map.
    """
    import matplotlib
    from PIL import Image

    steps = ((levels - low) / (high - low)).clamp(0, 1) * (COLOURS - 1)
    image = Image.fromarray(steps.round().to(torch.uint8).flip(0).numpy())
    palette = matplotlib.colormaps[colours](torch.linspace(0, 1, COLOURS).numpy(), bytes=True)
    image.putpalette(palette[:, :3].tobytes())
    content = io.BytesIO()
    image.save(content, "png", optimize=True)
    return content.getvalue()


def _level_db(audio: Tensor) -> Tensor:
    """[bins, frames] in dB; sounds shorter than a window are drawn with silence behind them."""
    audio = torch.nn.functional.pad(audio, (0, max(0, N_FFT - audio.shape[0])))
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(audio, N_FFT, HOP_LENGTH, window=window, return_complex=True)
    return 20 * torch.log10(spectrum.abs().clamp(min=1e-7))
