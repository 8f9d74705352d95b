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
        help="a folder of recordings (several sub-folders are speakers), a .txt/.csv/.lst list "
        "of path, path|speaker or path|speaker|text, a folder in LJSpeech's layout, "
        "or the name festvox-ru",
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
        "--download", action="store_true", help="festvox-ru: fetch the Debian package with apt"
    )
    verb.add_argument(
        "--from",
        dest="given",
        type=Path,
        metavar="PATH",
        help="festvox-ru: the package's .deb file, or the folder that it was extracted to",
    )
    verb.add_argument("--force", action="store_true", help="replace a manifest that is there")
    verb.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> None:
    """Scan, split, save, and say what came of it."""
    import shlex

    from tqdm import tqdm

    from wavewn.data import corpora, manifest
    from wavewn.data.scan import scan
    from wavewn.errors import DataError

    manifest.refuse_overwrite(args.out, args.force)
    if not args.min_seconds >= 0:
        raise DataError(f"--min-seconds must be 0 or more, got {args.min_seconds}")
    recipe = "own-data-wavenet"
    if corpora.is_ljspeech(Path(args.source)):
        recipe = "ljspeech-wavenet"
    if args.source == corpora.FESTVOX_RU:
        recipe = "festvox-ru-wavenet"
        tree = corpora.get_festvox_ru(args.out, args.download, args.given)
        candidates = corpora.list_festvox_ru(tree)
        if args.valid is None:
            args.valid = corpora.FESTVOX_RU_HELD_OUT
        if args.test is None:
            args.test = corpora.FESTVOX_RU_HELD_OUT
    elif args.download or args.given:
        raise DataError(
            f"--download and --from belong to {corpora.FESTVOX_RU}, got the source "
            f"{args.source!r}; run: wavewn prepare {corpora.FESTVOX_RU} --out {args.out} ..."
        )
    else:
        candidates = corpora.find_candidates(Path(args.source))

    with tqdm(total=len(candidates), desc="scan", unit="file") as bar:
        utterances, rejected = scan(candidates, args.min_seconds, on_file=bar.update)
    if not utterances:
        first = rejected[0]
        raise DataError(
            f"none of the {len(rejected)} files of {args.source} can be used; "
            f"the first, {first.path}, is {first.reason}: {first.detail}"
        )
    splits = manifest.split(utterances, args.valid, args.test)
    summary = manifest.save_manifest(args.out, splits, rejected, args.source, args.force)
    counts = ", ".join(f"{summary.counts[name]} {name}" for name in manifest.SPLITS)
    rates = ", ".join(f"{rate} Hz" for rate in summary.sample_rates)
    speakers = f"{len(summary.speakers)} speaker(s), " if summary.speakers else ""
    command = ["wavewn", "train", recipe, "--data.manifest", str(args.out)]
    if len(summary.speakers) > 1:
        command += ["--model.speakers", str(len(summary.speakers))]
    listed = f" (see {args.out / 'rejected.jsonl'})" if rejected else ""
    print(
        f"{args.out}: {len(utterances)} utterances ({counts}), {sum(summary.hours.values()):.2f} h "
        f"at {rates}, {speakers}{len(rejected)} rejected{listed}; "
        f"next: {shlex.join(command)}"
    )
