"""`wavewn export`: from a training checkpoint to a bundle that everyone can load."""

import argparse
from pathlib import Path


def add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn export`."""
    verb = verbs.add_parser(
        "export",
        help="make a bundle of a training checkpoint",
        description="Fold the weight norm of a checkpoint and write config.json, "
        "model.safetensors and a model card into a folder, whole or not at all.",
    )
    verb.add_argument("checkpoint", type=Path, help="a .ckpt file of `wavewn train`")
    verb.add_argument("-o", "--out", type=Path, required=True, help="folder of the bundle")
    verb.add_argument(
        "--dtype",
        default="float32",
        choices=["float16", "float32"],
        help="storage of the matrices; float16 halves the file (float32)",
    )
    verb.add_argument(
        "--weights",
        default="ema",
        choices=["ema", "raw"],
        help="averaged over training, or those of the last step (ema)",
    )
    verb.add_argument(
        "--licence", help="under which the weights may be used (what their corpus asks for)"
    )
    verb.add_argument(
        "--force",
        action="store_true",
        help="replace a bundle that is there; a model card written by hand is kept",
    )
    verb.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    """Read, fold, write, and say what lies there now."""
    from wavewn.bundle import check_target, load_checkpoint, save_bundle

    check_target(args.out, args.force)
    bundle = load_checkpoint(args.checkpoint, args.weights)
    save_bundle(
        args.out,
        bundle.model,
        bundle.mel,
        speakers=bundle.speakers,
        licence=bundle.config["licence"] if args.licence is None else args.licence,
        provenance=bundle.config["provenance"],
        dtype=args.dtype,
        force=args.force,
    )
    parameters = sum(parameter.numel() for parameter in bundle.model.parameters())
    size = sum(path.stat().st_size for path in args.out.iterdir() if path.is_file())
    print(
        f"{args.out}: {parameters:,} parameters after {bundle.config['provenance']['steps']} "
        f"steps ({args.weights}, {args.dtype}), {size / 1e6:.1f} MB; "
        f"next: wavewn synth {args.out} recording.wav -o out"
    )
