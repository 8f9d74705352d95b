"""HiFi-GAN of SpeechBrain: settings in HyperPyYAML, which is read as data, and a bare state dict.

    hyperparams.yaml   sizes; `!new:` and its like are skipped, `<name>` is looked up
    generator.ckpt     keys with a `.conv` in them

Its convolutions reflect the utterance at its ends where all others put zeros; the upsamplings do
not. Its `inference()` moreover repeats the first and the last frame five times and keeps what
comes of them, ten hops more: that is not part of the network and is not reproduced here; repeat
frames of the mel to get it.

Source: the published code, speechbrain/lobes/models/HifiGAN.py and nnet/CNN.py.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import FormatError
from wavewn.formats.found import Found
from wavewn.formats.hifigan import (
    check_bands,
    network_settings,
    padding_notes,
    plain_state,
    top_hz,
)
from wavewn.formats.plain import folder_of, read_tensors, read_yaml, state_at

LOOKS_FOR = "SpeechBrain (hyperparams.yaml with upsample_factors, beside generator.ckpt)"
FAMILY = "HiFi-GAN of SpeechBrain"
CONFIG, WEIGHTS = "hyperparams.yaml", "generator.ckpt"
REFERENCE = re.compile(r"^<([\w]+)>$")
MEL: dict[str, Any] = {  # theirs, as their recipe for LJSpeech has it, where a file says nothing
    "sample_rate": 22050,
    "hop_length": 256,
    "win_length": 1024,
    "n_fft": 1024,
    "mel_fmin": 0.0,
    "mel_fmax": 8000,
    "mel_normalized": False,
    "power": 1,
    "norm": "slaney",
    "mel_scale": "slaney",
    "dynamic_range_compression": True,
}


def recognise(path: Path) -> bool:
    """Tell whether both files lie here, and whether the settings are a HiFi-GAN's."""
    if not (folder_of(path) / WEIGHTS).is_file():
        return False
    try:
        return "upsample_factors" in _values(folder_of(path))
    except FormatError:
        return False


def read(path: Path) -> Found:
    """Read the folder of a published model, or a file in it."""
    folder = folder_of(path)
    values = _values(folder)
    tensors = state_at(read_tensors(folder / WEIGHTS), folder / WEIGHTS, (), ("generator",))
    state = plain_state({key.replace(".conv.", "."): v for key, v in tensors.items()}, path)
    settings = network_settings(
        state,
        path,
        rates=values["upsample_factors"],
        kernels=values.get("upsample_kernel_sizes"),
        channels=values.get("upsample_initial_channel"),
        block_kernels=values.get("resblock_kernel_sizes"),
        dilations=values.get("resblock_dilation_sizes"),
        padding="reflect",
    )
    notes = [f"settings from {CONFIG}, weights from {WEIGHTS}"]
    assumed = {key: usual for key, usual in MEL.items() if key not in values}
    if assumed:
        told = ", ".join(f"{key} {usual}" for key, usual in assumed.items())
        notes.append(f"{CONFIG} does not tell {told}: taken from the recipe for LJSpeech; check it")
    known = MEL | values
    if known["mel_normalized"]:
        raise FormatError(
            f"{path}: its mels are divided by their window's norm; no MelSpec says so"
        )
    notes += padding_notes(values)
    compressed = bool(known["dynamic_range_compression"])
    mel = MelSpec(
        sample_rate=known["sample_rate"],
        n_fft=known["n_fft"],
        hop_length=known["hop_length"],
        win_length=known["win_length"],
        n_mels=check_bands(state, values.get("in_channels"), path),
        f_min=known["mel_fmin"],
        f_max=top_hz(known["mel_fmax"], known["sample_rate"]),
        mel_scale=known["mel_scale"],
        norm=known["norm"],
        power=known["power"],
        grid="centred",
        log_base="e" if compressed else None,
        floor=1e-5 if compressed else 0.0,
    )
    return Found(FAMILY, settings, mel, state, notes=notes)


def _values(folder: Path) -> dict[str, Any]:
    """Give the settings of the generator and the mel, references looked up."""
    top = read_yaml(folder / CONFIG)
    generator = top.get("generator")
    inner = generator if isinstance(generator, Mapping) else {}
    return {key: _looked_up(value, top) for key, value in {**top, **inner}.items()}


def _looked_up(value: Any, top: Mapping[str, Any]) -> Any:
    for _ in range(8):  # a reference to a reference; a ring of them ends here
        found = REFERENCE.match(value) if isinstance(value, str) else None
        if not found or found[1] not in top:
            return value
        value = top[found[1]]
    return value
