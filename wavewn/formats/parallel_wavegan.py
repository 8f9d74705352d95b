"""Vocoders of the ParallelWaveGAN toolkit: Parallel WaveGAN, MelGAN and HiFi-GAN.

    config.yml                     all settings; `generator_type` says which network
    checkpoint-NNNNNNNsteps.pkl    {"model": {"generator": weights, "discriminator": ...}, ...}
    stats.h5 or stats.npy          mean and scale of each mel band

Its mels are log10 with a floor of 1e-10, on a centred grid, stored as [frames, bands], and all its
networks hear them normalised: here the statistics become part of the `MelSpec`, so that the mel
before them is no longer anybody's business. A `global_gain_scale` makes the audio that is learned
louder or softer than the one whose mel is heard; the toolkit leaves its output so, and so do we.

Source: the toolkit's models/, layers/, utils/ and bin/preprocess.py at version 0.6.1.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wavewn.audio.mel_files import H5_ERRORS, NUMPY_ERRORS
from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig
from wavewn.config.generators import Padding
from wavewn.errors import FormatError
from wavewn.formats.arguments import Arguments
from wavewn.formats.found import Found
from wavewn.formats.parallel_wavegan_names import Upsampled, add_zero_biases, names, rename
from wavewn.formats.plain import folded, folder_of, read_tensors, read_yaml, state_at

LOOKS_FOR = (
    "ParallelWaveGAN (checkpoint-*steps.pkl beside config.yml with generator_params, and stats.h5 "
    "or stats.npy)"
)
CONFIG, STATS = "config.yml", ("stats.h5", "stats.npy")
STATS_BYTES = 1 << 20  # of an honest file of statistics
PADDINGS: dict[str, Padding] = {"ReflectionPad1d": "reflect", "ReplicationPad1d": "replicate"}
FLOOR = 1e-10


def recognise(path: Path) -> bool:
    """See `found.Family.recognise`."""
    folder = folder_of(path)
    if not (folder / CONFIG).is_file() or _checkpoint(path) is None:
        return False
    try:
        return "generator_params" in read_yaml(folder / CONFIG)
    except FormatError:
        return False


def read(path: Path) -> Found:
    """See `found.Family.read`."""
    folder = folder_of(path)
    checkpoint = _checkpoint(path)
    if checkpoint is None:
        raise FormatError(f"{path}: expected checkpoint-*steps.pkl, found none")
    config = read_yaml(folder / CONFIG)
    values = Arguments(config, folder / CONFIG)
    kind = str(config.get("generator_type", "ParallelWaveGANGenerator"))
    if kind not in READERS:
        raise FormatError(
            f"{folder / CONFIG}: generator_type is {kind:.60}; wavewn can hold {', '.join(READERS)}"
        )
    bands = values.whole("num_mels")
    arguments = Arguments(_spelt(config.get("generator_params")), folder / CONFIG, kind)
    settings, bias = READERS[kind](arguments, bands)
    mel = _mel(values, bands)
    notes = [f"weights of {checkpoint.name}", *_remarks(config)]
    if settings.hop_length != mel.hop_length:
        raise FormatError(
            f"{folder / CONFIG}: upsample_scales do not multiply to hop_size, {mel.hop_length}"
        )
    statistics = [folder / name for name in _stats_names(config) if (folder / name).is_file()]
    if not statistics:
        raise FormatError(
            f"{folder}: neither {' nor '.join(STATS)} is there; these networks hear normalised "
            "mels, so copy the file with which theirs were normalised beside the checkpoint"
        )
    mean, scale = read_statistics(statistics[0], bands)
    notes.append(f"mean and scale of the mels from {statistics[0].name}")
    state = state_at(read_tensors(checkpoint), checkpoint, ("model", "generator"))
    renamed = rename(folded(state, checkpoint), names(settings), checkpoint)
    if not bias:
        add_zero_biases(renamed, settings)
    notes.append("its discriminators are not wavewn's: fine-tuning starts with fresh ones")
    family = f"{kind.removesuffix('Generator')} of ParallelWaveGAN"
    return Found(family, settings, replace(mel, mean=mean, scale=scale), renamed, notes=notes)


def read_statistics(path: Path, bands: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read mean and scale of each band.

    Raises:
        FormatError: The file is missing, broken, or has other shapes.
    """
    try:
        small = path.stat().st_size <= STATS_BYTES
        content = (_read_h5 if path.suffix == ".h5" else _read_npy)(path, bands) if small else None
    except (*NUMPY_ERRORS, *H5_ERRORS) as error:
        raise FormatError(f"{path}: cannot be read as statistics ({error})") from None
    if content is None:
        raise FormatError(f"{path}: expected mean and scale of {bands} bands")
    mean, scale = (tuple(np.asarray(one, np.float64).reshape(-1).tolist()) for one in content)
    return mean, scale


def _read_npy(path: Path, bands: int) -> Any:
    content = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: the size must be there
    right = content.dtype.kind == "f" and content.shape == (2, bands)
    return content if right else None


def _read_h5(path: Path, bands: int) -> Any:
    try:
        import h5py
    except ImportError:
        raise FormatError(f"{path}: reading HDF5 needs h5py: pip install wavewn[h5]") from None
    with h5py.File(path, "r") as file:
        found = [file[k] for k in ("mean", "scale") if _is_own(file, k, h5py)]
        right = [one for one in found if one.dtype.kind == "f" and one.size == bands]
        return [one[()] for one in right] if len(right) == 2 else None


def _is_own(file: Any, key: str, h5py: Any) -> bool:
    """Tell whether a dataset lies in this very file."""
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return False
    one = file[key]
    return isinstance(one, h5py.Dataset) and not one.external and not one.is_virtual


def _checkpoint(path: Path) -> Path | None:
    """Choose the file of weights: the one that is named, else that of the most steps."""
    if path.suffix == ".pkl" and path.is_file():
        return path
    folder = folder_of(path)
    found = [(re.search(r"(\d+)steps$", one.stem), one) for one in folder.glob("checkpoint*.pkl")]
    ranked = sorted((int(m[1]) if m else -1, str(one)) for m, one in found)
    return Path(ranked[-1][1]) if ranked else None


def _stats_names(config: dict[str, Any]) -> tuple[str, ...]:
    return STATS[::-1] if config.get("format") == "npy" else STATS


def _spelt(values: Any) -> Any:
    """Read a name that older versions misspelt."""
    if not isinstance(values, dict):
        return values
    old, new = "upsample_kernal_sizes", "upsample_kernel_sizes"
    return {new if key == old else key: value for key, value in values.items()}


def _mel(values: Arguments, bands: int) -> MelSpec:
    rate, n_fft = values.whole("sampling_rate"), values.whole("fft_size")
    values.only("window", "hann", "other windows give other mels")
    values.only(
        "sampling_rate_for_feats", rate, "mels and audio of two sample rates are two definitions"
    )
    return MelSpec(
        rate, n_fft, values.whole("hop_size"), values.whole("win_length", n_fft), bands,
        values.number("fmin", 0.0), values.number("fmax", rate / 2),
        grid="centred", log_base="10", floor=FLOOR,
    )  # fmt: skip


def _remarks(config: dict[str, Any]) -> list[str]:
    remarks = []
    gain = config.get("global_gain_scale", 1.0)
    if gain != 1.0:
        remarks.append(f"its audio is {gain!r:.20} times as loud as the recordings it learned from")
    if config.get("trim_silence"):
        remarks.append("its recordings were trimmed: it has heard no long silence")
    return remarks


def _parallel_wavegan(values: Arguments, bands: int) -> tuple[Upsampled, bool]:
    """Read the settings of a ParallelWaveGANGenerator, and whether all its layers have biases."""
    values.only("in_channels", 1, "one channel of noise")
    values.only("out_channels", 1, "one channel of audio")
    values.only("aux_channels", bands, "the mel alone conditions its layers", default=80)
    values.only("upsample_conditional_features", True, "mels are upsampled by the network")
    values.only("upsample_net", "ConvInUpsampleNetwork", "no other upsampling is known")
    upsampling = values.part("upsample_params", {"upsample_scales": (4, 4, 4, 4)})
    rates = upsampling.wholes("upsample_scales")
    upsampling.only("nonlinear_activation", None, "our upsampling has no activations")
    upsampling.only("interpolate_mode", "nearest", "our upsampling repeats rows")
    upsampling.only("freq_axis_kernel_size", 1, "our upsampling smooths along time alone")
    upsampling.close(
        ("nonlinear_activation_params", "use_causal_conv", "aux_channels", "aux_context_window")
    )
    layers, stacks = values.whole("layers", 30), values.whole("stacks", 3)
    if layers % stacks:
        raise values.wrong("layers", layers, f"a multiple of {stacks} stacks")
    settings = ParallelWaveGANConfig(
        residual_channels=values.whole("residual_channels", 64),
        gate_channels=values.whole("gate_channels", 128),
        skip_channels=values.whole("skip_channels", 64),
        kernel_size=values.whole("kernel_size", 3),
        cycles=stacks,
        layers_per_cycle=layers // stacks,
        condition_context=values.whole("aux_context_window", 2, least=0),
        upsample_rates=rates,
        causal=values.switch("use_causal_conv", False),
    )
    bias = values.switch("bias", True)
    values.close(("dropout", "use_weight_norm"))
    return settings, bias


def _melgan(values: Arguments, bands: int) -> tuple[Upsampled, bool]:
    """Likewise of a MelGANGenerator."""
    _one_pass(values, bands, 0.2)
    values.only("use_final_nonlinear_activation", True, "our model ends in tanh")
    values.only("pad_params", {}, "no padding of theirs takes any")
    padding = values.take("pad", "ReflectionPad1d")
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise values.wrong("pad", padding, " or ".join(PADDINGS))
    settings = MelGANConfig(
        channels=values.whole("channels", 512),
        upsample_rates=values.wholes("upsample_scales", (8, 8, 2, 2)),
        stacks=values.whole("stacks", 3),
        stack_kernel_size=values.whole("stack_kernel_size", 3),
        kernel_size=values.whole("kernel_size", 7),
        padding=PADDINGS[padding],
    )
    bias = values.switch("bias", True)
    values.close(("use_weight_norm",))
    return settings, bias


def _hifigan(values: Arguments, bands: int) -> tuple[Upsampled, bool]:
    """Likewise of a HiFiGANGenerator."""
    _one_pass(values, bands, 0.1)
    values.only("kernel_size", 7, "its first and last convolutions have seven taps")
    rates = values.wholes("upsample_scales", (8, 8, 2, 2))
    kernels = values.wholes("upsample_kernel_sizes", (16, 16, 4, 4))
    if kernels != tuple(2 * rate for rate in rates):
        raise values.wrong("upsample_kernel_sizes", kernels, "twice the rates, as theirs are")
    taps = values.wholes("resblock_kernel_sizes", (3, 7, 11))
    dilations = values.take("resblock_dilations", [(1, 3, 5)] * 3)
    if not isinstance(dilations, list):
        raise values.wrong("resblock_dilations", dilations, "a list of lists")
    each = Arguments({str(i): one for i, one in enumerate(dilations)}, values.path, "dilations")
    settings = HiFiGANConfig(
        channels=values.whole("channels", 512),
        upsample_rates=rates,
        upsample_kernel_sizes=kernels,
        resblock="1" if values.switch("use_additional_convs", True) else "2",
        resblock_kernel_sizes=taps,
        resblock_dilations=tuple(each.wholes(str(i)) for i in range(len(dilations))),
    )
    bias = values.switch("bias", True)
    values.close(("use_weight_norm",))
    return settings, bias


def _one_pass(values: Arguments, bands: int, slope: float) -> None:
    """Check what MelGAN and HiFi-GAN have in common."""
    values.only("in_channels", bands, "the mel alone goes in", default=80)
    values.only(
        "out_channels", 1, "several bands would have to be joined by their synthesis filters"
    )
    values.only(
        "use_causal_conv",
        False,
        "its causal upsamplings repeat the first row, ours begin in silence",
    )
    values.only("nonlinear_activation", "LeakyReLU", "our model has no other")
    values.only("nonlinear_activation_params", {"negative_slope": slope}, "our model's slope")


READERS: dict[str, Callable[[Arguments, int], tuple[Upsampled, bool]]] = {
    "ParallelWaveGANGenerator": _parallel_wavegan,
    "MelGANGenerator": _melgan,
    "HiFiGANGenerator": _hifigan,
}
