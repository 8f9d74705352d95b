"""`wavewn synth`: mel spectrograms, or recordings by way of their mels, become audio.

Every file has the seed of `--seed`, and a row's audio does not depend on the other rows of its
batch: a file sounds the same whatever else is on the command line, the same as from
`Vocoder.synthesize` with that seed and from `wavewn stream`. The lag of `late_samples` is taken out
of the files; a stream can only say it.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wavewn.cli.engine import add_engine_options, load_vocoder
from wavewn.errors import AudioError, ConfigError, DataError, MelError, WavewnError

if TYPE_CHECKING:
    from torch import Tensor

    from wavewn.audio.mel_spec import MelSpec
    from wavewn.vocoder import Vocoder

log = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64")
MEL_SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5")


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
        "--mel-from", metavar="PRESET", help="convert mel files of this definition (tacotron2)"
    )
    verb.add_argument("--batch", type=int, default=8, help="files synthesized at once (8)")
    verb.add_argument("--force", action="store_true", help="replace files that are there")
    add_engine_options(verb)
    verb.set_defaults(run=run_synth)


def run_synth(args: argparse.Namespace) -> None:
    """Synthesize every input, a line each, and say how fast that went."""
    import wavewn

    if args.batch < 1:
        raise ConfigError(f"--batch must be at least 1, got {args.batch}")
    if args.mel_from is not None:
        wavewn.MelSpec.preset(args.mel_from)  # its name is checked though no mel file may come
    jobs = make_jobs(args.input, args.out, args.force)
    vocoder = load_vocoder(args.model, args)
    broken: list[WavewnError] = []
    samples, took_s = 0, 0.0
    for first in range(0, len(jobs), args.batch):
        chosen = jobs[first : first + args.batch]
        batch, problems = read_inputs(chosen, vocoder, args.mel_from)
        if problems and len(jobs) == 1:
            raise problems[0]
        broken += problems
        for problem in problems:
            log.warning("left out: %s", problem)
        if not batch:
            continue
        began = time.perf_counter()
        for job, length in synthesize_files(batch, vocoder, args):
            samples += length
            print(f"{job.target}: {length / vocoder.sample_rate:.2f} s", flush=True)
        took_s += time.perf_counter() - began
    done = len(jobs) - len(broken)
    if done:
        audio_s = samples / vocoder.sample_rate
        print(
            f"{done} file(s), {audio_s:.2f} s of audio in {took_s:.2f} s "
            f"({audio_s / max(took_s, 1e-9):.2f}x real time, engine {vocoder.engine.name}, "
            f"{vocoder.engine.precision})"
        )
    if broken:
        raise WavewnError(f"{len(broken)} of {len(jobs)} inputs were left out; first: {broken[0]}")


def make_jobs(inputs: list[Path], out: Path, force: bool) -> list[Job]:
    """Pair every input file with the wav to write, and check that nothing comes to harm.

    Folders give all mel files and recordings in and below them; their tree is kept.

    Raises:
        DataError: An input is missing, two have one target, a target is there already, or `out`
            names another kind of audio file than wav.
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
    elif out.suffix.lower() in AUDIO_SUFFIXES and not out.is_dir():
        raise DataError(f"{out}: only wav files are written; name a .wav file or a folder")
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


def read_inputs(
    jobs: list[Job], vocoder: "Vocoder", mel_from: str | None
) -> "tuple[list[tuple[Job, Tensor]], list[WavewnError]]":
    """Read the mels of some jobs; return them, and what is wrong with the others."""
    good: list[tuple[Job, Tensor]] = []
    bad: list[WavewnError] = []
    for job in jobs:
        try:
            good.append((job, read_input(job.source, vocoder, mel_from)))
        except (AudioError, MelError) as error:
            bad.append(error)
    return good, bad


def read_input(path: Path, vocoder: "Vocoder", mel_from: str | None = None) -> "Tensor":
    """Read a mel file (of the preset `mel_from`), or take a recording's mel: [bands, frames].

    Raises:
        MelError: The file is not a mel that the vocoder can read.
        AudioError: The file is no recording, or shorter than a frame.
    """
    from wavewn.audio.io import read_audio
    from wavewn.audio.mel_intake import read_mel

    if path.suffix.lower() in MEL_SUFFIXES:
        return read_mel(path, vocoder.mel_spec, mel_from)
    audio = read_audio(path, vocoder.sample_rate)
    if vocoder.mel_spec.frames(audio.shape[0]) == 0:
        raise AudioError(
            f"{path}: {audio.shape[0]} samples at {vocoder.sample_rate} Hz are shorter than a mel "
            f"frame ({vocoder.mel_spec.hop_length}); give a longer recording"
        )
    return vocoder.mel(audio)[0]


def late_samples(job: Job, spec: "MelSpec", mel_from: str | None) -> int:
    """How far audio lags behind its recording, because its mel came on another frame grid."""
    from wavewn.audio.mel_convert import grid_shift
    from wavewn.audio.mel_presets import preset

    if mel_from is None or job.source.suffix.lower() not in MEL_SUFFIXES:
        return 0
    return grid_shift(preset(mel_from), spec)


def synthesize_files(
    batch: "list[tuple[Job, Tensor]]", vocoder: "Vocoder", args: argparse.Namespace
) -> list[tuple[Job, int]]:
    """Synthesize mels [bands, frames] at once and write them; return the samples of each."""
    import torch
    from tqdm import tqdm

    from wavewn.audio.io import write_audio

    spec = vocoder.mel_spec
    lengths = [mel.shape[1] for _, mel in batch]
    mels = torch.full((len(batch), spec.n_mels, max(lengths)), spec.log_floor)
    for row, (_, mel), frames in zip(mels, batch, lengths, strict=True):
        row[:, :frames] = mel
    with tqdm(total=max(lengths), desc="synth", unit="frame", leave=False) as bar:
        audio = vocoder.synthesize(
            mels,
            lengths=lengths,
            speaker=speaker_of(args.speaker, vocoder),
            temperature=args.temperature,
            seed=args.seed,
            progress=bar.update,
        )
    done = []
    for row, (job, _), frames in zip(audio, batch, lengths, strict=True):
        samples = frames * spec.hop_length
        late = late_samples(job, spec, args.mel_from)
        make_folder(job.target.parent)
        moved = torch.nn.functional.pad(row[:samples], (-late, late))
        write_audio(job.target, moved, vocoder.sample_rate)
        done.append((job, samples))
    return done


def speaker_of(given: str | None, vocoder: "Vocoder") -> int | str | None:
    """Read `--speaker`: a name of the model's, or else a number from 0 on."""
    named = given is None or given in vocoder.speakers or not given.isdecimal()
    return given if named else int(given)  # type: ignore[arg-type]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DataError: The system does not let us.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error}; choose another --out") from None
