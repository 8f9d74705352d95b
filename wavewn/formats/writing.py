"""The way out: a model of ours as the files of another program.

Files are written beside, read back by the same reader that strangers' files go through, and kept
only where settings, mels and weights come back as they were. So what another program's files cannot
say needs no list here: it comes back different, and is named.
"""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, MelGANConfig, ModelConfig, ParallelWaveGANConfig
from wavewn.errors import ConfigError, FormatError
from wavewn.formats import hifigan, parallel_wavegan, wavenet_vocoder
from wavewn.formats.found import Found
from wavewn.formats.parallel_wavegan_names import UNHEARD, Upsampled, names
from wavewn.formats.wavenet_vocoder_writing import hparams, weights
from wavewn.nn.weight_norm import convert_state_dict

RTOL = 1e-6  # of weights that were split into gain and direction and folded again
HIFIGAN_BANDS = 80  # the published code reads no other number
HIFIGAN_TRAINING = {  # of its V1; needed to read the file, and to fine-tune
    "seed": 1234, "batch_size": 16, "learning_rate": 0.0002, "adam_b1": 0.8, "adam_b2": 0.99,
    "lr_decay": 0.999, "segment_size": 8192, "fmax_for_loss": None, "num_gpus": 0, "num_workers": 4,
}  # fmt: skip


def write_foreign(
    settings: ModelConfig, mel: MelSpec, state: Mapping[str, Tensor], family: str, folder: Path
) -> list[str]:
    """Write a model as another program's files, whole or not at all.

    Args:
        settings: Of our model.
        mel: The mels that it reads.
        state: Its weights, plain.
        family: One of `FAMILIES`.
        folder: Is made.

    Returns:
        Names of the files.

    Raises:
        FormatError: That program cannot hold the model, or the folder exists or cannot be written.
    """
    if family not in FAMILIES:
        raise FormatError(f"nothing is written as {family!r}; there are {', '.join(FAMILIES)}")
    if folder.exists() or folder.is_symlink():
        raise FormatError(f"{folder} exists already; choose another folder")
    write, read = FAMILIES[family]
    place = folder.resolve()
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        write(settings, mel, {key: value.float() for key, value in state.items()}, partial)
        _compare(read(partial), settings, mel, state, family)
        written = sorted(one.name for one in partial.iterdir())
        partial.rename(place)
    except OSError as error:
        raise FormatError(f"{folder}: cannot be written ({error})") from None
    except ConfigError as error:
        raise FormatError(f"{family} cannot hold this model: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def _compare(
    found: Found, settings: ModelConfig, mel: MelSpec, state: Mapping[str, Tensor], family: str
) -> None:
    """Raise FormatError unless what was read back is what was written."""
    pairs = [(settings, found.settings, ""), (_per_band(mel), _per_band(found.mel), "mel.")]
    for one, other, prefix in pairs:
        for entry in dataclasses.fields(one):
            before, after = getattr(one, entry.name), getattr(other, entry.name, "nothing")
            if before != after:
                raise FormatError(
                    f"{family} cannot hold this model: its {prefix}{entry.name} is {before!r:.60}, "
                    f"which in that program's files becomes {after!r:.60}"
                )
    if set(state) != set(found.state):
        odd = sorted(set(state) ^ set(found.state))[0]
        raise FormatError(f"{family} cannot hold this model: {odd!r} is not on both sides")
    for key, value in state.items():
        if not torch.allclose(found.state[key], value.float(), rtol=RTOL, atol=1e-12):
            raise FormatError(f"{family}: {key!r} was read back different; this is a bug of wavewn")


def _per_band(mel: MelSpec) -> MelSpec:
    """Spell mean and scale band by band."""
    mean, scale = (
        value if isinstance(value, tuple) else (float(value),) * mel.n_mels
        for value in (mel.mean, mel.scale)
    )
    return dataclasses.replace(mel, mean=mean, scale=scale)


def _hifigan(settings: ModelConfig, mel: MelSpec, state: dict[str, Tensor], folder: Path) -> None:
    if not isinstance(settings, HiFiGANConfig):
        raise FormatError(f"hifigan cannot hold this model: its kind is {settings.kind}")
    if mel.n_mels != HIFIGAN_BANDS:
        raise FormatError(
            f"hifigan cannot hold this model: it reads {mel.n_mels} bands, the published code "
            f"{HIFIGAN_BANDS}"
        )
    config = {
        "resblock": settings.resblock,
        "upsample_rates": settings.upsample_rates,
        "upsample_kernel_sizes": settings.upsample_kernel_sizes,
        "upsample_initial_channel": settings.channels,
        "resblock_kernel_sizes": settings.resblock_kernel_sizes,
        "resblock_dilation_sizes": settings.resblock_dilations,
        "num_mels": mel.n_mels, "num_freq": mel.n_fft // 2 + 1, "n_fft": mel.n_fft,
        "hop_size": mel.hop_length, "win_size": mel.win_length, "sampling_rate": mel.sample_rate,
        "fmin": mel.f_min, "fmax": mel.f_max,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | HIFIGAN_TRAINING, indent=4) + "\n")
    torch.save({"generator": _normed(state)}, folder / "g_00000000")


def _parallel_wavegan(
    settings: ModelConfig, mel: MelSpec, state: dict[str, Tensor], folder: Path
) -> None:
    if not isinstance(settings, Upsampled):
        raise FormatError(f"parallel-wavegan cannot hold this model: its kind is {settings.kind}")
    kind, params = _generator_params(settings, mel)
    config = {
        "generator_type": kind, "generator_params": params, "format": "npy",
        "sampling_rate": mel.sample_rate, "fft_size": mel.n_fft, "hop_size": mel.hop_length,
        "win_length": mel.win_length, "window": "hann", "num_mels": mel.n_mels, "fmin": mel.f_min,
        "fmax": mel.f_max, "global_gain_scale": 1.0, "trim_silence": False,
    }  # fmt: skip
    theirs: dict[str, Tensor] = {}
    for name, other in names(settings):
        if name == UNHEARD:  # nobody hears it, but it has to be there
            theirs |= _unheard(other, settings)
            continue
        for end in ("weight", "bias"):
            if f"{name}.{end}" in state:
                theirs[f"{other}.{end}"] = state[f"{name}.{end}"]
    model = {"generator": _normed(theirs)}
    torch.save({"model": model, "steps": 0, "epochs": 0}, folder / "checkpoint-0steps.pkl")
    (folder / parallel_wavegan.CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    _save_statistics(mel, folder)


def _generator_params(settings: Upsampled, mel: MelSpec) -> tuple[str, dict[str, object]]:
    """Give the name of their class, and its arguments."""
    rates = list(settings.upsample_rates)
    common: dict[str, object] = {
        "out_channels": 1, "use_weight_norm": True, "use_causal_conv": settings.causal,
    }  # fmt: skip
    if isinstance(settings, ParallelWaveGANConfig):
        return "ParallelWaveGANGenerator", common | {
            "in_channels": 1, "kernel_size": settings.kernel_size,
            "layers": settings.cycles * settings.layers_per_cycle, "stacks": settings.cycles,
            "residual_channels": settings.residual_channels,
            "gate_channels": settings.gate_channels, "skip_channels": settings.skip_channels,
            "aux_channels": mel.n_mels, "aux_context_window": settings.condition_context,
            "dropout": 0.0, "upsample_net": "ConvInUpsampleNetwork",
            "upsample_params": {"upsample_scales": rates},
        }  # fmt: skip
    common |= {"in_channels": mel.n_mels, "channels": settings.channels, "upsample_scales": rates}
    if isinstance(settings, MelGANConfig):
        if settings.channels < settings.hop_length:
            raise FormatError(
                f"parallel-wavegan cannot hold this model: its MelGAN needs at least as many "
                f"channels as samples a frame, {settings.hop_length}, and has {settings.channels}"
            )
        pads = {ours: theirs for theirs, ours in parallel_wavegan.PADDINGS.items()}
        return "MelGANGenerator", common | {
            "kernel_size": settings.kernel_size, "stacks": settings.stacks,
            "stack_kernel_size": settings.stack_kernel_size,
            "pad": pads.get(settings.padding, "ConstantPad1d"),
        }  # fmt: skip
    return "HiFiGANGenerator", common | {
        "kernel_size": 7, "upsample_kernel_sizes": list(settings.upsample_kernel_sizes),
        "resblock_kernel_sizes": list(settings.resblock_kernel_sizes),
        "resblock_dilations": [list(one) for one in settings.resblock_dilations],
        "use_additional_convs": settings.resblock == "1",
    }  # fmt: skip


def _unheard(name: str, settings: Upsampled) -> dict[str, Tensor]:
    assert isinstance(settings, ParallelWaveGANConfig), "no other has an output unheard"
    inputs, outputs = settings.gate_channels // 2, settings.residual_channels
    weight = torch.full((outputs, inputs, 1), 1 / inputs)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}


def _normed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split each weight into gain and direction, as both programs do: along its first axis."""
    axes = {key.removesuffix(".weight"): 0 for key in state if key.endswith(".weight")}
    return convert_state_dict(state, "hook", axes=axes)


def _wavenet_vocoder(
    settings: ModelConfig, mel: MelSpec, state: dict[str, Tensor], folder: Path
) -> None:
    values = hparams(settings, mel)
    (folder / "hparams.json").write_text(json.dumps(values, indent=2) + "\n")
    content = {
        "state_dict": weights(settings, mel, state), "optimizer": None, "global_step": 0,
        "global_epoch": 0, "global_test_step": 0,
    }  # fmt: skip
    torch.save(content, folder / "checkpoint_step000000000.pth")
    _save_statistics(mel, folder)


def _save_statistics(mel: MelSpec, folder: Path) -> None:
    spelt = _per_band(mel)
    np.save(folder / "stats.npy", np.array([spelt.mean, spelt.scale], np.float64))


Write = Callable[[ModelConfig, MelSpec, dict[str, Tensor], Path], None]
FAMILIES: dict[str, tuple[Write, Callable[[Path], Found]]] = {
    "hifigan": (_hifigan, hifigan.read),
    "parallel-wavegan": (_parallel_wavegan, parallel_wavegan.read),
    "wavenet_vocoder": (_wavenet_vocoder, wavenet_vocoder.read),
}
