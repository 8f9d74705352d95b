"""Random crops of a corpus: a batch is a pure function of (seed, step).

The step keys a counter-based generator that chooses utterances and starts. So a resumed run, any
number of workers and every rank see exactly the batches that an uninterrupted run sees. A crop
reads only its own samples and what its mel needs; where a file has another sample rate, only this
stretch of it is resampled.

One crop in ten starts its utterance. A stream begins with a history of zeros, so this is where the
model learns what such a history means; in the middle of an utterance it means nothing, and what
only it explains is not scored (`training/likelihood.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from wavewn.audio.io import read_segment
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.data.manifest import Utterance
from wavewn.errors import DataError

START_SHARE = 0.1  # of the crops
RESAMPLER_REACH = 512  # samples at the lower rate on which a resampled one may depend


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Attributes:
        audio: [batch, frames * hop_length].
        mel: [batch, bands, lead + frames + look_ahead].
        speaker: int64 [batch].
        starts: bool [batch], whether a row starts its utterance.
        paths: File of each row, for error messages.
    """

    audio: Tensor
    mel: Tensor
    speaker: Tensor
    starts: Tensor
    paths: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Copy to a device; Lightning calls this."""
        audio, mel, speaker, starts = (
            tensor.to(device, non_blocking=non_blocking)
            for tensor in (self.audio, self.mel, self.speaker, self.starts)
        )
        return Batch(audio, mel, speaker, starts, self.paths)


def samples_at(utterance: Utterance, sample_rate: int) -> int:
    """Length of an utterance after resampling."""
    return utterance.samples * sample_rate // utterance.sample_rate


def read_at(utterance: Utterance, sample_rate: int, start: int, samples: int) -> Tensor:
    """Read [samples] from `start` on, both counted at `sample_rate`; outside the file is zero.

    Positions where both rates have a sample are a whole number of periods apart, so the stretch
    that is resampled begins at one of them and the phase is that of the whole file.
    """
    if utterance.sample_rate == sample_rate:
        return read_segment(utterance.path, start, samples)
    import librosa

    common = gcd(sample_rate, utterance.sample_rate)
    period, period_in_file = sample_rate // common, utterance.sample_rate // common
    margin = ceil(RESAMPLER_REACH / min(period, period_in_file))
    first = start // period - margin
    periods = ceil((start + samples) / period) + margin - first
    source = read_segment(utterance.path, first * period_in_file, periods * period_in_file)
    whole = librosa.resample(
        source.numpy(),
        orig_sr=utterance.sample_rate,
        target_sr=sample_rate,
        res_type="soxr_hq",
    )
    begin = start - first * period
    return torch.from_numpy(np.ascontiguousarray(whole[begin : begin + samples], np.float32))


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

    Raises:
        DataError: No utterance is long enough.
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
        length = frames * spec.hop_length
        self.utterances = [u for u in utterances if samples_at(u, spec.sample_rate) >= length]
        if not self.utterances:
            raise DataError(
                f"none of {len(utterances)} utterances is as long as a crop of {frames} frames "
                f"({length / spec.sample_rate:.2f} s); shorten data.frames"
            )
        self.speakers = {name: index for index, name in enumerate(speakers)}
        self.spec, self.frames, self.batch_size = spec, frames, batch_size
        self.lead, self.look_ahead = lead, look_ahead
        self.seed, self.start, self.stride = seed, start, stride
        weights = np.array([u.duration_s for u in self.utterances], dtype=np.float64)
        self.cumulative = np.cumsum(weights / weights.sum())

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, whatever came before."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        rows = [self._crop(generator) for _ in range(self.batch_size)]
        audio, mel, starts, chosen = zip(*rows, strict=True)
        speaker = torch.tensor([self.speakers.get(u.speaker, 0) for u in chosen])
        paths = [str(u.path) for u in chosen]
        return Batch(torch.stack(audio), torch.stack(mel), speaker, torch.tensor(starts), paths)

    def _crop(self, generator: np.random.Generator) -> tuple[Tensor, Tensor, bool, Utterance]:
        hop, rate = self.spec.hop_length, self.spec.sample_rate
        index = int(np.searchsorted(self.cumulative, generator.random(), side="right"))
        utterance = self.utterances[min(index, len(self.utterances) - 1)]
        length = self.frames * hop
        begin = int(generator.integers(0, samples_at(utterance, rate) - length + 1))
        if generator.random() < START_SHARE:
            begin = 0
        edge = ceil(max(self.spec.padding) / hop)  # frames whose window needs samples outside
        before = (self.lead + edge) * hop
        frames = self.lead + self.frames + self.look_ahead
        audio = read_at(utterance, rate, begin - before, (frames + 2 * edge) * hop)
        mel = mel_spectrogram(audio, self.spec)[0, :, edge : edge + frames]
        return audio[before : before + length], mel, begin == 0, utterance

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + index * self.stride
        while True:
            yield self.batch(step)
            step += workers * self.stride
