"""`wavewn train`: from a recipe to a trained model."""

import argparse
from pathlib import Path


def add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn train`."""
    verb = verbs.add_parser(
        "train",
        help="train a vocoder from a recipe",
        description="Train a vocoder. Every key of the recipe can be overridden: "
        "--data.manifest DIR --optimiser.lr 0.001 --trainer.max_steps 1000; --print_config shows "
        "them all. A relative data.manifest starts from the current folder, but for a shipped "
        "recipe whose corpus is shipped too (quickstart).",
        epilog="Ctrl-C saves a checkpoint and says how to go on.",
    )
    verb.add_argument("recipe", help="a YAML file, or the name of a shipped recipe (quickstart)")
    verb.add_argument("--out", type=Path, help="folder of the run (runs/RECIPE)")
    verb.add_argument(
        "--init-from",
        "--init_from",  # as the recipe spells it
        metavar="BUNDLE|CKPT",
        help="start from these weights (a bundle's folder or shipped name, or a checkpoint)",
    )
    verb.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CKPT",
        help="go on from this checkpoint; alone or 'auto': from the last one of --out, if any",
    )
    verb.set_defaults(run=run_train, overrides=[])


def run_train(args: argparse.Namespace) -> None:
    """Train, and say where the best checkpoint lies and what comes next."""
    import logging
    import os
    import shlex
    import sys
    import warnings

    from wavewn.shipped import shipped
    from wavewn.training.callbacks import Interrupted
    from wavewn.training.recipe import load_recipe
    from wavewn.training.run import train

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no advertising
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own affair with torch
    path, folder = Path(args.recipe), Path()
    if not path.is_file():
        path = shipped("recipes", args.recipe)
    recipe = load_recipe(path, args.overrides)
    ours = path != Path(args.recipe) and not _given(args.overrides, "--data.manifest")
    if ours and (path.parent / recipe.data.manifest).is_dir():
        folder = path.parent
    out = args.out or Path("runs") / path.stem
    try:
        best = train(recipe, out, folder=folder, resume=args.resume, init_from=args.init_from)
    except Interrupted as stopped:
        command = ["wavewn", "train", args.recipe, "--out", str(out), "--resume", *args.overrides]
        print(f"{stopped}; go on with: {shlex.join(command)}", file=sys.stderr)
        raise KeyboardInterrupt from None
    if os.environ.get("LOCAL_RANK", "0") == "0":  # Lightning starts one process a device
        print(f"{best}: trained; next: wavewn export {best} --out {out / 'bundle'}")


def _given(overrides: list[str], option: str) -> bool:
    return any(text.partition("=")[0] == option for text in overrides)
