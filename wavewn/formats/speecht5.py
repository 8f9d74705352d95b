"""HiFi-GAN as Hugging Face's transformers has it (SpeechT5HifiGan and its relatives).

    config.json                             model_type "hifigan", sizes
    model.safetensors or pytorch_model.bin  plain weights; `upsampler.` is our `ups.`

Two buffers, `mean` and `scale`, normalise the mel inside the model. Here they belong to the
definition of the mel, so that a mel of the model is normalised once and by whoever makes it;
`--mel-from speecht5-16k` takes mels from before that.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wavewn.audio.mel_presets import preset
from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import FormatError
from wavewn.formats.found import Found
from wavewn.formats.hifigan import check_bands, network_settings, plain_state
from wavewn.formats.plain import folded, folder_of, read_json, read_tensors, state_at

LOOKS_FOR = 'transformers (config.json with model_type "hifigan", beside its weights)'
FAMILY = "HiFi-GAN of transformers"
CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
STATISTICS: tuple[str, ...] = ("mean", "scale")
SLOPE = 0.1
PRESET = "speecht5-16k"


def recognise(path: Path) -> bool:
    """Tell whether config.json is of such a model."""
    try:
        config = read_json(folder_of(path) / CONFIG)
    except FormatError:
        return False
    return config.get("model_type") == "hifigan" and "model_in_dim" in config


def read(path: Path) -> Found:
    """Read the folder of a model, or a file in it."""
    folder = folder_of(path)
    config = read_json(folder / CONFIG)
    if config.get("leaky_relu_slope", SLOPE) != SLOPE:
        raise FormatError(f"{path}: has leaky_relu_slope {config['leaky_relu_slope']}, not {SLOPE}")
    file = next((folder / one for one in WEIGHTS if (folder / one).is_file()), None)
    if file is None:
        raise FormatError(f"{folder}: holds neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    tensors = dict(_tensors(file))
    statistics: dict[str, Tensor] = {key: tensors.pop(key) for key in STATISTICS if key in tensors}
    named = {key.replace("upsampler.", "ups.", 1): value for key, value in tensors.items()}
    state = plain_state(named, file)
    settings = network_settings(
        state,
        path,
        rates=config.get("upsample_rates", [4, 4, 4, 4]),
        kernels=config.get("upsample_kernel_sizes", [8, 8, 8, 8]),
        channels=config.get("upsample_initial_channel", 512),
        block_kernels=config.get("resblock_kernel_sizes", [3, 7, 11]),
        dilations=config.get("resblock_dilation_sizes", [[1, 3, 5]] * 3),
        whole_dilations=True,
    )
    notes = [f"settings from {CONFIG}, weights from {file.name}"]
    bands = check_bands(state, config.get("model_in_dim"), path)
    mel = dataclasses.replace(
        preset(PRESET),
        sample_rate=config.get("sampling_rate", 16000),
        hop_length=settings.hop_length,
        n_mels=bands,
    )
    if mel != preset(PRESET):
        notes.append(
            f"{CONFIG} does not define the mels; assumed are those of SpeechT5 (log10, "
            f"{mel.f_min:g} to {mel.f_max:g} Hz) at {mel.sample_rate} Hz: check it"
        )
    if config.get("normalize_before", True):
        mel = _normalised(mel, statistics, file)
        notes.append("mean and scale of the model went into the definition of its mels")
    return Found(FAMILY, settings, mel, state, notes=notes)


def _normalised(mel: MelSpec, statistics: Mapping[str, Tensor], file: Path) -> MelSpec:
    """Take the model's own normalisation into the mel."""
    if len(statistics) < 2:
        raise FormatError(f"{file}: normalises its mels but has no mean and scale")
    values = folded(statistics, file)
    mean, scale = (tuple(values[key].flatten().tolist()) for key in ("mean", "scale"))
    return dataclasses.replace(mel, mean=mean, scale=scale)


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".bin":
        return state_at(read_tensors(file), file, ())
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file}: cannot be read ({error}); copy it again") from None
