"""Vocoder: what users hold. A model, its mel definition, and an engine that runs it."""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavewn.audio.mel import MelSpec, check_mel, mel_spectrogram, noise_levels, prepare_audio
from wavewn.bundle import Bundle
from wavewn.bundle.levelling import levelled
from wavewn.bundle.precisions import calibration_of
from wavewn.engine.call import Engine
from wavewn.engine.choice import ENGINES, PRECISIONS, make_engine
from wavewn.engine.lengths import each_length, until_each_ends
from wavewn.engine.stream import Stream
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError, MelError
from wavewn.models.smoothed_wavenet import SmoothedWaveNet
from wavewn.models.spectral import Spectral
from wavewn.models.wavenet import WaveNet
from wavewn.source import open_source

logger = logging.getLogger(__name__)

__all__ = ["ENGINES", "PRECISIONS", "Speaker", "Vocoder", "load"]

Speaker = str | int | Sequence[str | int]


class Vocoder:
    """Turns mel spectrograms into audio.

    Args:
        bundle: The model and its mel definition.
        engine: "auto" or one of `ENGINES`: a WaveNet runs in "native" on the CPU and in "cuda" on a
            GPU; where those cannot run, in "reference" and in "graph". Others run in "native" on
            the CPU, elsewhere in "onepass".
        precision: "auto" or one of `PRECISIONS`: the fastest that the bundle calls usable.
        device: Such as "cpu" or "cuda:0"; None is the CPU.
        threads: That the engine may use.
        levellings: How often the audio is levelled to its mel (nn/levelling.py), 0 to 16; None is
            what the bundle says. Of a spectral model, which levels by itself, it is that number.

    Attributes:
        model: The plain network, for those who ask what kind it is; the engine has a copy.
        mel_spec: The mels that it reads.
        speakers: Names in the order of their numbers; empty where there is one voice.
        levellings: How often its audio is levelled.
        config: The content of the bundle's config.json.
        engine: Runs the model; `engine.name` tells which it is.

    Raises:
        ConfigError: Audio cannot be levelled so often, or not to such mels.
        EngineError: No such engine, precision or device is here, or they do not go together.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = "auto",
        precision: str = "auto",
        device: str | torch.device | None = None,
        threads: int = 1,
        levellings: int | None = None,
    ) -> None:
        self.model, levels = levelled(bundle, levellings)
        self.levellings = levels.count if levels else 0
        if isinstance(self.model, Spectral):
            self.levellings = self.model.settings.levellings
        self.config = bundle.config
        self.mel_spec: MelSpec = bundle.mel
        self.speakers = list(bundle.speakers)
        self.engine: Engine = make_engine(
            pack_wavenet(self.model) if isinstance(self.model, WaveNet) else self.model,
            engine,
            precision,
            device=usable_device(device),
            threads=threads,
            verdict=bundle.config.get("verdict"),
            calibration=calibration_of(bundle.config),
            levels=levels,
        )
        chosen = self.engine.name, self.engine.precision, self.engine.device
        logger.info("engine %s, %s, on %s", *chosen)

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.mel_spec.sample_rate

    def mel(self, audio: Tensor | np.ndarray) -> Tensor:
        """Take the mel that this model reads of [samples] or [batch, samples] of audio.

        Returns:
            [batch, bands, frames]; batch is 1 for [samples].

        Raises:
            ShapeError: The audio has another number of axes, is empty, or holds integers.
        """
        return mel_spectrogram(prepare_audio(torch.as_tensor(audio), self.mel_spec), self.mel_spec)

    def synthesize(
        self,
        mel: Tensor | np.ndarray,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        speaker: Speaker | None = None,
        temperature: float = 1.0,
        seed: int | Sequence[int] = 0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Turn mels into audio.

        A row's audio does not depend on the other rows: it is what the row gives alone.

        Args:
            mel: [bands, frames] or [batch, bands, frames].
            lengths: Frames of each row; what lies behind is not heard.
            speaker: Name or number, one for all rows or one for each; only where the model knows
                speakers.
            temperature: Of the sampling; 0 takes the likeliest. A model that no noise drives has
                none: it must be 1.
            seed: One for all rows or one for each.
            progress: Told the number of frames done since the last call; their sum is frames.

        Returns:
            [batch, frames * hop_length] float32, zero after a row's lengths * hop_length.

        Raises:
            EngineError: The model has no such speaker, or NaN came up.
            MelError: The mel cannot be what this model reads, or `lengths` do not go with it.
            StateError: `seed` is not one number or one for each row.
        """
        rows = torch.as_tensor(mel).detach()
        rows = rows.unsqueeze(0) if rows.dim() == 2 else rows
        rows = rows.float() if rows.is_floating_point() else rows
        ends = _lengths(rows, lengths)
        if ends is not None:
            outside = torch.arange(rows.shape[2]) >= ends[:, None]
            silence = self.mel_spec.log_floor
            rows = rows.masked_fill(outside[:, None].to(rows.device), silence)
        check_mel(rows, self.mel_spec)
        stream = self.stream(len(rows), speaker=speaker, temperature=temperature, seed=seed)
        if ends is not None and not self.engine.silent_end:
            together = isinstance(self.model, WaveNet | SmoothedWaveNet)
            run = until_each_ends if together else each_length
            return run(stream, rows, ends, progress or _tell_nobody)
        audio = torch.cat([stream.push(rows, progress), stream.finish(progress)], dim=1)
        if ends is not None:
            outside = outside.repeat_interleave(self.mel_spec.hop_length, dim=1)
            audio.masked_fill_(outside.to(audio.device), 0.0)
        return audio

    def stream(
        self,
        batch: int = 1,
        *,
        speaker: Speaker | None = None,
        temperature: float = 1.0,
        seed: int | Sequence[int] = 0,
    ) -> Stream:
        """Begin `batch` streams that are pushed together.

        Other arguments and errors are those of `synthesize`. What is pushed is checked in the
        same way, push by push.
        """
        noise_levels(self.mel_spec)  # what the checks go by, kept; the first push would wait for it
        return Stream(
            self.engine,
            batch,
            speaker=self._speakers(speaker, batch),
            temperature=temperature,
            seed=seed,
            check=functools.partial(check_mel, spec=self.mel_spec),
        )

    def _speakers(self, speaker: Speaker | None, batch: int) -> Tensor | None:
        """Turn names or numbers into int64 [batch]."""
        known = ", ".join(self.speakers)
        if not self.speakers:
            if speaker is not None:
                raise EngineError(f"this model has one voice and takes no speaker, got {speaker!r}")
            return None
        if speaker is None:
            raise EngineError(f"this model knows several speakers, choose one of: {known}")
        each = [speaker] * batch if isinstance(speaker, (str, int)) else list(speaker)
        if len(each) != batch:
            raise EngineError(f"expected one speaker or {batch} of them, got {len(each)}")
        index = []
        for one in each:
            number = self.speakers.index(one) if one in self.speakers else one
            whole = isinstance(number, int) and not isinstance(number, bool)
            if not whole or not 0 <= int(number) < len(self.speakers):
                raise EngineError(f"this model has no speaker {one!r}; choose one of: {known}")
            index.append(int(number))
        return torch.tensor(index, device=self.engine.device)


def load(
    path_or_name: str | os.PathLike[str],
    engine: str = "auto",
    precision: str = "auto",
    device: str | torch.device | None = None,
    threads: int = 1,
    levellings: int | None = None,
) -> Vocoder:
    """Load a vocoder.

    Args:
        path_or_name: Folder of a bundle, a checkpoint of `wavewn train` or of a program that
            `wavewn convert` knows (file or folder), or the name of a shipped bundle. What exists
            as a path is a path.
        engine: As in `Vocoder`.
        precision: As in `Vocoder`.
        device: As in `Vocoder`.
        threads: As in `Vocoder`.
        levellings: As in `Vocoder`.

    Raises:
        BundleError: Nothing is there, or it is broken or of another kind.
        ConfigError: As in `Vocoder`.
        EngineError: As in `Vocoder`.
    """
    bundle = open_source(Path(path_or_name))
    return Vocoder(bundle, engine, precision, device, threads, levellings)


def _tell_nobody(frames: int) -> None:
    """Stand in for a `progress` that nobody asked for."""


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device, with its number; None is the CPU.

    Raises:
        EngineError: It is not here, or holds no values.
    """
    try:
        probe = torch.zeros(1, device="cpu" if device is None else device)
        probe.item()  # a device that holds no values fails here
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise EngineError(f"device {device!r} cannot be used here: {first}") from None


def _lengths(rows: Tensor, lengths: Sequence[int] | Tensor | None) -> Tensor | None:
    """Check the frames of each row and return them as int64 [batch]."""
    if lengths is None or rows.dim() != 3 or not rows.is_floating_point():  # see check_mel
        return None
    ends = torch.as_tensor(lengths).cpu()
    if ends.dtype.is_floating_point or ends.shape != rows.shape[:1]:
        raise MelError(f"lengths must be {rows.shape[0]} whole numbers, got {ends.tolist()}")
    if bool(((ends < 0) | (ends > rows.shape[2])).any()):
        raise MelError(f"lengths must lie in 0 to {rows.shape[2]} frames, got {ends.tolist()}")
    return ends
