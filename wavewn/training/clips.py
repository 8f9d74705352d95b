"""Clips for TensorBoard: the beginning of some validation utterances, generated and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.bundle import Bundle, fresh_model, with_weights
from wavewn.config import ModelConfig
from wavewn.data.crops import read_at, samples_at
from wavewn.data.module import CropsModule
from wavewn.nn.weight_norm import folded_state_dict


@dataclass(frozen=True)
class Clip:
    """A stretch of a real recording.

    Attributes:
        name: Of the file.
        audio: [samples].
        mel: [bands, frames].
        speaker: Name, or "".
    """

    name: str
    audio: Tensor
    mel: Tensor
    speaker: str


def read_clips(data: CropsModule, count: int, seconds: float) -> list[Clip]:
    """Read the beginnings of the first validation utterances."""
    spec = data.spec
    clips = []
    for utterance in data.valid[:count]:
        wanted = min(int(seconds * spec.sample_rate), samples_at(utterance, spec.sample_rate))
        audio = read_at(utterance, spec.sample_rate, 0, max(wanted, spec.hop_length))
        mel = mel_spectrogram(audio, spec)[0]
        clips.append(Clip(utterance.path.stem, audio, mel, utterance.speaker))
    return clips


def generate(
    model: nn.Module,
    settings: ModelConfig,
    spec: MelSpec,
    clips: Sequence[Clip],
    speakers: Sequence[str],
) -> list[Tensor]:
    """Generate the audio [samples] of each clip, on the CPU and always with seed 0.

    The model, with weight norm, is not changed: a fresh plain one takes its folded weights.
    """
    from wavewn.vocoder import Vocoder

    weights = {key: value.cpu() for key, value in folded_state_dict(model).items()}
    plain = with_weights(fresh_model(settings, spec), weights)
    vocoder = Vocoder(Bundle(plain, spec, list(speakers), {}))
    lengths = [clip.mel.shape[1] for clip in clips]
    mel = torch.full((len(clips), spec.n_mels, max(lengths)), spec.log_floor)
    for row, clip in zip(mel, clips, strict=True):
        row[:, : clip.mel.shape[1]] = clip.mel
    who = [clip.speaker for clip in clips] if speakers else None
    audio = vocoder.synthesize(mel, lengths=lengths, speaker=who, seed=0)
    return [
        row[: length * spec.hop_length] for row, length in zip(audio.cpu(), lengths, strict=True)
    ]


def spectrogram_picture(audio: Tensor, spec: MelSpec) -> np.ndarray:
    """Draw a mel spectrogram as grey levels [bands, frames, 1], low frequencies below."""
    mel = mel_spectrogram(audio, spec)[0].flip(0)
    low = spec.log_floor
    levels = (mel - low) / (mel.max() - low).clamp_min(1e-6)
    return (255 * levels.clamp(0, 1)).to(torch.uint8).numpy()[..., None]
