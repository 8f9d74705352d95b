"""`wavewn synth`: mel spectrograms, or recordings by way of their mels, become audio.

Every file is a batch of its own with the seed of `--seed`, so it sounds the same whatever else
is on the command line, and the same as `Vocoder.synthesize` with that seed.
"""

import argparse
import itertools
import logging
import math
import os
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wavewn.errors import AudioError, DataError, MelError, WavewnError

if TYPE_CHECKING:
    from torch import Tensor
    from tqdm import tqdm

    from wavewn.vocoder import Vocoder

log = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64")
MEL_SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5")
STREAM_FRAMES = 8  # pushed at a time


@dataclass(frozen=True)
class Job:
    """One file to read and the wav to write."""

    source: Path
    target: Path


def add_synth(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn synth`."""
    verb = verbs.add_parser(
        "synth",
        help="turn mel spectrograms or recordings into audio",
        description="Synthesize mel files (npy, npz, pt, h5: [bands, frames]) and recordings "
        "(their mels are taken first: copy-synthesis).",
    )
    verb.add_argument("model", help="bundle, training checkpoint, or a shipped name")
    verb.add_argument("input", nargs="+", type=Path, help="mel files, recordings, folders of them")
    verb.add_argument(
        "-o", "--out", type=Path, required=True, help="folder, or a .wav file for one input"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the sampling, for every file (0)")
    verb.add_argument("--temperature", type=float, default=1.0, help="of the sampling (1)")
    verb.add_argument("--speaker", help="name or number of the voice")
    verb.add_argument(
        "--stream",
        action="store_true",
        help="push a few frames at a time and write the audio as it comes",
    )
    verb.add_argument("--force", action="store_true", help="replace files that are there")
    verb.add_argument("--engine", default="auto", help="auto, reference, graph, native or cuda")
    verb.add_argument("--precision", default="auto", help="of the engine (auto)")
    verb.add_argument("--device", help="such as cpu or cuda:0")
    verb.set_defaults(run=run_synth)


def run_synth(args: argparse.Namespace) -> None:
    """Synthesize every input, a line each, and say how fast that went."""
    from tqdm import tqdm

    import wavewn

    jobs = make_jobs(args.input, args.out, args.force)
    vocoder = wavewn.load(
        args.model, engine=args.engine, precision=args.precision, device=args.device
    )
    run = stream_file if args.stream else synthesize_file
    broken: list[WavewnError] = []
    audio_s = took_s = 0.0
    for job in jobs:
        try:
            mel = read_input(job.source, vocoder)
        except (AudioError, MelError) as error:
            if len(jobs) == 1:
                raise
            log.warning("left out: %s", error)
            broken.append(error)
            continue
        make_folder(job.target.parent)
        samples = mel.shape[-1] * vocoder.mel_spec.hop_length
        began = time.perf_counter()
        with tqdm(
            total=samples, desc=job.source.name, unit="sample", unit_scale=True, leave=False
        ) as bar:
            line = run(job, mel, vocoder, args, bar)
        spent_s, length_s = time.perf_counter() - began, samples / vocoder.sample_rate
        audio_s, took_s = audio_s + length_s, took_s + spent_s
        print(f"{job.target}: {length_s:.2f} s of audio in {spent_s:.2f} s{line}", flush=True)
    done = len(jobs) - len(broken)
    if done:
        print(
            f"{done} file(s), {audio_s:.2f} s of audio in {took_s:.2f} s "
            f"({audio_s / max(took_s, 1e-9):.2f}x real time, engine {vocoder.engine.name})"
        )
    if broken:
        raise WavewnError(f"{len(broken)} of {len(jobs)} inputs were left out; first: {broken[0]}")


def make_jobs(inputs: list[Path], out: Path, force: bool) -> list[Job]:
    """Pair every input file with the wav to write, and check that nothing comes to harm.

    Folders give all mel files and recordings in and below them; their tree is kept.

    Raises:
        DataError: An input is missing, two have one target, or a target is there already.
    """
    sources: list[tuple[Path, Path]] = []  # and the target's place below `out`
    for given in inputs:
        if given.is_dir():
            found = sorted(
                path
                for path in given.rglob("*")
                if path.suffix.lower() in AUDIO_SUFFIXES + MEL_SUFFIXES and path.is_file()
            )
            if not found:
                raise DataError(f"{given}: holds neither mel files nor recordings")
            sources += [(path, path.relative_to(given)) for path in found]
        elif given.is_file():
            sources.append((given, Path(given.name)))
        else:
            raise DataError(f"{given}: no such file or folder; check the path")
    if out.suffix.lower() == ".wav" and not out.is_dir():
        if len(sources) > 1:
            raise DataError(f"{out} is one file, there are {len(sources)} inputs; name a folder")
        jobs = [Job(sources[0][0], out)]
    else:
        jobs = [Job(source, out / place.with_suffix(".wav")) for source, place in sources]
    writers: dict[Path, Path] = {}
    read = {job.source.resolve() for job in jobs}
    for job in jobs:
        other = writers.setdefault(job.target, job.source)
        if other != job.source:
            raise DataError(f"{other} and {job.source} would both become {job.target}; rename one")
        if job.target.resolve() in read:
            raise DataError(f"{job.target} is an input and is not replaced; choose another --out")
        if job.target.exists() and not force:
            raise DataError(f"{job.target} exists already; choose another --out, or pass --force")
    return jobs


def read_input(path: Path, vocoder: "Vocoder") -> "Tensor":
    """Read a mel file, or take the mel of a recording: [bands, frames].

    Raises:
        MelError: The file is not a mel that the vocoder can read.
        AudioError: The file is no recording, or shorter than a frame.
    """
    from wavewn.audio.io import read_audio
    from wavewn.audio.mel_files import load_mel

    if path.suffix.lower() in MEL_SUFFIXES:
        return load_mel(path, vocoder.mel_spec)
    audio = read_audio(path, vocoder.sample_rate)
    if vocoder.mel_spec.frames(audio.shape[0]) == 0:
        raise AudioError(
            f"{path}: {audio.shape[0]} samples at {vocoder.sample_rate} Hz are shorter than a mel "
            f"frame ({vocoder.mel_spec.hop_length}); give a longer recording"
        )
    mel = vocoder.mel(audio)
    return mel if mel.dim() == 2 else mel[0]


def synthesize_file(
    job: Job, mel: "Tensor", vocoder: "Vocoder", args: argparse.Namespace, bar: "tqdm[None]"
) -> str:
    """Synthesize a mel [bands, frames] at once and write it; return nothing more to say."""
    from wavewn.audio.io import write_audio

    audio = vocoder.synthesize(
        mel,
        speaker=speaker_of(args.speaker),
        temperature=args.temperature,
        seed=args.seed,
        progress=lambda done, total: bar.update(done - bar.n),
    )
    write_audio(job.target, audio[0], vocoder.sample_rate)
    return ""


def stream_file(
    job: Job, mel: "Tensor", vocoder: "Vocoder", args: argparse.Namespace, bar: "tqdm[None]"
) -> str:
    """Stream a mel [bands, frames] into a file that grows; return how late the audio was.

    Until the end the file is called `.NAME.partial`; it can be played at any time.
    """
    stream = vocoder.stream(
        speaker=speaker_of(args.speaker), temperature=args.temperature, seed=args.seed
    )
    partial = job.target.with_name(f".{job.target.name}.partial")
    began, first_s = time.perf_counter(), math.nan
    try:
        with wave.open(str(partial), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(vocoder.sample_rate)
            chunks = mel.unsqueeze(0).split(STREAM_FRAMES, dim=-1)
            for chunk in itertools.chain((stream.push(one) for one in chunks), [None]):
                audio = stream.finish() if chunk is None else chunk
                if audio.shape[-1] and math.isnan(first_s):
                    first_s = time.perf_counter() - began
                samples = (audio[0].cpu() * 32768).round().clamp(-32768, 32767).short()
                file.writeframes(samples.numpy().astype("<i2").tobytes())
                bar.update(audio.shape[-1])
        os.replace(partial, job.target)
    except OSError as error:
        raise AudioError(f"{job.target}: cannot be written ({error})") from None
    finally:
        partial.unlink(missing_ok=True)
    latency = stream.latency_samples
    return (
        f", latency {latency} samples ({1000 * latency / vocoder.sample_rate:.0f} ms), first audio "
        f"after {1000 * first_s:.0f} ms"
    )


def speaker_of(given: str | None) -> int | str | None:
    """Read `--speaker`: a number counts the model's voices from 0, anything else is a name."""
    return int(given) if given is not None and given.isdecimal() else given


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DataError: The system does not let us.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error}; choose another --out") from None
