"""`wavewn convert`: from a checkpoint of another program to a bundle.

The program is told by the files, not by a flag. What was found and mapped, and what is not
reproduced, is printed and goes into the bundle's provenance. Nothing in the files is executed.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavewn.cli.convert_out import FAMILIES, run_convert_out
from wavewn.errors import ConfigError

if TYPE_CHECKING:
    from wavewn.bundle import Bundle
    from wavewn.formats.found import Found


def add_convert(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn convert`."""
    verb = verbs.add_parser(
        "convert",
        help="make a bundle of another program's checkpoint",
        description="Recognise a checkpoint of another program by its files (HiFi-GAN and its kin "
        "in SpeechBrain, NeMo, Coqui and transformers, the vocoders of ParallelWaveGAN, "
        "wavenet_vocoder), and write a bundle that gives the same waveform. Discriminators go into "
        "a training checkpoint beside it. Nothing in the files is executed.",
    )
    verb.add_argument("source", type=Path, help="folder or file of the checkpoint")
    verb.add_argument("-o", "--out", type=Path, required=True, help="folder of the bundle")
    verb.add_argument(
        "--to", choices=FAMILIES, help="the way out: write a bundle as this program's files"
    )
    verb.add_argument(
        "--calibrate",
        nargs="+",
        type=Path,
        metavar="RECORDINGS",
        help="measure the precisions on these (as `wavewn export` does; without: float32 only)",
    )
    verb.add_argument(
        "--dtype",
        default="float32",
        choices=["float16", "float32"],
        help="storage of the matrices; float16 halves the file (float32)",
    )
    verb.add_argument("--licence", help="under which the weights may be used")
    verb.add_argument(
        "--force",
        action="store_true",
        help="replace a bundle that is there; a model card written by hand is kept",
    )
    verb.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> None:
    """Recognise, read, write, and say what was found."""
    if args.to is not None:
        run_convert_out(args)
        return
    from wavewn.bundle import check_target, save_bundle
    from wavewn.bundle.checkpoint import save_checkpoint
    from wavewn.cli.export import find_recordings, measure_stored
    from wavewn.formats.found import read_foreign
    from wavewn.source import as_bundle

    checkpoint = args.out.resolve()
    checkpoint = checkpoint.with_name(f"{checkpoint.name}.ckpt")
    check_target(args.out, args.force)
    found = read_foreign(args.source)
    if found.discriminators is not None and checkpoint.exists() and not args.force:
        raise ConfigError(f"{checkpoint} exists already; choose another --out, or pass --force")
    bundle = as_bundle(found, args.source)
    if args.licence is not None:
        bundle.config["licence"] = args.licence
    verdict, calibration = bundle.config["verdict"], None
    recordings, _ = find_recordings(args.calibrate or (), bundle)
    if recordings:
        verdict, calibration, _ = measure_stored(bundle, recordings, args.dtype)
    report(args.source, found, bundle)
    save_bundle(
        args.out,
        bundle.model,
        bundle.mel,
        speakers=bundle.speakers,
        licence=bundle.config["licence"],
        provenance=bundle.config["provenance"],
        verdict=verdict,
        calibration=calibration,
        dtype=args.dtype,
        force=args.force,
    )
    if found.discriminators is not None:
        save_checkpoint(checkpoint, bundle, {"discriminators": found.discriminators})
        name = checkpoint.name
        taken = f"--mel {name} --model {name} --init-from {name}"
        print(f"{name}: with the discriminators, for `wavewn train RECIPE {taken}`")
    print(
        f"{args.out}: usable in {', '.join(name for name, one in verdict.items() if one['usable'])}"
        f"; next: wavewn synth {args.out} recording.wav -o out"
    )


def report(source: Path, found: "Found", bundle: "Bundle") -> None:
    """Print what was found and what it became."""
    from wavewn.cli.inspect import same_presets

    count = sum(parameter.numel() for parameter in bundle.model.parameters())
    mel = found.mel
    same = same_presets(mel)
    lines = {
        "model": f"{found.settings.kind}, {len(found.state)} tensors, {count:,} parameters",
        "mels": f"{mel.n_mels} bands, {mel.f_min:g} to {mel.f_max:g} Hz, hop {mel.hop_length}, at "
        f"{mel.sample_rate} Hz" + (f"; the same as {', '.join(same)}" if same else ""),
        "licence": bundle.config["licence"] or "not stated",
    }
    print(f"{source}: {found.family}")
    for name, text in [*lines.items(), *(("note", note) for note in found.notes)]:
        print(f"  {name:<8} {text}")
