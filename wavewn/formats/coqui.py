"""HiFi-GAN of Coqui's TTS: JSON with comments, and a checkpoint with both networks in one dict.

    config.json        `generator_model` and its parameters; `audio` defines the mel
    *.pth, *.pth.tar   {"model": {"model_g. ...", "model_d. ..."}}, or without the prefixes

A mel of theirs is gain * log(max(mel, 1e-5)), then moved so that the range from ref_level_db +
min_level_db on fills 0 to max_norm, or -max_norm to max_norm. That is one affine map, and where it
clips below, a floor. Above it would clip louder than any speech in [-1, 1].

Its `inference()` repeats the first and the last frame (five times by default) and keeps what comes
of them; that is not part of the network and is not reproduced here.

Source: the published code, TTS/utils/audio/processor.py, TTS/vocoder/models/hifigan_generator.py.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

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
from wavewn.formats.plain import folder_of, newest, read_json, read_tensors, state_at

LOOKS_FOR = 'Coqui (config.json with generator_model "hifigan_generator", beside *.pth)'
FAMILY = "HiFi-GAN of Coqui"
CONFIG = "config.json"
# Each part ends at the text's end at the latest, so that no text is searched twice.
COMMENT = re.compile(r'("(?:\\.|[^"\\])*(?:"|\Z|\\\Z))|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
BASES = {"np.log": ("e", math.e), "np.log10": ("10", 10.0)}
LOWEST = 1e-5  # their logarithm takes nothing below
UPSAMPLING = {  # V1, which their code builds where the settings name nothing else
    "upsample_factors": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
}


def recognise(path: Path) -> bool:
    """Tell whether config.json names their generator."""
    try:
        config = _config(folder_of(path))
    except FormatError:
        return False
    return config.get("generator_model") == "hifigan_generator"


def read(path: Path) -> Found:
    """Read the folder of a model, or the file of its weights."""
    folder = folder_of(path)
    config = _config(folder)
    named = path.is_file() and path.suffix != ".json"
    file = path if named else newest(folder, "*.pth", "*.pth.tar")
    tensors = state_at(read_tensors(file), file, ("model",), ())
    prefix = "model_g." if any(key.startswith("model_g.") for key in tensors) else ""
    state = plain_state(tensors, file, prefix)
    sizes = UPSAMPLING | _group(config, "generator_model_params")
    settings = network_settings(
        state,
        path,
        rates=sizes["upsample_factors"],
        kernels=sizes["upsample_kernel_sizes"],
        channels=sizes["upsample_initial_channel"],
        block_kernels=sizes["resblock_kernel_sizes"],
        dilations=sizes["resblock_dilation_sizes"],
    )
    notes = [f"settings from {CONFIG}, weights from {file.name}"]
    notes += padding_notes(sizes)
    return Found(FAMILY, settings, _mel(_group(config, "audio"), state, path), state, notes=notes)


def _mel(audio: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> MelSpec:
    for key in ("stats_path", "preemphasis"):
        if audio.get(key) and (key != "stats_path" or audio.get("signal_norm", True)):
            why = "they are a pickle" if key == "stats_path" else "its audio would be another"
            raise FormatError(f"{path}: audio.{key} is {audio[key]!r:.60}; {why}, so it is refused")
    name = audio.get("log_func", "np.log10")
    if name not in [*BASES] or not audio.get("do_amp_to_db_mel", True):
        raise FormatError(f"{path}: audio.log_func must be one of {[*BASES]}, got {name!r:.40}")
    mean, scale, floor = _range(audio, BASES[name][1], path)
    rate, n_fft = audio.get("sample_rate", 22050), audio.get("fft_size", 1024)
    return MelSpec(
        sample_rate=rate,
        n_fft=n_fft,
        hop_length=audio.get("hop_length", 256),
        win_length=audio.get("win_length") or n_fft,
        n_mels=check_bands(state, audio.get("num_mels"), path),
        f_min=audio.get("mel_fmin") or 0,
        f_max=top_hz(audio.get("mel_fmax"), rate),
        grid="centred",
        pad_mode=audio.get("stft_pad_mode", "reflect"),
        log_base=BASES[name][0],  # type: ignore[arg-type]
        floor=floor,
        mean=mean,
        scale=scale,
    )


def _range(audio: Mapping[str, Any], base: float, path: Path) -> tuple[float, float, float]:
    """Give mean, scale and floor of their normalisation."""
    try:
        gain = float(audio.get("spec_gain", 20.0))
        if not audio.get("signal_norm", True):
            return 0.0, 1 / gain, LOWEST
        lowest, top = float(audio.get("min_level_db", -100)), float(audio.get("max_norm", 4.0))
        reference = float(audio.get("ref_level_db", 20))
        symmetric = audio.get("symmetric_norm", True)
        slope = (2 if symmetric else 1) * top / -lowest
        offset = slope * (-reference - lowest) - (top if symmetric else 0.0)
        floor = LOWEST
        if audio.get("clip_norm", True):
            floor = max(LOWEST, base ** ((reference + lowest) / gain))
        return -offset / (slope * gain), 1 / (slope * gain), floor
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise FormatError(f"{path}: the levels of audio cannot be ({error})") from None


def _config(folder: Path) -> dict[str, Any]:
    """Read JSON in which `//` and `/* */` begin comments."""
    return read_json(folder / CONFIG, lambda text: COMMENT.sub(lambda found: found[1] or " ", text))


def _group(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    group = config.get(name)
    return dict(group) if isinstance(group, Mapping) else {}
