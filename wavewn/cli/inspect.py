"""`wavewn inspect`: what is this file? Mels, recordings, bundles and checkpoints, with evidence.

A mel is diagnosed (`audio/diagnosis.py`) and, where its audio lies beside it, compared with it. An
answer, even a bad one, is exit code 0; only what cannot be read at all is a mistake.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavewn.cli.synth import AUDIO_SUFFIXES, MEL_SUFFIXES
from wavewn.errors import BundleError, DataError, MelError

if TYPE_CHECKING:
    from torch import Tensor

    from wavewn.audio.mel_spec import MelSpec
    from wavewn.bundle import Bundle

Report = dict[str, Any]

CHECKPOINT_SUFFIXES = (".ckpt", ".pkl", ".tar", "")
FOREIGN = "checkpoint of another program"
QUIET_DB = -70.0  # of the loudest frequency: above it there is content


def add_inspect(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn inspect`."""
    verb = verbs.add_parser(
        "inspect",
        help="say what a mel file, recording, bundle or checkpoint is",
        description="Measure a mel file (npy, npz, pt, h5), a recording, a bundle or a "
        "checkpoint, and say what it is and what may be wrong with it.",
    )
    verb.add_argument("file", type=Path, help="file, bundle's folder, or a shipped name")
    verb.add_argument("--against", metavar="MODEL", help="say whether it goes with this model")
    verb.add_argument(
        "--audio", type=Path, help="the recording of a mel (one of the same name beside it)"
    )
    verb.add_argument("--json", action="store_true", help="print the report as JSON")
    verb.set_defaults(run=run_inspect)


def run_inspect(args: argparse.Namespace) -> None:
    """Inspect one file and print the report."""
    import torch

    from wavewn.source import open_source

    report: Report
    with torch.no_grad():
        model = open_source(Path(args.against)).mel if args.against else None
        report = {"path": str(args.file), **inspect_path(args.file, model, args.audio)}
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    print(f"{report.pop('path')}: {report.pop('kind')}")
    report.pop("fits not", None)  # many lines; who wants them takes --json
    if "fits" in report:
        report["fits"] = by_reason(report["fits"])
    for name, value in report.items():
        for line in render(value):
            print(f"  {name:<12} {line}")
            name = ""


def inspect_path(path: Path, model: "MelSpec | None", audio: Path | None) -> Report:
    """Choose what to look at by the file's name.

    Raises:
        WavewnError: Nothing is there, or it cannot be read as what its name says.
    """
    from wavewn.bundle.foreign import holds_mel, read_checkpoint
    from wavewn.formats.found import find_family
    from wavewn.source import open_source

    suffix = path.suffix.lower()
    if not path.exists() or path.is_dir() or path.name == "config.json":
        place = path.parent if path.name == "config.json" else path
        return inspect_model(open_source(place), FOREIGN if find_family(place) else "bundle", model)
    if audio is not None and suffix not in MEL_SUFFIXES:
        raise DataError(f"--audio goes with a mel file, {path} is none; leave it out")
    if suffix in AUDIO_SUFFIXES:
        return inspect_audio(path, model)
    if suffix in (".pt", ".pth", *CHECKPOINT_SUFFIXES):
        content = read_checkpoint(path)
        if isinstance(content, Mapping) and "wavewn" in content:
            return inspect_model(open_source(path), "training checkpoint", model)
        if suffix in CHECKPOINT_SUFFIXES or not holds_mel(content):
            return inspect_foreign(path, content, model)
    if suffix in MEL_SUFFIXES:
        return inspect_mel(path, model, audio)
    known = " ".join((*MEL_SUFFIXES, *AUDIO_SUFFIXES, ".ckpt"))
    raise DataError(f"{path}: expected a bundle's folder or a file of {known}; rename it?")


def inspect_foreign(path: Path, content: Any, model: "MelSpec | None") -> Report:
    """Describe another program's checkpoint: as a model where we can read it, or its weights."""
    from wavewn.bundle.foreign import describe_foreign
    from wavewn.formats.found import find_family
    from wavewn.source import open_source

    if find_family(path) is not None:
        try:
            return inspect_model(open_source(path), FOREIGN, model)
        except BundleError as error:
            return {**describe_foreign(path, content), "not converted": str(error)}
    return describe_foreign(path, content)


def inspect_mel(path: Path, model: "MelSpec | None", audio: Path | None) -> Report:
    """Diagnose a mel, and compare it with its audio and with the mels of a model."""
    from wavewn.audio.diagnosis import diagnose, upright
    from wavewn.audio.mel_files import load_mel
    from wavewn.audio.mel_intake import convertible
    from wavewn.audio.mel_match import audio_beside, grid_text, match_audio
    from wavewn.audio.mel_presets import PRESETS

    mel = load_mel(path)
    diagnosis = diagnose(mel, model.n_mels if model else None)
    rows, _ = upright(mel, model.n_mels if model else None)
    report: Report = {
        "kind": f"mel spectrogram, {diagnosis.bands} bands, {diagnosis.frames} frames",
        "shape": list(mel.shape),
        "figures": dataclasses.asdict(diagnosis.figures) if diagnosis.figures else None,
        "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings],
        "fits": {fit.preset: fit.evidence for fit in diagnosis.fits if fit.fits != "no"},
        "fits not": {fit.preset: fit.evidence for fit in diagnosis.fits if fit.fits == "no"},
    }
    audio = audio or audio_beside(path, AUDIO_SUFFIXES)
    if audio is not None and diagnosis.figures is not None:
        specs = PRESETS | ({"the model": model} if model else {})
        matches = match_audio(rows[:, rows.isfinite().all(dim=0)], audio, specs)
        report["audio"] = {"file": str(audio), "matches": [str(match) for match in matches[:5]]}
        if model is not None:
            report["audio"]["frame grid"] = grid_text(diagnosis.frames, audio, model)[1]
    if model is not None:
        report["against"] = judge(mel, model) | {"--mel-from": convertible(diagnosis, model)}
    return report


def judge(mel: "Tensor", model: "MelSpec") -> Report:
    """Say whether a model can read a mel as it is."""
    from wavewn.audio.mel_intake import refuse_unlike

    try:
        refuse_unlike(mel, model)
    except MelError as error:
        return {"goes": False, "why": str(error)}
    return {"goes": True, "why": "nothing in its values speaks against it"}


def inspect_model(bundle: "Bundle", what: str, model: "MelSpec | None") -> Report:
    """Describe a model of wavewn and the mels that it reads."""
    settings = dataclasses.asdict(bundle.model.settings)
    report: Report = {
        "kind": f"{what}, {settings.pop('kind', 'wavenet')}, "
        f"{sum(p.numel() for p in bundle.model.parameters()):,} parameters",
        "speakers": bundle.speakers,
        "licence": bundle.config["licence"],
        "provenance": bundle.config["provenance"],
        "model": settings,
        "mel": bundle.mel.to_dict(),
        "same mel as": same_presets(bundle.mel),
    }
    if bundle.levellings:
        report["levellings"] = bundle.levellings
    if model is not None:
        report["against"] = compare_specs(bundle.mel, model)
    return report


def same_presets(spec: "MelSpec") -> list[str]:
    """Name the presets that are this very definition."""
    from wavewn.audio.mel_presets import PRESETS

    return [name for name, preset in PRESETS.items() if preset == spec]


def compare_specs(spec: "MelSpec", model: "MelSpec") -> Report:
    """Say in which fields two definitions differ, and why one does not convert to the other."""
    from wavewn.audio.mel_convert import obstacles

    mine, other = spec.to_dict(), model.to_dict()
    return {
        "goes": mine == other,
        "differs": {key: [mine[key], other[key]] for key in mine if mine[key] != other[key]},
        "in the way": {one.field: one.reason for one in obstacles(spec, model)},
    }


def inspect_audio(path: Path, model: "MelSpec | None") -> Report:
    """Measure a recording."""
    import math

    import torch

    from wavewn.audio.io import audio_info, read_audio

    info, audio = audio_info(path), read_audio(path)
    peak = float(audio.abs().max())
    window = min(2048, len(audio))
    frames = audio[: len(audio) // window * window].reshape(-1, window)
    spectrum = torch.fft.rfft(frames * torch.hann_window(window)).abs().square().mean(dim=0)
    heard = (spectrum > spectrum.max() * 10 ** (QUIET_DB / 10)).nonzero()
    top_hz = float(heard[-1]) * info.sample_rate / window if peak > 0 else 0.0
    clipped = int((audio.abs() >= max(peak, 0.999) - 1e-4).sum()) if peak >= 0.999 else 0

    def decibels(value: float) -> float | None:
        return 20 * math.log10(value) if value > 0 else None

    report: Report = {
        "kind": f"recording, {info.duration_s:.2f} s, {info.sample_rate} Hz, "
        f"{info.channels} channel(s)",
        "samples": info.samples,
        "level": {
            "peak_db": decibels(peak),
            "rms_db": decibels(float(audio.square().mean().sqrt())),
            "offset": float(audio.mean()),
            "clipped_samples": clipped,
            "zero_share": float((audio == 0).float().mean()),
        },
        "content up to": f"{top_hz:.0f} Hz",
        "findings": [
            text
            for holds, text in (
                (peak == 0, "it is digital silence"),
                (peak > 1, "it goes beyond full scale: was it written as float without scaling?"),
                (clipped > 10, f"{clipped} samples are at full scale: it is clipped"),
                (abs(float(audio.mean())) > 0.01, "its mean is not 0: it has an offset"),
            )
            if holds
        ],
    }
    if model is not None:
        text = "as the model" if info.sample_rate == model.sample_rate else "is resampled"
        resampled = math.ceil(info.samples * model.sample_rate / info.sample_rate)
        report["against"] = {
            "sample rate": f"{info.sample_rate} Hz, the model's is {model.sample_rate} Hz: {text}",
            "frames": model.frames(resampled),
        }
        if 0 < top_hz < 0.8 * min(model.f_max, model.sample_rate / 2):
            report["findings"].append(
                f"it holds nothing above {top_hz:.0f} Hz, the model hears up to {model.f_max:.0f} "
                "Hz: was it recorded or stored at a lower sample rate?"
            )
    return report


def by_reason(fits: Mapping[str, str]) -> dict[str, str]:
    """Join the names that have one reason."""
    names: dict[str, list[str]] = {}
    for name, reason in fits.items():
        names.setdefault(reason, []).append(name)
    return {", ".join(several): reason for reason, several in names.items()}


def render(value: Any) -> list[str]:
    """Give the lines that a person reads of a part of the report."""
    if isinstance(value, Mapping):
        if "evidence" in value:
            sure = "" if value["sure"] else "likely "
            remedy = f"; {value['remedy']}" if value["remedy"] else ""
            return [f"{sure}{value['what']} ({value['evidence']}){remedy}"]
        return [f"{key}: {'; '.join(render(inner))}" for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        lines = [line for inner in value for line in render(inner)]
        return lines if any(" " in line for line in lines) else [", ".join(lines) or "none"]
    if isinstance(value, bool) or value is None:
        return [{True: "yes", False: "no", None: "none"}[value]]
    return [f"{value:.5g}" if isinstance(value, float) else str(value)]
