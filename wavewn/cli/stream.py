"""`wavewn stream`: mel frames in, audio out as it comes.

Frames come from a mel file, from a recording by way of its mel, or through a pipe; audio goes into
a pipe, or into a wav file that grows and can be played at any time. The samples are those of
`wavewn synth` with the same seed, however the frames are cut.
"""

import argparse
import math
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from wavewn.cli.engine import add_engine_options, load_vocoder
from wavewn.cli.synth import Job, late_samples, make_folder, make_jobs, read_input, speaker_of
from wavewn.errors import AudioError, ConfigError, MelError

if TYPE_CHECKING:
    from torch import Tensor

    from wavewn.engine.stream import Stream

PIPE = "-"
FORMATS = {"s16": (1, 2), "f32": (3, 4)}  # number in a wav's header, bytes of a sample
MOST_BYTES = 2**32 - 1 - 36  # that a wav's header can tell; players go on to the end


@dataclass
class Tally:
    """What a stream came to.

    Attributes:
        samples: Written.
        busy_s: Time in the engine, without waiting for frames.
        first_s: From the first frame to the first audio.
    """

    samples: int = 0
    busy_s: float = 0.0
    first_s: float = math.nan


def add_stream(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn stream`."""
    verb = verbs.add_parser(
        "stream",
        help="turn mel frames into audio as they come",
        description="Read mel frames and write their audio as soon as it is determined. In a pipe "
        "frames are float32, little-endian, the bands of a frame side by side; samples are "
        "--format, little-endian, one channel, at the model's rate.",
    )
    verb.add_argument("model", help="bundle, training checkpoint, or a shipped name")
    verb.add_argument(
        "input", nargs="?", default=PIPE, help="mel file or recording; - reads stdin (-)"
    )
    verb.add_argument("-o", "--out", default=PIPE, help="wav file; - writes stdout (-)")
    verb.add_argument(
        "--format", default="s16", choices=FORMATS, help="16-bit samples or float32 (s16)"
    )
    verb.add_argument("--frames", type=int, default=1, help="frames pushed at a time (1)")
    verb.add_argument("--seed", type=int, default=0, help="of the sampling (0)")
    verb.add_argument("--temperature", type=float, default=1.0, help="of the sampling (1)")
    verb.add_argument("--speaker", help="name or number of the voice")
    verb.add_argument(
        "--mel-from", metavar="PRESET", help="convert a mel file of this definition (tacotron2)"
    )
    verb.add_argument("--force", action="store_true", help="replace a file that is there")
    add_engine_options(verb)
    verb.set_defaults(run=run_stream)


def run_stream(args: argparse.Namespace) -> None:
    """Stream, and say on stderr how late and how fast that was."""
    import wavewn

    if args.frames < 1:
        raise ConfigError(f"--frames must be at least 1, got {args.frames}")
    if args.mel_from is not None:
        if args.input == PIPE:
            raise ConfigError("--mel-from converts files; frames in a pipe must be the model's")
        wavewn.MelSpec.preset(args.mel_from)
    job = check_ends(args)
    vocoder = load_vocoder(args.model, args)
    stream = vocoder.stream(
        speaker=speaker_of(args.speaker, vocoder), temperature=args.temperature, seed=args.seed
    )
    late = 0
    if args.input == PIPE:
        chunks = raw_chunks(sys.stdin.buffer, vocoder.mel_spec.n_mels, args.frames)
    else:
        mel = read_input(job.source, vocoder, args.mel_from)
        chunks = iter(mel.unsqueeze(0).split(args.frames, dim=2))
        late = late_samples(job, vocoder.mel_spec, args.mel_from)
    tally = Tally()
    opened = stdout() if args.out == PIPE else growing(job.target, vocoder.sample_rate, args.format)
    try:
        with opened as write:
            speak(chunks, stream, args.format, write, tally)
    finally:
        if tally.samples:
            audio_s = tally.samples / vocoder.sample_rate
            latency = stream.latency_samples
            print(
                f"{audio_s:.2f} s of audio at {vocoder.sample_rate} Hz, latency {latency} samples "
                f"({1000 * latency / vocoder.sample_rate:.1f} ms), first audio after "
                f"{1000 * tally.first_s:.0f} ms, rtf {tally.busy_s / audio_s:.3f}, engine "
                f"{vocoder.engine.name}, {vocoder.engine.precision}"
                + (f"; {late} samples behind its recording, as frame grids differ" if late else ""),
                file=sys.stderr,
            )


def check_ends(args: argparse.Namespace) -> Job:
    """Return the files that are read and written, made sure of before any time is spent.

    Raises:
        ConfigError: A pipe is wanted and there is a terminal, or `--out` is no wav file.
        DataError: The input is missing, or the output is there already.
    """
    if args.input == PIPE and sys.stdin.isatty():
        raise ConfigError("there are no frames on stdin; pipe them in, or name a mel file")
    if args.out == PIPE and sys.stdout.isatty():
        raise ConfigError("stdout is a terminal; pipe it on, or name a wav file with -o")
    source, target = Path(args.input), Path(args.out)
    if args.out != PIPE and target.suffix.lower() != ".wav":
        raise ConfigError(f"--out must be a .wav file, or - for stdout, got {args.out}")
    if args.input == PIPE:
        if args.out != PIPE and target.exists() and not args.force:
            raise ConfigError(f"{target} exists already; choose another --out, or pass --force")
        return Job(source, target)
    if source.is_dir():
        raise ConfigError(f"{source} is a folder; name one file, or take `wavewn synth`")
    [job] = make_jobs([source], target.with_suffix(".wav"), args.force or args.out == PIPE)
    return job


def raw_chunks(file: BinaryIO, bands: int, frames: int) -> "Iterator[Tensor]":
    """Read raw frames as [1, bands, at most `frames`].

    Raises:
        MelError: The last frame is not whole.
    """
    import numpy as np
    import torch

    size, seen = 4 * bands, 0
    while block := file.read(size * frames):
        whole, rest = divmod(len(block), size)
        if whole:
            values = np.frombuffer(block[: whole * size], dtype="<f4").astype(np.float32)
            yield torch.from_numpy(values.reshape(1, whole, bands)).transpose(1, 2)
        seen += whole
        if rest:
            raise MelError(
                f"stdin ended within a frame: {rest} bytes came after {seen} whole frames of "
                f"{size} ({bands} bands of float32); are the frames those of this model?"
            )


def speak(
    chunks: "Iterable[Tensor]",
    stream: "Stream",
    form: str,
    write: Callable[[bytes], None],
    tally: Tally,
) -> None:
    """Push every chunk and write its audio; `tally` is kept up to date."""
    began = math.nan

    def give(step: "Callable[[], Tensor]") -> None:
        start = time.perf_counter()
        audio = step()
        tally.busy_s += time.perf_counter() - start
        if audio.shape[1]:
            write(encode(audio[0], form))
            tally.samples += audio.shape[1]
            if math.isnan(tally.first_s):
                tally.first_s = time.perf_counter() - began

    for chunk in chunks:
        if math.isnan(began):
            began = time.perf_counter()
        give(lambda chunk=chunk: stream.push(chunk))  # type: ignore[misc]
    if math.isnan(began):
        raise MelError("no frame came; give at least one")
    give(stream.finish)


def encode(audio: "Tensor", form: str) -> bytes:
    """Turn samples into bytes; 16 bits are rounded as `write_audio` does."""
    if form == "f32":
        return audio.cpu().numpy().astype("<f4").tobytes()
    whole = (audio.cpu() * 32768).round().clamp(-32768, 32767).short()
    return whole.numpy().astype("<i2").tobytes()


@contextmanager
def stdout() -> Iterator[Callable[[bytes], None]]:
    """Write into the pipe behind us, at once."""

    def write(block: bytes) -> None:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()

    yield write


@contextmanager
def growing(target: Path, sample_rate: int, form: str) -> Iterator[Callable[[bytes], None]]:
    """Write a wav file that is called `.NAME.partial` until it is whole.

    After Ctrl-C it is whole with what has been written; after an error it is removed.

    Raises:
        AudioError: The disk does not take it.
        WavewnError: Another process is writing there.
    """
    from wavewn.lock import lock

    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with lock(target.with_name(f".{target.name}.lock")):
            try:
                with partial.open("wb") as file:
                    try:
                        yield Wav(file, sample_rate, form).write
                    except KeyboardInterrupt:
                        os.replace(partial, target)
                        raise
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise AudioError(f"{target}: cannot be written ({error})") from None


class Wav:
    """A wav file whose header is true after each write, so that it can be played at any time.

    Source: Microsoft & IBM 1991, "Multimedia Programming Interface and Data Specifications 1.0".
    """

    def __init__(self, file: BinaryIO, sample_rate: int, form: str) -> None:
        self._file, self._sample_rate, self._length = file, sample_rate, 0
        self._number, self._width = FORMATS[form]
        self.write(b"")

    def write(self, block: bytes) -> None:
        """Append samples."""
        self._length += len(block)
        rate, width = self._sample_rate, self._width
        length = min(self._length, MOST_BYTES)
        form = struct.pack("<HHIIHH", self._number, 1, rate, rate * width, width, 8 * width)
        riff = struct.pack("<4sI8sI", b"RIFF", 36 + length, b"WAVEfmt ", len(form))
        head = riff + form + struct.pack("<4sI", b"data", length)
        self._file.seek(0)
        self._file.write(head)
        self._file.seek(0, os.SEEK_END)
        self._file.write(block)
        self._file.flush()
