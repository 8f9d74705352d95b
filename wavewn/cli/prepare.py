"""`wavewn prepare`: from a corpus to a manifest that recipes can train on."""

import argparse
from pathlib import Path


def add_prepare(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn prepare`."""
    verb = verbs.add_parser(
        "prepare",
        help="scan a corpus into a manifest to train on",
        description="Scan a corpus into a manifest: every recording is opened once, broken, "
        "empty, silent and too short ones are listed in rejected.jsonl and left out, and the "
        "last files are held out for validation and test.",
    )
    verb.add_argument(
        "source",
        help="a folder of recordings (several sub-folders are speakers), or one in the layout of "
        "LJSpeech, LibriTTS, VCTK, CSMSC, JSUT, Asterisk's sounds, Kaldi (wav.scp) or the "
        "Hugging Face (metadata.csv or .jsonl); a .txt/.csv/.lst list of path, path|speaker or "
        "path|speaker|text; or a name: asterisk, csmsc, festvox-ru, jsut, libritts, libritts-r, "
        "ljspeech, vctk",
    )
    verb.add_argument("--out", type=Path, required=True, help="folder of the manifest")
    verb.add_argument(
        "--valid",
        type=int,
        help="size of the validation set (2 %%, at least 1, at most 20; festvox-ru: 20)",
    )
    verb.add_argument("--test", type=int, help="size of the test set (likewise)")
    verb.add_argument(
        "--min-seconds", type=float, default=0.5, help="leave out shorter recordings (0.5)"
    )
    verb.add_argument(
        "--download",
        action="store_true",
        help="fetch a corpus by its name: asterisk and festvox-ru with apt, ljspeech, libritts "
        "(train-clean-100) and vctk through torchaudio",
    )
    verb.add_argument(
        "--from",
        dest="given",
        type=Path,
        metavar="PATH",
        help="where a named corpus lies: its folder, or a Debian package's .deb file",
    )
    verb.add_argument(
        "--licence",
        help="of the recordings; bundles trained on them carry it (that of the named corpus)",
    )
    verb.add_argument("--force", action="store_true", help="replace a manifest that is there")
    verb.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> None:
    """Scan, split, save, and say what came of it."""
    import shlex

    from tqdm import tqdm

    from wavewn.data import corpora, manifest
    from wavewn.data.corpora import g722
    from wavewn.data.scan import scan
    from wavewn.errors import DataError

    manifest.refuse_overwrite(args.out, args.force)
    if not args.min_seconds >= 0:
        raise DataError(f"--min-seconds must be 0 or more, got {args.min_seconds}")
    source = corpora.find(args.source, args.out, args.download, args.given)
    licence = source.licence if args.licence is None else args.licence
    valid, test = (source.held_out if asked is None else asked for asked in (args.valid, args.test))
    coded = sum(one.path.suffix.lower() == g722.SUFFIX for one in source.candidates)
    with tqdm(total=coded, desc="decode", unit="file", disable=not coded) as bar:
        candidates = g722.decode(source.candidates, args.out / "decoded", on_file=bar.update)
    with tqdm(total=len(candidates), desc="scan", unit="file") as bar:
        utterances, rejected = scan(candidates, args.min_seconds, on_file=bar.update)
    if not utterances:
        first = rejected[0]
        raise DataError(
            f"none of the {len(rejected)} files of {args.source} can be used; "
            f"the first, {first.path}, is {first.reason}: {first.detail}"
        )
    splits = manifest.split(utterances, valid, test)
    summary = manifest.save_manifest(args.out, splits, rejected, args.source, args.force, licence)
    counts = ", ".join(f"{summary.counts[name]} {name}" for name in manifest.SPLITS)
    rates = ", ".join(f"{rate} Hz" for rate in summary.sample_rates)
    speakers = f"{len(summary.speakers)} speaker(s), " if summary.speakers else ""
    command = ["wavewn", "train", source.recipe, "--data.manifest", str(args.out)]
    if len(summary.speakers) > 1:
        command += ["--model.speakers", str(len(summary.speakers))]
    terms = f"licence: {summary.licence}; " if summary.licence else ""
    listed = f" (see {args.out / 'rejected.jsonl'})" if rejected else ""
    print(
        f"{args.out}: {len(utterances)} utterances ({counts}), {sum(summary.hours.values()):.2f} h "
        f"at {rates}, {speakers}{len(rejected)} rejected{listed}; "
        f"{terms}next: {shlex.join(command)}"
    )
