"""`wavewn study`: run one of the studies behind wavewn's choices again, on any speech."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wavewn.studies.weight_norm.settings import Cell, StudySettings
    from wavewn.studies.weight_norm.summary import Study


def add_study(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn study`."""
    verb = verbs.add_parser(
        "study",
        help="run a study again: weight-norm, where batch statistics fail",
        description="Trains small causal networks on speech with weight norm and its rivals and "
        "measures which hear the future, stream and fold away, how they bear small batches, "
        "changes of speaker and level, and their own samples. A page, plots and JSON in one "
        "folder; an interrupted study goes on where it was.",
    )
    verb.add_argument("study", choices=["weight-norm"], help="the study")
    size = verb.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one seed, two batch sizes")
    size.add_argument("--full", action="store_true", help="all norms, and a sweep of rates")
    verb.add_argument("--out", type=Path, default=Path("weight-norm-study"), help="folder")
    verb.add_argument("--corpus", type=Path, help="of `wavewn prepare`; else the embedded speech")
    verb.add_argument("--workers", type=int, help="processes; else one a core")
    verb.set_defaults(run=run_study)


def run_study(args: argparse.Namespace) -> None:
    """Run all cells with a bar, write the report, and print the table."""
    import os
    import time

    from tqdm import tqdm

    from wavewn.errors import ConfigError
    from wavewn.shipped import shipped
    from wavewn.studies.weight_norm.report import write_report
    from wavewn.studies.weight_norm.run import load_study_speech, run_cells
    from wavewn.studies.weight_norm.settings import PRESETS, list_cells
    from wavewn.studies.weight_norm.summary import Study

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {args.workers}")
    cores = getattr(os, "sched_getaffinity", None)  # Linux knows which ones are ours
    workers = args.workers or (len(cores(0)) if cores else os.cpu_count() or 1)
    settings = PRESETS["quick" if args.quick else "full" if args.full else "default"]
    began = time.perf_counter()
    corpus = args.corpus or shipped("recipes", "corpus/festvox-ru")
    speech = load_study_speech(settings, corpus)
    work = {cell: cell_work(settings, cell) for cell in list_cells(settings)}
    with tqdm(
        total=sum(work.values()),
        desc=f"{len(work)} networks",
        unit="sample",
        unit_scale=True,
    ) as bar:

        def on_done(cell: "Cell") -> None:
            bar.set_postfix_str(cell.name)
            bar.update(work[cell])

        cells = run_cells(settings, speech, args.out, workers=workers, on_done=on_done)
    study = Study(settings, cells)
    page = write_report(study, args.out)
    print(table(study))
    print(f"{page}, plots and results.json, after {time.perf_counter() - began:.0f} s")


def cell_work(settings: "StudySettings", cell: "Cell") -> int:
    """Samples that a cell trains on, for the bar."""
    if cell.kind == "recurrent":
        return settings.recurrent_steps * settings.recurrent_batch * settings.recurrent_length
    return settings.steps * settings.batches[-1] * settings.crop


def table(study: "Study") -> str:
    """Flags and losses of each norm as text."""
    from wavewn.studies.weight_norm.summary import summarise

    summary = summarise(study)
    batches = study.settings.batches
    head = f"{'norm':<28} causal streams folds  nats a sample at batch "
    lines = [head + " ".join(f"{batch:>6}" for batch in batches)]
    for norm, flags in summary["flags"].items():
        marks = [("yes" if flags[key] else "no") for key in ("causal", "streams", "folds")]
        losses = [summary["stack"][norm][str(batch)]["equal_samples"] for batch in batches]
        values = " ".join(f"{one['median']:6.3f}" if one else "     -" for one in losses)
        flag_text = f"{marks[0]:<6} {marks[1]:<7} {marks[2]:<6}"
        lines.append(f"{summary['titles'][norm]:<28} {flag_text}{'':<24}{values}")
    return "\n".join(lines)
