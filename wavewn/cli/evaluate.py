"""`wavewn evaluate`: how near models come to recordings, with Griffin-Lim always beside them."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavewn.cli.engine import add_engine_options, load_vocoder
from wavewn.cli.synth import speaker_of

if TYPE_CHECKING:
    from torch import Tensor

    from wavewn.audio.mel import MelSpec
    from wavewn.data.manifest import Utterance
    from wavewn.evaluation.compare import Clip, System
    from wavewn.vocoder import Vocoder

RECORDING = "recording"
GRIFFIN_LIM = "griffin-lim"


def add_evaluate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn evaluate`."""
    verb = verbs.add_parser(
        "evaluate",
        help="measure models on recordings, with Griffin-Lim beside",
        description="Copy-synthesis of a manifest's recordings by each model and by Griffin-Lim "
        "from the same mels: log-mel L1, multi-resolution STFT, MCD, F0 and voicing, levels, and "
        "with the extra `eval` PESQ and STOI; means with 95 % bootstrap intervals.",
    )
    verb.add_argument("model", nargs="+", help="bundle, training checkpoint, or a shipped name")
    verb.add_argument("--data", type=Path, required=True, help="folder of `wavewn prepare`")
    verb.add_argument("--split", default="test", help="train, valid or test (test)")
    verb.add_argument("--limit", type=int, help="only the first so many recordings")
    verb.add_argument("--seconds", type=float, help="only the beginning of each recording")
    verb.add_argument("--out", type=Path, help="folder for evaluation.json, .csv and the audio")
    verb.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="also write a page to look at and listen to (evaluation.html in --out or here); "
        "give the models first",
    )
    verb.add_argument("--temperature", type=float, default=1.0, help="of the sampling (1)")
    verb.add_argument("--seed", type=int, default=0, help="of the sampling (0)")
    verb.add_argument(
        "--speaker",
        help="name or number of the voice; a name also leaves out other speakers' recordings",
    )
    verb.add_argument("--batch", type=int, default=8, help="recordings synthesized at once (8)")
    add_engine_options(verb)
    verb.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> None:
    """Load, copy, judge, and print the table."""
    from tqdm import tqdm

    import wavewn
    from wavewn.audio.io import write_audio
    from wavewn.errors import ConfigError
    from wavewn.evaluation.compare import compare, format_table, write_csv, write_json
    from wavewn.evaluation.report import MAX_EXAMPLES, Example, make_page, write_page

    for option in ("batch", "limit"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ConfigError(f"--{option} must be at least 1, got {value}")
    if args.seconds is not None and not args.seconds >= 0.5:
        raise ConfigError(f"--seconds must be at least 0.5, got {args.seconds:g}")
    html = None if args.html is None else page_path(args.html, args.out)
    utterances = choose(args)
    vocoders = {name: load_vocoder(model, args) for name, model in name_models(args.model).items()}
    spec = common_spec(vocoders)
    clips = read_clips(utterances, spec, args.seconds)
    systems = make_systems(vocoders, spec, args)

    if args.out:
        make_folders(args.out, [RECORDING, *systems])
        for clip in clips:
            write_audio(args.out / RECORDING / f"{clip.name}.wav", clip.audio, spec.sample_rate)

    heard: dict[str, dict[str, Tensor]] = {clip.name: {} for clip in clips[:MAX_EXAMPLES]}
    with tqdm(total=len(clips) * len(systems), desc="evaluate", unit="copy") as bar:

        def keep(system: str, clip: "Clip", copy: "Tensor") -> None:
            if html and clip.name in heard:
                heard[clip.name][system] = copy
            if args.out:
                write_audio(args.out / system / f"{clip.name}.wav", copy, spec.sample_rate)
            bar.update()

        result = compare(clips, systems, spec, batch=args.batch, on_copy=keep)

    settings = {
        "wavewn": wavewn.__version__,
        "models": args.model,
        "engine": args.engine,
        "precision": args.precision,
        "levellings": [vocoder.levellings for vocoder in vocoders.values()],
        "data": str(args.data),
        "split": args.split,
        "recordings": len(clips),
        "seconds_of_each": args.seconds,
        "temperature": args.temperature,
        "seed": args.seed,
        "speaker": args.speaker,
        "mel": spec.to_dict(),
    }
    if args.out:
        write_json(args.out / "evaluation.json", result, settings)
        write_csv(args.out / "evaluation.csv", result)
    if html:
        examples = [
            Example(clip.name, clip.audio, heard[clip.name]) for clip in clips[:MAX_EXAMPLES]
        ]
        groups = page_settings(settings, vocoders, args.model)
        write_page(html, make_page(result, examples, spec.sample_rate, groups))
    print(format_table(result))
    seconds = sum(clip.audio.shape[0] for clip in clips) / spec.sample_rate
    print(
        f"{len(clips)} recordings of {args.data} ({args.split}), {seconds:.1f} s; mean [95 % "
        f"bootstrap interval]" + (f"; all in {args.out}" if args.out else "")
    )
    if html:
        print(f"{html}: {html.stat().st_size / 1e6:.1f} MB to look at and listen to")


def page_path(name: str, out: Path | None) -> Path:
    """Return where the page goes, made sure of before any time is spent.

    Raises:
        ConfigError: The name is not that of a page: most likely it is a model.
        DataError: There can be no such file.
    """
    from wavewn.errors import ConfigError, DataError

    path = Path(name) if name else (out or Path()) / "evaluation.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--html takes a file that ends in .html, got {name}; give the models before it"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}; choose another --html") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"cannot write {path}: no file can be there; choose another --html")
    return path


def page_settings(
    settings: dict[str, Any], vocoders: "dict[str, Vocoder]", models: list[str]
) -> dict[str, dict[str, Any]]:
    """Sort what an evaluation rests on under headings: each model, the run, the mel, versions."""
    from wavewn.evaluation.report import versions

    groups: dict[str, dict[str, Any]] = {}
    for (name, vocoder), model in zip(vocoders.items(), models, strict=True):
        groups[f"model {name}"] = {
            "read from": model,
            "kind": vocoder.config["model"]["kind"],
            "parameters": f"{sum(one.numel() for one in vocoder.model.parameters()):,}",
            "speakers": len(vocoder.speakers) or None,
            "levellings": vocoder.levellings or None,
            **vocoder.config["provenance"],
            "licence": vocoder.config["licence"],
            "ran on": f"engine {vocoder.engine.name}, {vocoder.engine.precision}, "
            f"{vocoder.engine.device}",
        }
    groups["evaluation"] = {k: v for k, v in settings.items() if k not in ("mel", "models")}
    groups["mel"] = settings["mel"]
    groups["versions"] = versions()
    return groups


def name_models(models: list[str]) -> dict[str, str]:
    """Map a short name, the last part of the path, to each model; numbered where two are alike."""
    names: dict[str, str] = {}
    for model in models:
        short = name = Path(os.path.abspath(model)).name  # "." has a name as well
        number = 2
        while name in names or name in (RECORDING, GRIFFIN_LIM):
            name, number = f"{short}-{number}", number + 1
        names[name] = model
    return names


def make_folders(out: Path, names: list[str]) -> None:
    """Make a folder for the audio of each system, before any time is spent."""
    from wavewn.errors import DataError

    try:
        for name in names:
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error}; choose another --out") from error


def common_spec(vocoders: "dict[str, Vocoder]") -> "MelSpec":
    """Return the MelSpec that all models share.

    Raises:
        ConfigError: Two models read different mels, so no one table could hold them fairly.
    """
    from wavewn.errors import ConfigError

    (first, vocoder), *others = vocoders.items()
    for name, other in others:
        if other.mel_spec != vocoder.mel_spec:
            ours, theirs = vocoder.mel_spec.to_dict(), other.mel_spec.to_dict()
            different = ", ".join(key for key in ours if ours[key] != theirs[key])
            raise ConfigError(
                f"{first} and {name} read different mels ({different}); evaluate them one by one"
            )
    return vocoder.mel_spec


def choose(args: argparse.Namespace) -> "list[Utterance]":
    """Return the recordings that are asked for.

    Raises:
        DataError: There are none.
    """
    from wavewn.data.manifest import load_manifest
    from wavewn.errors import DataError

    utterances = load_manifest(args.data, args.split)
    if args.speaker in {utterance.speaker for utterance in utterances}:
        utterances = [one for one in utterances if one.speaker == args.speaker]
    if not utterances:
        raise DataError(
            f"the split {args.split} of {args.data} is empty; choose another with --split, or "
            "prepare the corpus again with --test 20"
        )
    return utterances[: args.limit]


def read_clips(
    utterances: "list[Utterance]", spec: "MelSpec", seconds: float | None = None
) -> "list[Clip]":
    """Read recordings, or their beginnings, at the models' rate and after the mel's own chain."""
    from wavewn.audio.io import read_audio
    from wavewn.audio.mel import prepare_audio
    from wavewn.evaluation.compare import Clip

    names = [utterance.path.stem for utterance in utterances]
    if len(set(names)) < len(names):
        names = [f"{number:03d}-{name}" for number, name in enumerate(names, start=1)]
    samples = None if seconds is None else round(seconds * spec.sample_rate)
    return [
        Clip(name, prepare_audio(read_audio(utterance.path, spec.sample_rate)[:samples], spec))
        for name, utterance in zip(names, utterances, strict=True)
    ]


def make_systems(
    vocoders: "dict[str, Vocoder]", spec: "MelSpec", args: argparse.Namespace
) -> "dict[str, System]":
    """Put the models, Griffin-Lim, and a copy by each kind of mu-law head into one table."""
    from wavewn.config import MuLaw
    from wavewn.evaluation.systems import griffin_lim_system, mu_law_system, vocoder_system

    systems = {
        name: vocoder_system(
            vocoder,
            temperature=args.temperature,
            seed=args.seed,
            speaker=speaker_of(args.speaker, vocoder),
        )
        for name, vocoder in vocoders.items()
    }
    systems[GRIFFIN_LIM] = griffin_lim_system(spec, args.seed)
    for vocoder in vocoders.values():
        settings = vocoder.model.settings
        head = getattr(settings, "head", None)  # not every kind of model has one
        if isinstance(head, MuLaw):
            name = f"mu-law-{head.classes}-{settings.pre_emphasis:g}"  # classes, pre-emphasis
            systems[name] = mu_law_system(head.classes, settings.pre_emphasis)
    return systems
