"""Clips for TensorBoard: the beginning of some validation utterances, generated and drawn."""

import numpy as np
import torch
from torch import Tensor

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.data.crops import read_at, samples_at
from wavewn.data.module import CropsModule
from wavewn.models.wavenet import WaveNet
from wavewn.nn.weight_norm import folded_state_dict, load_state


def make_clips(
    data: CropsModule, count: int, seconds: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the beginnings of the first validation utterances.

    Returns:
        Mels [bands, frames] and audio [samples], by file name.
    """
    mels, references = {}, {}
    spec = data.spec
    for utterance in data.valid[:count]:
        wanted = min(int(seconds * spec.sample_rate), samples_at(utterance, spec.sample_rate))
        audio = read_at(utterance, spec.sample_rate, 0, max(wanted, spec.hop_length))
        mels[utterance.path.stem] = mel_spectrogram(audio, spec)[0]
        references[utterance.path.stem] = audio
    return mels, references


def plain_copy(model: WaveNet, spec: MelSpec) -> WaveNet:
    """Build the model anew, on the CPU, with weight norm folded."""
    copy = WaveNet(model.settings, spec.n_mels, spec.hop_length, spec.log_floor)
    load_state(copy, {key: value.cpu() for key, value in folded_state_dict(model).items()})
    return copy.eval().requires_grad_(False)


@torch.no_grad()
def generate(model: WaveNet, spec: MelSpec, mel: Tensor) -> Tensor:
    """Generate audio [samples] on the CPU from a mel [bands, frames], always with seed 0."""
    from wavewn.bundle import Bundle
    from wavewn.vocoder import Vocoder

    speakers = [str(index) for index in range(model.settings.speakers)]
    bundle = Bundle(plain_copy(model, spec), spec, speakers, {})
    speaker = speakers[0] if speakers else None
    vocoder: Vocoder = Vocoder(bundle)
    return torch.as_tensor(vocoder.synthesize(mel, speaker=speaker, seed=0)).reshape(-1)


def spectrogram_picture(audio: Tensor, spec: MelSpec) -> np.ndarray:
    """Draw a mel spectrogram as grey levels [bands, frames, 1], low frequencies below."""
    mel = mel_spectrogram(audio, spec)[0].flip(0)
    low = spec.log_floor
    levels = (mel - low) / (mel.max() - low).clamp_min(1e-6)
    return (255 * levels.clamp(0, 1)).to(torch.uint8).numpy()[..., None]
