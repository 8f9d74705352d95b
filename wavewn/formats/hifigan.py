"""HiFi-GAN as jik876 publishes it, and what all programs with the same network share.

    config.json    sizes, and the mel's definition (hop_size, win_size, num_mels, fmin, fmax ...)
    g_02500000     {"generator": state dict}; published files are called generator_v1 and so on
    do_02500000    {"mpd", "msd", "optim_g", "optim_d", "steps", "epoch"}

The keys of the generator are ours. Its residual blocks are told apart by their keys, because
`resblock: 1` (a number) means the second kind to the published code. That code also takes three
dilations a block of the first kind and two of the second, whatever else the settings list, and an
upsampling whose kernel is longer than its rate by an odd number would give it one sample more a
layer, so that is refused.

Source: Kong et al. 2020, arXiv:2010.05646, and its published code.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, model_config
from wavewn.errors import FormatError
from wavewn.formats.discriminators import read_discriminators
from wavewn.formats.found import Found
from wavewn.formats.plain import folded, folder_of, newest, read_json, read_tensors, state_at

LOOKS_FOR = "HiFi-GAN (config.json with upsample_rates, beside g_* or generator*)"
FAMILY = "HiFi-GAN of jik876"
KNOWN_BY = ("upsample_rates", "upsample_initial_channel", "resblock_kernel_sizes", "hop_size")
CONVOLUTIONS = {"1": 3, "2": 2}  # that the published code makes of a block's dilations
OTHERS = {  # settings of kin whose networks differ
    "activation": "BigVGAN",
    "gen_istft_n_fft": "iSTFTNet",
    "mini_nsf": "NSF-HiFiGAN",
    "harmonic_num": "NSF-HiFiGAN",
}


def recognise(path: Path) -> bool:
    """Tell whether a config.json with HiFi-GAN's settings lies here."""
    try:
        settings = read_json(_settings_file(path))
    except FormatError:
        return False
    return all(key in settings for key in KNOWN_BY) and "model_type" not in settings


def read(path: Path) -> Found:
    """Read a generator, and the discriminators of its step where they lie beside it."""
    config = read_json(_settings_file(path))
    for key, name in OTHERS.items():
        if key in config:
            raise FormatError(
                f"{path}: has the setting {key!r}, so it is {name} and not HiFi-GAN; wavewn has no "
                "such network"
            )
    file = path
    if path.is_dir() or path.suffix == ".json":
        file = newest(folder_of(path), "g_*", "generator*")
    notes = [f"settings from {_settings_file(path).name}, weights from {file.name}"]
    content = read_tensors(file)
    places = (("generator",), ("model", "generator"), ("model",), ("state_dict",), ())
    state = plain_state(state_at(content, file, *places), file)
    settings = network_settings(
        state,
        path,
        rates=config["upsample_rates"],
        kernels=config.get("upsample_kernel_sizes"),
        channels=config["upsample_initial_channel"],
        block_kernels=config["resblock_kernel_sizes"],
        dilations=config.get("resblock_dilation_sizes"),
    )
    mel = MelSpec(
        sample_rate=config.get("sampling_rate", 22050),
        n_fft=config.get("n_fft", 1024),
        hop_length=config["hop_size"],
        win_length=config.get("win_size", 1024),
        n_mels=check_bands(state, config.get("num_mels"), path),
        f_min=config.get("fmin", 0),
        f_max=top_hz(config.get("fmax"), config.get("sampling_rate", 22050)),
        magnitude_epsilon=1e-9,
    )
    discriminators = None
    number = re.fullmatch(r"g_(\d+)", file.name)
    beside = file.with_name(f"do_{number[1]}") if number else None
    if beside is not None and beside.is_file():
        discriminators = read_discriminators(read_tensors(beside), beside)
        notes.append(f"discriminators from {beside.name}")
    return Found(FAMILY, settings, mel, state, notes=notes, discriminators=discriminators)


def network_settings(
    state: dict[str, Tensor],
    path: Path,
    *,
    rates: Any,
    kernels: Any,
    channels: Any,
    block_kernels: Any,
    dilations: Any,
    padding: Literal["zeros", "reflect"] = "zeros",
    whole_dilations: bool = False,
) -> HiFiGANConfig:
    """Make our settings of theirs, and complete a state whose last layer has no bias.

    Args:
        state: Plain weights by our keys; a missing `conv_post.bias` is added.
        path: For messages.
        rates: Of the upsamplings.
        kernels: Taps of these.
        channels: Width before the first.
        block_kernels: Taps of each block beside each other.
        dilations: A list for each of them.
        padding: What their convolutions see beyond the utterance.
        whole_dilations: Whether their code takes every dilation of a list.

    Raises:
        ConfigError: They are of wrong types, or impossible.
        FormatError: The network is another, or a layer would give an odd length.
    """
    if not any(key.startswith("conv_pre.") for key in state):
        raise FormatError(f"{path}: holds no weights of a HiFi-GAN (none begins with conv_pre.)")
    conditioned = [key for key in state if key.startswith(("cond_layer.", "conds."))]
    if conditioned:
        raise FormatError(
            f"{path}: {conditioned[0]!r} takes a speaker's embedding beside the mel, which our "
            "HiFi-GAN does not; such a model cannot be converted"
        )
    block: Literal["1", "2"] = "1" if any(".convs1." in key for key in state) else "2"
    if isinstance(dilations, Sequence) and not whole_dilations:
        count = CONVOLUTIONS[block]
        dilations = [one[:count] if isinstance(one, Sequence) else one for one in dilations]
    settings = model_config(
        {
            "kind": "hifigan",
            "channels": channels,
            "upsample_rates": rates,
            "upsample_kernel_sizes": kernels,
            "resblock": block,
            "resblock_kernel_sizes": block_kernels,
            "resblock_dilations": dilations,
            "padding": padding,
        }
    )
    settings = cast("HiFiGANConfig", settings)
    pairs = zip(settings.upsample_kernel_sizes, settings.upsample_rates, strict=True)
    odd = [(kernel, rate) for kernel, rate in pairs if (kernel - rate) % 2]
    if odd:
        raise FormatError(
            f"{path}: an upsampling by {odd[0][1]} with {odd[0][0]} taps gives one sample too many "
            "in its own program, so no length here would be right"
        )
    if "conv_post.weight" in state:
        state.setdefault("conv_post.bias", torch.zeros(1))
    return settings


def plain_state(state: Mapping[str, Tensor], path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Fold the weights whose keys begin with `prefix`, and drop it."""
    own = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    return folded(own, path)


def check_bands(state: Mapping[str, Tensor], bands: Any, path: Path) -> int:
    """Take the number of mel bands from the first layer, if the settings agree.

    Raises:
        FormatError: They name another number.
    """
    weight = state.get("conv_pre.weight")
    heard = weight.shape[1] if weight is not None and weight.dim() == 3 else 0
    if not heard or bands not in (None, heard):
        raise FormatError(
            f"{path}: the settings say {bands} mel bands, the first layer reads {heard or 'none'}"
        )
    return heard


def top_hz(value: Any, sample_rate: Any) -> Any:
    """Give the upper edge of the highest band; theirs is None where it is half the rate."""
    return sample_rate / 2 if value is None and isinstance(sample_rate, int) else value


def padding_notes(settings: Mapping[str, Any]) -> list[str]:
    """Say, where an `inference()` of theirs lengthens its mels, that ours does not."""
    frames = settings.get("inference_padding", 5)
    if not frames:
        return []
    return [
        f"its inference() repeats the first and last {frames} frames and keeps their audio; "
        "here the audio has frames x hop samples"
    ]


def _settings_file(path: Path) -> Path:
    """Find config.json, or the only config*.json, here or beside a file."""
    if path.suffix == ".json":
        return path
    folder = folder_of(path)
    alone = sorted(folder.glob("config*.json"))
    return alone[0] if len(alone) == 1 else folder / "config.json"
