"""Griffin-Lim: audio from a mel spectrogram without learning, the baseline beside every model.

Two inversions, both librosa's: from mel bands to a linear magnitude by non-negative least
squares, and from magnitude to audio by 60 iterations of fast Griffin-Lim. librosa knows only
centred frames, frame t about sample t * hop; a half-hop or causal mel has them elsewhere. So the
magnitude is extended by repeating its outer frames until it covers the whole utterance,
inverted as if centred, and cut where sample 0 truly lies.

Source:
    Perraudin, Balazs and Sondergaard 2013, "A fast Griffin-Lim algorithm".
"""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavewn.audio.mel import MelSpec, mel_filters
from wavewn.errors import MelError

ITERATIONS = 60
MOMENTUM = 0.99


def griffin_lim(mel: Tensor, spec: MelSpec, *, seed: int = 0) -> Tensor:
    """Invert one mel spectrogram.

    Args:
        mel: [bands, frames] as `spec` defines it.
        spec: The mel's definition. Its chain (peak, filters, gain) is not undone.
        seed: Of the random phases that the iterations start from.

    Returns:
        [frames * hop_length] float32; sample 0 is sample 0 of the recording.

    Raises:
        MelError: The mel has another shape or no frame.
    """
    import librosa

    magnitude = _magnitude(mel, spec)
    hop, frames = spec.hop_length, mel.shape[-1]
    first_centre = spec.n_fft // 2 - spec.padding[0]
    before = max(0, -(-first_centre // hop))  # frames missing before the first, rounded up
    skip = before * hop - first_centre  # where true sample 0 lies in the inversion
    after = max(0, 1 - (-skip // hop) - before)
    magnitude = np.pad(magnitude, ((0, 0), (before, after)), mode="edge")
    window: Any = "hann"
    if spec.window != "hann":
        window = mel_filters(spec, torch.device("cpu"))[1].numpy()
    # librosa 1.0 renamed random_state to rng
    renamed = "rng" in inspect.signature(librosa.griffinlim).parameters
    start: dict[str, Any] = {"rng" if renamed else "random_state": seed}
    audio = librosa.griffinlim(
        magnitude,
        n_iter=ITERATIONS,
        momentum=MOMENTUM,
        n_fft=spec.n_fft,
        hop_length=hop,
        win_length=spec.win_length,
        window=window,
        **start,
    )
    return torch.from_numpy(audio[skip : skip + frames * hop].astype(np.float32))


def _magnitude(mel: Tensor, spec: MelSpec) -> np.ndarray:
    """Undo affine, logarithm, floor and filters: [n_fft // 2 + 1, frames]."""
    if mel.ndim != 2 or mel.shape[0] != spec.n_mels or mel.shape[1] == 0:
        raise MelError(
            f"Griffin-Lim expects a mel of [{spec.n_mels} bands, frames], got {list(mel.shape)}"
        )
    import librosa

    mean, scale = (mel.new_tensor(value).reshape(-1, 1) for value in (spec.mean, spec.scale))
    linear = mel * scale + mean
    if spec.log_base is not None:
        linear = linear.exp() if spec.log_base == "e" else 10**linear
    if spec.floor_kind == "add":
        linear = linear - spec.floor
    magnitude: np.ndarray = librosa.feature.inverse.mel_to_stft(
        linear.clamp(min=0).numpy(),
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        power=spec.power,
        fmin=spec.f_min,
        fmax=spec.f_max,
        htk=spec.mel_scale == "htk",
        norm=spec.norm,
    )
    return magnitude
