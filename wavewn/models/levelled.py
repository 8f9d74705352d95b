"""A generator whose audio is levelled to its mel (nn/levelling.py), once or several times.

It is of use to every model: what a network's spectrum still lacks is measured and mended, whatever
the network is. It needs no training. Each time adds some latency, that of windows and their
overlap: with the mels of 16 kHz 44 ms once, 38 ms more for each further one. `Spectral` does it by
itself, since it learns with it. A WaveNet makes no rows: engine/levelled.py has its stream.
"""

from typing import Any, cast

from torch import Tensor, nn

from wavewn.audio.mel_spec import MelSpec
from wavewn.models.generators import Generator
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.levelling import Levelling, check_levelling


class Levels(nn.Module):
    """Levels audio to a mel, `count` times.

    Args:
        spec: Of the mels.
        count: 1 to 16.

    Raises:
        ConfigError: Audio cannot be levelled to such mels, or so often.
    """

    noise_channels = 0

    def __init__(self, spec: MelSpec, count: int) -> None:
        super().__init__()
        check_levelling(spec, count)
        self.n_mels, self.hop_length, self.count = spec.n_mels, spec.hop_length, count
        self.levelling = Levelling(spec)

    def flow(self, run: Flow, mel: Rows, audio: Rows) -> Rows:
        """Give the audio, levelled."""
        return self.levelling.often(run, mel, audio, self.count)


class Levelled(nn.Module):
    """See the module; a `Generator`.

    Args:
        generator: Gives the audio.
        levels: Levels it.
    """

    def __init__(self, generator: Generator, levels: Levels) -> None:
        super().__init__()
        self.generator = cast("nn.Module", generator)
        self.levels = levels
        self.settings: Any = generator.settings
        self.n_mels, self.hop_length = generator.n_mels, generator.hop_length
        self.noise_channels = generator.noise_channels

    def flow(self, run: Flow, mel: Rows, noise: Any = None) -> Rows:
        """See `Generator.flow`."""
        audio = cast("Generator", self.generator).flow(run, mel, noise)
        return self.levels.flow(run, mel, audio.map(Tensor.float))

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Turn a whole mel [batch, bands, frames] into audio [batch, frames * hop_length]."""
        drive = None if noise is None else Rows.of(noise)
        return self.flow(Flow(), Rows.of(mel), drive).whole[:, 0]
