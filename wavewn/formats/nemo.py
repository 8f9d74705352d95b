"""HiFi-GAN of NeMo: a .nemo file, which is a tar archive of settings and weights.

    model_config.yaml     `generator` with the sizes, `preprocessor` with the mel's definition
    model_weights.ckpt    state dict: `generator.`, `mpd.`, `msd.`

Its residual blocks are numbered one after the other in older files, and by upsampling and branch
in newer ones. Its Hann window is symmetric and ours periodic (audio/mel_presets.py has figures).
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import FormatError
from wavewn.formats.archive import is_archive, take_members
from wavewn.formats.discriminators import respelled
from wavewn.formats.found import Found
from wavewn.formats.hifigan import check_bands, network_settings, plain_state, top_hz
from wavewn.formats.plain import folder_of, read_tensors, read_yaml, state_at

LOOKS_FOR = "NeMo (a .nemo file, or model_config.yaml beside model_weights.ckpt)"
FAMILY = "HiFi-GAN of NeMo"
CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
NESTED = re.compile(r"^resblocks\.(\d{1,3})\.(\d{1,3})\.")
ODDITIES = {"normalize": None, "preemph": None, "log": True, "frame_splicing": 1}


def recognise(path: Path) -> bool:
    """Tell whether this is a .nemo file, a folder with one, or with what one holds."""
    file = _archive(path)
    if file is not None:
        return is_archive(file)
    return all((folder_of(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def read(path: Path) -> Found:
    """Read a .nemo file, or the folder that one was unpacked to."""
    file = _archive(path)
    if file is None:
        return _read(folder_of(path) / CONFIG, folder_of(path) / WEIGHTS, path)
    with tempfile.TemporaryDirectory() as folder:
        members = take_members(file, (CONFIG, WEIGHTS), Path(folder))
        if len(members) < 2:
            raise FormatError(f"{file}: expected {CONFIG} and {WEIGHTS} in it, found {[*members]}")
        return _read(members[CONFIG], members[WEIGHTS], file)


def _read(config_file: Path, weights_file: Path, path: Path) -> Found:
    config = read_yaml(config_file)
    generator, mels = config.get("generator"), config.get("preprocessor")
    if not isinstance(generator, Mapping) or "upsample_rates" not in generator:
        kind = config.get("target", "no HiFi-GAN")
        raise FormatError(f"{path}: a model of NeMo of another kind ({kind!r:.80})")
    if not isinstance(mels, Mapping):
        raise FormatError(f"{path}: {CONFIG} does not say what mels it reads (preprocessor)")
    for key, usual in ODDITIES.items():
        if mels.get(key, usual) not in (usual, 0.0 if key == "preemph" else usual):
            raise FormatError(f"{path}: preprocessor.{key} is {mels[key]!r:.40}; no MelSpec has it")
    tensors = state_at(read_tensors(weights_file), weights_file, (), ("state_dict",))
    blocks = generator.get("resblock_kernel_sizes")
    count = len(blocks) if isinstance(blocks, list) else 0
    flat = {
        f"generator.{_flat_key(key.removeprefix('generator.'), count)}": value
        for key, value in tensors.items()
        if key.startswith("generator.")
    }
    state = plain_state(flat, path, "generator.")
    settings = network_settings(
        state,
        path,
        rates=generator["upsample_rates"],
        kernels=generator.get("upsample_kernel_sizes"),
        channels=generator.get("upsample_initial_channel", 512),
        block_kernels=blocks,
        dilations=generator.get("resblock_dilation_sizes"),
    )
    notes = [f"settings from {CONFIG}, weights from {WEIGHTS}"]
    notes.append("NeMo's Hann window is symmetric, ours periodic: mels differ by 1e-3 on average")
    mel = _mel(mels, config, state, path)
    return Found(
        FAMILY, settings, mel, state, notes=notes, discriminators=_discriminators(tensors, path)
    )


def _flat_key(key: str, count: int) -> str:
    """Number residual blocks one after the other; `count` lie beside each other."""
    found = NESTED.match(key)
    if not found:
        return key
    return f"resblocks.{int(found[1]) * count + int(found[2])}.{key[found.end() :]}"


def _mel(
    values: Mapping[str, Any], config: Mapping[str, Any], state: Mapping[str, Tensor], path: Path
) -> MelSpec:
    rate = values.get("sample_rate", config.get("sample_rate", 22050))
    guard = values.get("log_zero_guard_value", 1e-5)
    bands = values.get("nfilt", values.get("features"))
    return MelSpec(
        sample_rate=rate,
        n_fft=values.get("n_fft", 1024),
        hop_length=values.get("n_window_stride", 256),
        win_length=values.get("n_window_size", 1024),
        n_mels=check_bands(state, bands, path),
        f_min=values.get("lowfreq", 0),
        f_max=top_hz(values.get("highfreq"), rate),
        norm=values.get("mel_norm", "slaney"),
        power=values.get("mag_power", 1.0),
        grid="half-hop" if values.get("exact_pad") else "centred",
        floor_kind=values.get("log_zero_guard_type", "add"),
        floor=guard,
    )


def _discriminators(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor] | None:
    own = {key: value for key, value in tensors.items() if key.startswith(("mpd.", "msd."))}
    both = {key.split(".")[0] for key in own} == {"mpd", "msd"}
    return respelled(own, path) if both else None


def _archive(path: Path) -> Path | None:
    """Find the .nemo file: the path itself, or the only one in a folder."""
    if path.suffix == ".nemo" and path.is_file():
        return path
    inside = sorted(path.glob("*.nemo")) if path.is_dir() else []
    return inside[0] if len(inside) == 1 else None
