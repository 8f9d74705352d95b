"""Random crops of a corpus: a batch is a pure function of (seed, step).

The step keys a counter-based generator that chooses utterances and starts. So a resumed run, any
number of workers and every rank see exactly the batches that an uninterrupted run sees. A crop
reads only its own samples and what its mel needs; where a file has another sample rate, only this
stretch of it is resampled.

One crop in ten starts its utterance. A stream begins with a history of zeros, so this is where the
model learns what such a history means.

A batch also brings damage to the history that the model is fed, while the targets stay clean: when
it runs freely it hears its own errors, and it must have learned to come back from them to what the
mel says. Half of the crops carry noise all along, and in each some spans are dropped for noise: a
model that has never been without the pitch pulses of the past cannot begin them.

Where an acoustic model's mels are given, a crop begins where one of their frames does.
Source: Valin & Skoglund 2019, "LPCNet", arXiv:1810.11846, section 3.4, for noise; spans are ours.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from wavewn.audio.io import read_segment
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.audio.mel_files import load_mel
from wavewn.data.manifest import Utterance
from wavewn.errors import DataError

START_SHARE = 0.1  # of the crops
SPAN_SAMPLES = (100, 800)  # one to ten pitch periods
SPAN_GAIN = 5.0  # how much louder than the noise a span may be
RESAMPLER_REACH = 512  # samples at the lower rate on which a resampled one may depend


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Attributes:
        audio: [batch, frames * hop_length].
        mel: [batch, bands, lead + frames + look_ahead].
        speaker: int64 [batch].
        starts: bool [batch], whether a row starts its utterance.
        keep: [batch, frames * hop_length], what the history is multiplied by: 1, or 0 in a span.
        noise: [batch, frames * hop_length], what is then added.
        paths: File of each row, for error messages.
    """

    audio: Tensor
    mel: Tensor
    speaker: Tensor
    starts: Tensor
    keep: Tensor
    noise: Tensor
    paths: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Copy to a device; Lightning calls this. Out of pinned memory nobody waits for it."""
        return self._each(lambda x: x.to(device, non_blocking=non_blocking or x.is_pinned()))

    def pin_memory(self) -> "Batch":
        """Copy into memory that a GPU reads by itself; a DataLoader calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = self.audio, self.mel, self.speaker, self.starts, self.keep, self.noise
        audio, mel, speaker, starts, keep, noise = map(function, tensors)
        return Batch(audio, mel, speaker, starts, keep, noise, self.paths)


@dataclass(frozen=True)
class PredictedMel:
    """A file with the mel that an acoustic model predicted; `predicted.py` pairs and checks them.

    Attributes:
        path: Of the mel.
        frames: Those that have audio.
    """

    path: Path
    frames: int

    def read(self, first: int, frames: int, spec: MelSpec) -> Tensor:
        """Read [bands, frames] from frame `first` on; outside the file is silence."""
        whole = load_mel(self.path)
        wanted = torch.full((whole.shape[0], frames), spec.log_floor)
        begin, end = max(first, 0), min(first + frames, whole.shape[1])
        if begin < end:
            wanted[:, begin - first : end - first] = whole[:, begin:end]
        return wanted


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


def draw_damage(
    generator: np.random.Generator, samples: int, noise: float, dropout: float
) -> tuple[Tensor, Tensor]:
    """Draw (keep, noise), both [samples], for the history of one crop.

    Args:
        generator: Of the batch.
        samples: Length of the crop.
        noise: Largest deviation; every other crop has none.
        dropout: Mean share of the crop that lies in spans without history. In each the noise has
            a deviation of its own, up to `SPAN_GAIN * noise`.
    """
    deviation = max(0.0, generator.uniform(-noise, noise))
    added = deviation * generator.standard_normal(samples, dtype=np.float32)
    keep = np.ones(samples, dtype=np.float32)
    for _ in range(generator.poisson(dropout * samples / np.mean(SPAN_SAMPLES))):
        length = min(int(generator.integers(*SPAN_SAMPLES)), samples)
        begin = int(generator.integers(0, samples - length + 1))
        span = slice(begin, begin + length)
        keep[span] = 0
        louder = generator.uniform(0, SPAN_GAIN * noise)
        added[span] = louder * generator.standard_normal(length, dtype=np.float32)
    return torch.from_numpy(keep), torch.from_numpy(added.astype(np.float32))


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
        noise: Largest deviation of the noise for the history; see `draw_damage`.
        dropout: Share of the history that is dropped, likewise.
        predicted: Mels by the path of their recording, instead of the recordings' own.
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
        noise: float = 0.0,
        dropout: float = 0.0,
        predicted: Mapping[Path, PredictedMel] | None = None,
        start: int = 0,
        stride: int = 1,
    ) -> None:
        length = frames * spec.hop_length
        self.spec, self.predicted = spec, predicted or {}
        self.utterances = [u for u in utterances if self._samples(u) >= length]
        if not self.utterances:
            raise DataError(
                f"none of {len(utterances)} utterances is as long as a crop of {frames} frames "
                f"({length / spec.sample_rate:.2f} s); shorten data.frames"
            )
        self.speakers = {name: index for index, name in enumerate(speakers)}
        self.frames, self.batch_size = frames, batch_size
        self.lead, self.look_ahead = lead, look_ahead
        self.seed, self.start, self.stride = seed, start, stride
        self.noise, self.dropout = noise, dropout
        weights = np.array([u.duration_s for u in self.utterances], dtype=np.float64)
        self.cumulative = np.cumsum(weights / weights.sum())

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, whatever came before."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        rows = [self._crop(generator) for _ in range(self.batch_size)]
        audio, mel, starts, chosen = zip(*rows, strict=True)
        speaker = torch.tensor([self.speakers.get(u.speaker, 0) for u in chosen])
        samples = len(audio[0])
        damage = [draw_damage(generator, samples, self.noise, self.dropout) for _ in rows]
        keep, noise = zip(*damage, strict=True)
        return Batch(
            torch.stack(audio),
            torch.stack(mel),
            speaker,
            torch.tensor(starts),
            torch.stack(keep),
            torch.stack(noise),
            [str(u.path) for u in chosen],
        )

    def _samples(self, utterance: Utterance) -> int:
        samples = samples_at(utterance, self.spec.sample_rate)
        predicted = self.predicted.get(utterance.path)
        return min(samples, predicted.frames * self.spec.hop_length) if predicted else samples

    def _crop(self, generator: np.random.Generator) -> tuple[Tensor, Tensor, bool, Utterance]:
        hop, rate = self.spec.hop_length, self.spec.sample_rate
        index = int(np.searchsorted(self.cumulative, generator.random(), side="right"))
        utterance = self.utterances[min(index, len(self.utterances) - 1)]
        length = self.frames * hop
        predicted = self.predicted.get(utterance.path)
        grid = 1 if predicted is None else hop
        begin = grid * int(generator.integers(0, (self._samples(utterance) - length) // grid + 1))
        if generator.random() < START_SHARE:
            begin = 0
        if predicted is not None:
            wanted = self.lead + self.frames + self.look_ahead
            mel = predicted.read(begin // hop - self.lead, wanted, self.spec)
            return read_at(utterance, rate, begin, length), mel, begin == 0, utterance
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
