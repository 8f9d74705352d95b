"""What verbs that run a model have in common: the options that choose its engine."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wavewn.vocoder import Vocoder


def add_engine_options(verb: argparse.ArgumentParser) -> None:
    """Declare --engine, --precision, --threads, --device and --levellings."""
    verb.add_argument(
        "--engine",
        default="auto",
        help="auto; native; cuda, graph or reference of a WaveNet, onepass of other models (auto)",
    )
    verb.add_argument(
        "--precision",
        default="auto",
        help="auto (the fastest that the bundle calls usable), int8 or float16 of a WaveNet, "
        "bfloat16 of other models, or float32 (auto)",
    )
    verb.add_argument("--threads", type=int, default=1, help="that the engine may use (1)")
    verb.add_argument("--device", help="such as cpu or cuda:0")
    verb.add_argument(
        "--levellings",
        type=int,
        metavar="N",
        help="how often the audio is made to have the mel that was stated, 0 to 16 (as the bundle "
        "says)",
    )


def load_vocoder(model: str, args: argparse.Namespace) -> "Vocoder":
    """Load a model as the options say."""
    import wavewn

    return wavewn.load(
        model,
        engine=args.engine,
        precision=args.precision,
        device=args.device,
        threads=args.threads,
        levellings=args.levellings,
    )
