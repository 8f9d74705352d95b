"""What a generator is to those who run graphs: one for utterances, four for streams.

A graph is a generator's flow (nn/flow.py) of one utterance at a time:

    whole    mel [1, bands, frames] (, noise [1, channels, samples])  ->  audio [1, samples]

with any number of frames. The first and the last rows of an utterance see padding and those
between do not, so that a stream takes more graphs. What it remembers travels as one row of
numbers, and each graph hears a fixed number of frames:

    first    mel, noise          ->  audio, state     `first_frames`: the beginning
    next     state, mel, noise   ->  audio, state     a chunk, as often as wanted
    one      state, mel, noise   ->  audio, state     a single frame, for what is less than a chunk
    last     state               ->  audio            the rest, when no frame follows

Their audio put together is that of `whole`, which also serves utterances shorter than
`first_frames`: once they have been heard, every layer remembers as much as it ever does. They are
a few frames at most beyond the latency (HiFi-GAN V1: 14, of which 13 are latency), so that a
stream of graphs begins hardly later than one of wavewn's engines.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from wavewn.errors import ShapeError
from wavewn.models.generators import Generator
from wavewn.nn.flow import Flow, Rows

FAR = 1 << 20  # frames after which no layer knows of the utterance's beginning


@dataclass(frozen=True)
class Steady:
    """A stream of graphs once its layers have heard enough.

    Attributes:
        first_frames: That the first graph hears.
        entries: What travels between two calls, in this order: (name, rows, channels).
        lag_samples: By which audio lies behind the frames heard.
    """

    first_frames: int
    entries: tuple[tuple[str, int, int], ...]
    lag_samples: int

    @property
    def size(self) -> int:
        """Numbers in a state."""
        return sum(rows * channels for _, rows, channels in self.entries)

    def memory(self, state: Tensor) -> dict[str, Tensor]:
        """Take a state [1, size] apart, for a `Flow` to write into."""
        parts = state.split([rows * channels for _, rows, channels in self.entries], dim=1)
        return {
            name: part.reshape(1, rows, channels).clone()
            for (name, rows, channels), part in zip(self.entries, parts, strict=True)
        }

    def state(self, memory: dict[str, Tensor]) -> Tensor:
        """Put a state together."""
        return torch.cat([memory[name].flatten(1) for name, _, _ in self.entries], dim=1)


def find_steady(model: Generator) -> Steady:
    """Find how many frames a model's layers have to hear until they remember all they ever do."""

    def run(start: int) -> tuple[dict[str, tuple[int, int]], int]:
        flow = Flow()
        audio = model.flow(flow, *_counted(model, start, start + 1, False))
        return flow.taken, start * model.hop_length - audio.start

    taken, lag = run(FAR)
    frames = 1
    while run(frames) != (taken, lag):
        frames += 1
    return Steady(frames, tuple((name, *shape) for name, shape in taken.items() if shape[0]), lag)


def shortest(model: Generator) -> int:
    """Fewest frames of an utterance that the padding of all layers allows."""
    frames = 1
    while True:
        try:
            model.flow(Flow(), *_counted(model, 0, frames, True))
            return frames
        except ShapeError:
            frames += 1


def _counted(model: Generator, start: int, end: int, ended: bool) -> tuple[Rows, Rows | None]:
    """Give numbers of rows for `end - start` frames."""
    hop, channels = model.hop_length, model.noise_channels
    noise = Rows(None, channels, start * hop, end * hop, ended) if channels else None
    return Rows(None, model.n_mels, start, end, ended), noise


class Graph(nn.Module):
    """What the graphs have in common."""

    def __init__(self, model: Generator, steady: Steady | None = None) -> None:
        super().__init__()
        self.model = cast(nn.Module, model)
        self.steady = steady

    def run(self, flow: Flow, mel: Tensor, noise: Tensor | None, start: int, ended: bool) -> Tensor:
        """Give the audio that these frames determine."""
        model = cast(Generator, self.model)
        frames = Rows.of(mel, start, ended)
        drive = None if noise is None else Rows.of(noise, start * model.hop_length, ended)
        return model.flow(flow, frames, drive).whole[:, 0]


class Whole(Graph):
    """An utterance from end to end."""

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Give its audio."""
        return self.run(Flow(), mel, noise, 0, True)


class First(Graph):
    """The beginning of a stream."""

    def forward(self, mel: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Give audio and state."""
        assert self.steady is not None
        memory = self.steady.memory(mel.new_zeros(1, self.steady.size))
        audio = self.run(Flow(memory), mel, noise, 0, False)
        return audio, self.steady.state(memory)


class Next(Graph):
    """The middle of a stream; the numbers of its rows stand for any later ones."""

    def forward(
        self, state: Tensor, mel: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give audio and the state after it."""
        assert self.steady is not None
        memory = self.steady.memory(state)
        audio = self.run(Flow(memory), mel, noise, self.steady.first_frames, False)
        return audio, self.steady.state(memory)


class Last(Graph):
    """The end of a stream."""

    def forward(self, state: Tensor) -> Tensor:
        """Give the rest of its audio."""
        assert self.steady is not None
        model = cast(Generator, self.model)
        mel = state.new_zeros(1, model.n_mels, 0)
        noise = state.new_zeros(1, model.noise_channels, 0) if model.noise_channels else None
        memory = self.steady.memory(state)
        return self.run(Flow(memory), mel, noise, self.steady.first_frames, True)
