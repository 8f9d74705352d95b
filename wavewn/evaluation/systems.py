"""The systems that stand in an evaluation: vocoders, Griffin-Lim, and a quantised recording.

Each function makes one that maps recordings `[samples]` to copies of nearly the same length
(see `compare.System`). All read the same mels: those of the recordings as they are given, which
went through the chain of the MelSpec already.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavewn.audio.companding import de_emphasis, mu_law_decode, mu_law_encode, pre_emphasis
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.evaluation.compare import System
from wavewn.evaluation.griffin_lim import griffin_lim

if TYPE_CHECKING:
    from wavewn.vocoder import Vocoder


def griffin_lim_system(spec: MelSpec, seed: int = 0) -> System:
    """Invert the recordings' mels without learning."""

    def copy(recordings: list[Tensor]) -> list[Tensor]:
        return [griffin_lim(mel_spectrogram(one, spec)[0], spec, seed=seed) for one in recordings]

    return copy


def mu_law_system(classes: int, emphasis: float) -> System:
    """Quantise the recordings themselves: the best that a mu-law head could do."""

    def copy(recordings: list[Tensor]) -> list[Tensor]:
        return [mu_law_copy(one, classes, emphasis) for one in recordings]

    return copy


def mu_law_copy(audio: Tensor, classes: int, emphasis: float) -> Tensor:
    """Send [samples] through pre-emphasis, mu-law classes, and back."""
    quantised = mu_law_encode(pre_emphasis(audio[None], emphasis), classes)
    return de_emphasis(mu_law_decode(quantised, classes), emphasis)[0]


def vocoder_system(
    vocoder: "Vocoder", *, temperature: float = 1.0, seed: int = 0, speaker: int | str | None = None
) -> System:
    """Synthesize the recordings' mels, all of a call in one batch."""
    spec = vocoder.mel_spec

    def copy(recordings: list[Tensor]) -> list[Tensor]:
        mels = [mel_spectrogram(one, spec)[0] for one in recordings]
        lengths = [mel.shape[1] for mel in mels]
        batch = torch.full((len(mels), spec.n_mels, max(lengths)), spec.log_floor)
        for row, mel in zip(batch, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        audio = vocoder.synthesize(
            batch, lengths=lengths, speaker=speaker, temperature=temperature, seed=seed
        )
        return [
            row[: frames * spec.hop_length].float().cpu()
            for row, frames in zip(audio, lengths, strict=True)
        ]

    return copy
