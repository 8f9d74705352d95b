"""`wavewn export --to onnx` or `--to torch`: graphs of a one-pass model for others to run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wavewn.errors import ConfigError

if TYPE_CHECKING:
    from wavewn.bundle import Bundle

CHUNK_FRAMES = 8


def add_graph_options(verb: argparse.ArgumentParser) -> None:
    """Declare what is asked of a graph."""
    verb.add_argument(
        "--to",
        default="bundle",
        choices=["bundle", "onnx", "torch"],
        help="what to write: a bundle, or a one-pass model's graph as an ONNX file or a "
        "torch.export program, .pt2, for programs without wavewn (bundle)",
    )
    verb.add_argument(
        "--streaming",
        action="store_true",
        help="with --to onnx or torch: a folder of the graphs that a stream needs, "
        "with the state as an input and an output",
    )
    verb.add_argument(
        "--chunk-frames",
        type=int,
        metavar="N",
        help=f"with --streaming: mel frames of a chunk ({CHUNK_FRAMES})",
    )


def run_graph_export(args: argparse.Namespace) -> None:
    """Read, fold, trace, compare, write, and say what lies there now."""
    from wavewn.bundle.levelling import levelled
    from wavewn.export import export_stream, export_whole
    from wavewn.models.levelled import Levelled
    from wavewn.models.smoothed_wavenet import SmoothedWaveNet
    from wavewn.models.wavenet import WaveNet

    for name, value in (("calibrate", args.calibrate), ("licence", args.licence)):
        if value is not None:
            raise ConfigError(f"--{name} is for bundles; a graph has none")
    if args.dtype != "float32":
        raise ConfigError(f"--dtype is for bundles; a graph is float32, not {args.dtype}")
    if args.chunk_frames is not None and not args.streaming:
        raise ConfigError("--chunk-frames is for --streaming; whole utterances have no chunks")
    bundle = read_model(args.checkpoint, args.weights)
    model = bundle.model
    if isinstance(model, WaveNet | SmoothedWaveNet):
        raise ConfigError(
            f"{args.checkpoint} is a WaveNet, which makes one sample after another; graphs are of "
            "models that make them all in one pass"
        )
    model, levels = levelled(bundle, args.levellings)
    assert not isinstance(model, WaveNet), "refused above"
    model = model if levels is None else Levelled(model, levels)
    if args.streaming:
        chunk = CHUNK_FRAMES if args.chunk_frames is None else args.chunk_frames
        share = export_stream(
            model, bundle.mel, args.out, args.to, chunk_frames=chunk, force=args.force
        )
        what = f"whole utterances, and streams of {chunk} frames a chunk"
    else:
        share = export_whole(model, bundle.mel, args.out, args.to, force=args.force)
        what = "whole utterances"
    print(f"{args.out}: {what}; audio within {share:.0e} of the model's, relative to its peak")


def read_model(path: Path, weights: Literal["ema", "raw"]) -> "Bundle":
    """Read what is to be exported: a bundle, or these weights of a checkpoint.

    Raises:
        ConfigError: Other weights than its own are asked of a bundle.
    """
    from wavewn.bundle import load_bundle, load_checkpoint

    if not (path / "config.json").is_file():
        return load_checkpoint(path, weights)
    if weights == "raw":
        raise ConfigError("a bundle has but one kind of weights; --weights is for checkpoints")
    return load_bundle(path)
