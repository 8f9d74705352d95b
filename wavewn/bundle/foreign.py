"""Checkpoints of other programs: read safely, and told apart by the names of their weights."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wavewn.audio.mel_files import KEYS
from wavewn.errors import BundleError
from wavewn.torch_file import load_torch_file

STATES = (("generator",), ("model", "generator"), ("state_dict",), ("model",), ())
FAMILIES = {  # all of these occur in the names of its weights
    "HiFi-GAN of ParallelWaveGAN": ("input_conv.", "upsamples.", "blocks."),
    "BigVGAN": ("conv_pre.", "ups.", "activation_post."),
    "HiFi-GAN": ("conv_pre.", "ups.", "resblocks."),
    "HiFi-GAN of SpeechT5": ("conv_pre.", "upsampler.", "resblocks."),
    "Parallel WaveGAN": ("first_conv.", "conv_layers.", "conv1x1_aux"),
    "WaveNet of wavenet_vocoder": ("first_conv.", "conv_layers.", "conv1x1_skip"),
    "MelGAN of ParallelWaveGAN": ("melgan.",),
    "WaveGlow": ("WN.", "convinv."),
    "Vocos": ("backbone.convnext.", "head.out."),
}
SPELLINGS = {
    "weight_g": "weight norm as weight_g, weight_v",
    "parametrizations.weight.original0": "weight norm as a parametrization",
}


def read_checkpoint(path: Path) -> Any:
    """Read a file of torch's, whosever it is, without running any of it.

    Raises:
        BundleError: It is none, is broken, or holds more than tensors and plain values.
    """
    try:
        return load_torch_file(path)
    except pickle.UnpicklingError:
        raise BundleError(
            f"{path}: no torch file, or one that holds more than tensors and plain values; "
            "pickled code is never run"
        ) from None
    except ValueError as error:
        raise BundleError(f"{path}: cannot be read as a torch file ({error})") from None


def holds_mel(content: Any) -> bool:
    """Tell whether a torch file may hold a mel: a tensor, alone or under a mel's name."""
    if not isinstance(content, Mapping):
        return True
    return len(content) == 1 and not _states(content) or any(key in content for key in KEYS)


def describe_foreign(path: Path, content: Any) -> dict[str, Any]:
    """Tell whose checkpoint this is, and what its weights are.

    Raises:
        BundleError: It holds no weights.
    """
    states = _states(content)
    if not states:
        raise BundleError(f"{path}: holds no weights; expected a checkpoint or a bundle")
    weights = {str(key): v for key, v in states[0].items() if isinstance(v, Tensor)}
    names = " ".join(weights)
    family = next((f for f, parts in FAMILIES.items() if all(p in names for p in parts)), "unknown")
    spelling = next((text for key, text in SPELLINGS.items() if key in names), "plain weights")
    return {
        "kind": "checkpoint of another program",
        "family": f"{family}, by the names of its weights",
        "weights": f"{len(weights)} tensors, {sum(v.numel() for v in weights.values()):,} values",
        "weight norm": spelling,
        "holds": [str(key) for key in list(content)[:12]],
        "not finite": [key for key, v in weights.items() if not bool(v.isfinite().all())],
        "note": "it tells nothing of the mels that it reads; look into the settings beside it",
    }


def _states(content: Any) -> list[Mapping[Any, Any]]:
    """Find the dicts with weights, the generator's first."""
    found = []
    for place in STATES:
        state = content
        for key in place:
            state = state.get(key) if isinstance(state, Mapping) else None
        if isinstance(state, Mapping) and sum(isinstance(v, Tensor) for v in state.values()) > 1:
            found.append(state)
    return found
