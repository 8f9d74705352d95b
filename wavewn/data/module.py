"""Random crops for training, whole utterances for validation.

A batch is a pure function of (seed, step): the step keys a counter-based generator that chooses
utterances and starts. So a resumed run, any number of workers and every rank see exactly the
batches that an uninterrupted run sees. A crop reads only its own samples and what its mel needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from wavewn.audio.io import read_segment
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.data.manifest import Utterance
from wavewn.errors import DataError


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Attributes:
        audio: [batch, frames * hop_length].
        mel: [batch, bands, lead + frames + look_ahead].
        speaker: int64 [batch].
        paths: File of each row, for error messages.
    """

    audio: Tensor
    mel: Tensor
    speaker: Tensor
    paths: list[str]


class Crops(IterableDataset[Batch]):
    """Endless batches of random crops, from a given step on.

    Args:
        utterances: What may be drawn, each in proportion to its length.
        speakers: Names in the order of the embedding.
        spec: The mel contract.
        frames: Mel frames a crop.
        batch_size: Crops a batch.
        lead: Frames before a crop that its mel includes.
        look_ahead: Frames after it.
        seed: Key of the generator.
        start: First step.
        stride: Distance between two steps: the number of ranks.
    """

    def __init__(
        self,
        utterances: list[Utterance],
        speakers: list[str],
        spec: MelSpec,
        *,
        frames: int,
        batch_size: int,
        lead: int,
        look_ahead: int,
        seed: int,
        start: int = 0,
        stride: int = 1,
    ) -> None:
        self.utterances = [u for u in utterances if u.samples >= frames * spec.hop_length]
        if not self.utterances:
            raise DataError(
                f"no utterance is as long as a crop of {frames} frames "
                f"({frames * spec.hop_length / spec.sample_rate:.2f} s); shorten data.frames"
            )
        self.speakers = {name: index for index, name in enumerate(speakers)}
        self.spec, self.frames, self.batch_size = spec, frames, batch_size
        self.lead, self.look_ahead = lead, look_ahead
        self.seed, self.start, self.stride = seed, start, stride
        weights = np.array([u.samples for u in self.utterances], dtype=np.float64)
        self.cumulative = np.cumsum(weights / weights.sum())

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, whatever came before."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        rows = [self._crop(generator) for _ in range(self.batch_size)]
        audio, mel, chosen = zip(*rows, strict=True)
        speaker = torch.tensor([self.speakers.get(u.speaker, 0) for u in chosen])
        return Batch(
            torch.stack(audio), torch.stack(mel), speaker, [str(u.path) for u in chosen]
        )

    def _crop(self, generator: np.random.Generator) -> tuple[Tensor, Tensor, Utterance]:
        hop = self.spec.hop_length
        index = int(np.searchsorted(self.cumulative, generator.random(), side="right"))
        utterance = self.utterances[min(index, len(self.utterances) - 1)]
        length = self.frames * hop
        begin = int(generator.integers(0, utterance.samples - length + 1))
        edge = ceil(self.spec.n_fft / 2 / hop)  # frames whose window needs samples outside
        before = (self.lead + edge) * hop
        frames = self.lead + self.frames + self.look_ahead
        audio = read_segment(utterance.path, begin - before, (frames + 2 * edge) * hop)
        mel = mel_spectrogram(audio, self.spec)[0, :, edge : edge + frames]
        return audio[before : before + length], mel, utterance

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + index * self.stride
        while True:
            yield self.batch(step)
            step += workers * self.stride
