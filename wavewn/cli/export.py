"""`wavewn export`: from a training checkpoint, or a bundle, to a bundle that everyone can load.

On the way each precision is judged on speech (engine/verdict.py): on the recordings of
`--calibrate`, or else of the corpus that the checkpoint was trained on, if it is still there. No
other speech will do: a model must be measured on what it can say. A bundle goes through anew to get
its verdict, or another storage, without its checkpoint.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wavewn.cli.export_graph import add_graph_options, read_model, run_graph_export
from wavewn.errors import ConfigError, DataError, WavewnError

if TYPE_CHECKING:
    from wavewn.bundle import Bundle, Calibration
    from wavewn.data.manifest import Utterance
    from wavewn.engine.verdict import Piece

RECORDINGS = 16  # half of them calibrate, the others judge
PIECE_S = 1.5  # of each, from its beginning
SHORTEST_S = 0.25  # a piece that is used

T = TypeVar("T")


def add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn export`."""
    verb = verbs.add_parser(
        "export",
        help="make a bundle of a training checkpoint",
        description="Fold the weight norm of a checkpoint, measure which precisions are good "
        "enough, and write config.json, model.safetensors and a model card into a folder, whole "
        "or not at all. A bundle can be exported anew, to measure it or to store it otherwise.",
    )
    verb.add_argument("checkpoint", type=Path, help="a .ckpt file of `wavewn train`, or a bundle")
    verb.add_argument(
        "-o", "--out", type=Path, required=True, help="folder of the bundle, or a graph"
    )
    verb.add_argument(
        "--calibrate",
        nargs="+",
        type=Path,
        metavar="RECORDINGS",
        help="measure the precisions on these: a manifest's folder, folders, audio files "
        "(the corpus that the checkpoint was trained on)",
    )
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
    verb.add_argument(
        "--levellings",
        type=int,
        metavar="N",
        help="how often the audio shall be made to have the mel that was stated, 0 to 16 (as the "
        "source says)",
    )
    add_graph_options(verb)
    verb.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    """Read, fold, measure, write, and say what lies there now."""
    if args.to != "bundle":
        run_graph_export(args)
        return
    if args.streaming or args.chunk_frames is not None:
        raise ConfigError("--streaming and --chunk-frames are for graphs; add --to onnx or torch")
    from wavewn.bundle import calibration_of, check_target, save_bundle

    check_target(args.out, args.force)
    bundle = read_model(args.checkpoint, args.weights)
    if args.levellings is not None:
        bundle = relevelled(bundle, args.levellings)
    verdict, calibration = bundle.config["verdict"], calibration_of(bundle.config)
    recordings, remark = find_recordings(args.calibrate, bundle)
    if recordings:
        verdict, calibration, count = measure_stored(bundle, recordings, args.dtype)
        remark = f"measured on {count} recordings"
    provenance = bundle.config["provenance"]
    save_bundle(
        args.out,
        bundle.model,
        bundle.mel,
        speakers=bundle.speakers,
        licence=bundle.config["licence"] if args.licence is None else args.licence,
        provenance=provenance,
        verdict=verdict,
        calibration=calibration,
        levellings=bundle.levellings,
        dtype=args.dtype,
        force=args.force,
    )
    parameters = sum(parameter.numel() for parameter in bundle.model.parameters())
    size = sum(path.stat().st_size for path in args.out.iterdir() if path.is_file())
    for precision, found in verdict.items():
        if not found["usable"]:
            print(f"{precision} is not usable: {found.get('reason', 'no reason is known')}")
    usable = [precision for precision, found in verdict.items() if found["usable"]]
    print(f"usable precisions: {', '.join(usable)} ({remark})")
    print(
        f"{args.out}: {parameters:,} parameters after {provenance.get('steps', 'unknown')} "
        f"steps ({args.weights}, {args.dtype}), {size / 1e6:.1f} MB; "
        f"next: wavewn synth {args.out} recording.wav -o out"
    )


def relevelled(bundle: "Bundle", count: int) -> "Bundle":
    """Give a bundle that says another number of levellings.

    What was measured of other audio, bfloat16 of a one-pass model, is forgotten.
    """
    import dataclasses

    from wavewn.bundle.contents import VERDICT
    from wavewn.bundle.levelling import levelled
    from wavewn.models.smoothed_wavenet import SmoothedWaveNet
    from wavewn.models.spectral import Spectral
    from wavewn.models.wavenet import WaveNet

    model, before = bundle.model, bundle.levellings
    config = {**bundle.config, "levellings": count}
    if isinstance(model, Spectral):  # it levels by itself
        before, config["levellings"] = model.settings.levellings, 0
        model = levelled(bundle, count)[0]
    if count != before and not isinstance(model, WaveNet | SmoothedWaveNet):
        config["verdict"] = dict(VERDICT)
    return dataclasses.replace(bundle, model=model, config=config)


def find_recordings(
    given: Sequence[Path] | None, bundle: "Bundle"
) -> "tuple[list[Utterance], str]":
    """Choose recordings to measure with: those given, or of the bundle's own corpus.

    Returns:
        Recordings, and where there are none, why.

    Raises:
        AudioError: A given file is no recording.
        DataError: What is given holds none.
    """
    if given is not None:
        found = [one for path in given for one in _listed(path)]
        return _spread(found), ""
    if len(bundle.config["verdict"]) > 1:
        return [], "as measured before"
    hint = "for the others, name recordings with --calibrate"
    if not bundle.manifest:
        return [], hint
    try:
        return _spread(_listed(_corpus(bundle.manifest))), ""
    except WavewnError:
        return [], f"the corpus {bundle.manifest} is not here; {hint}"


def measure_stored(
    bundle: "Bundle", recordings: "Sequence[Utterance]", dtype: str
) -> "tuple[dict[str, dict[str, Any]], Calibration | None, int]":
    """Judge the precisions of a model as it will be stored: its matrices are rounded to that.

    Returns:
        The verdict, int8's calibration, and how many recordings could be used.
    """
    if dtype == "float16":
        for parameter in bundle.model.parameters():
            if parameter.dim() > 1:
                parameter.data = parameter.data.half().float()
    pieces = read_pieces(recordings, bundle)
    return *measure_precisions(bundle, pieces), len(pieces)


def measure_precisions(
    bundle: "Bundle", pieces: "list[Piece]"
) -> "tuple[dict[str, dict[str, Any]], Calibration | None]":
    """Judge the precisions that models of this kind run in; int8 comes with its calibration."""
    from wavewn.bundle.levelling import levelled
    from wavewn.engine.onepass_verdict import measure_bfloat16
    from wavewn.engine.verdict import Piece, measure
    from wavewn.models.levelled import Levelled
    from wavewn.models.smoothed_wavenet import SmoothedWaveNet
    from wavewn.models.wavenet import WaveNet

    model, levels = levelled(bundle)
    if isinstance(model, SmoothedWaveNet):  # its network's frames are samples
        parts = [Piece(one.audio, model.condition(one.mel), one.speaker) for one in pieces]
        return measure(model.network, parts)
    if isinstance(model, WaveNet):
        return measure(model, pieces)
    heard = model if levels is None else Levelled(model, levels)
    return measure_bfloat16(heard, [piece.mel for piece in pieces]), None


def read_pieces(recordings: "Sequence[Utterance]", bundle: "Bundle") -> "list[Piece]":
    """Read the beginning of each recording and take its mel.

    Raises:
        DataError: Fewer than two are long enough, at the model's rate, and of its speakers.
    """
    import torch

    from wavewn.audio.mel import mel_spectrogram
    from wavewn.data.crops import read_at, samples_at
    from wavewn.engine.verdict import Piece
    from wavewn.models.wavenet import WaveNet

    spec = bundle.mel
    ahead = 0  # a one-pass model hears a piece's end as an utterance's
    if isinstance(bundle.model, WaveNet):
        ahead = bundle.model.settings.condition.look_ahead
    pieces: list[Piece] = []
    why = ""
    for one in recordings:
        there = spec.frames(samples_at(one, spec.sample_rate)) - ahead
        frames = min(there, int(PIECE_S * spec.sample_rate) // spec.hop_length)
        if one.sample_rate < spec.sample_rate:
            why = f"{one.path} has {one.sample_rate} Hz, the model {spec.sample_rate}"
        elif frames * spec.hop_length < SHORTEST_S * spec.sample_rate:
            why = f"{one.path} is too short"
        elif bundle.speakers and one.speaker not in bundle.speakers:
            why = f"{one.path} is of no speaker of the model's; name a manifest that says so"
        else:
            samples = frames * spec.hop_length
            heard = samples + ahead * spec.hop_length + spec.n_fft
            audio = read_at(one, spec.sample_rate, 0, heard)
            speaker = None
            if bundle.speakers:
                speaker = torch.tensor([bundle.speakers.index(one.speaker)])
            mel = mel_spectrogram(audio, spec)[:, :, : frames + ahead]
            pieces.append(Piece(audio[None, :samples], mel, speaker))
    if len(pieces) < 2:
        raise DataError(
            f"measuring precisions takes at least 2 recordings of {SHORTEST_S} s or more, "
            f"{len(pieces)} of {len(recordings)} can be used" + (f" ({why})" if why else "")
        )
    return pieces


def _listed(path: Path) -> "list[Utterance]":
    """List the recordings of a manifest, a folder, or a file."""
    from wavewn.audio.io import audio_info
    from wavewn.cli.synth import AUDIO_SUFFIXES
    from wavewn.data.manifest import SPLITS, Utterance, load_manifest

    if (path / "manifest.json").is_file():
        return [one for split in SPLITS for one in load_manifest(path, split)]
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.suffix.lower() in AUDIO_SUFFIXES)
        if not files:
            raise DataError(f"{path}: holds no recordings")
    elif not path.is_file():
        raise DataError(f"{path}: no such file or folder; check the path")
    infos = [(one, audio_info(one)) for one in _spread(files)]
    return [Utterance(one, info.samples, info.sample_rate) for one, info in infos]


def _corpus(manifest: str) -> Path:
    """Find the manifest that a recipe names: a path, or beside the shipped recipes."""
    from wavewn.shipped import shipped_folder

    beside = shipped_folder("recipes") / manifest
    return beside if not Path(manifest).is_dir() and beside.is_dir() else Path(manifest)


def _spread(found: list[T]) -> list[T]:
    """Take `RECORDINGS` of a list, evenly."""
    count = min(RECORDINGS, len(found))
    return [found[i * len(found) // count] for i in range(count)]
