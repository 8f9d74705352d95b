"""The mel spectrograms of the known vocoder families, by name.

Each entry is what the family's own front end computes, as far as a `MelSpec` can say it. What it
cannot say, and how much that matters:

- Some families store their mels as [frames, bands]: `FRAMES_FIRST` names them.
- Parallel WaveGAN and SpeechT5 normalise with statistics that come with each model. Their presets
  hold the mel before that; add them with `dataclasses.replace(spec, mean=..., scale=...)`.
- NeMo's Hann window is symmetric, not periodic: the values differ by 1e-3 nats on average and by
  0.02 at most.
- r9y9's high-pass at 70 Hz is a filter of 255 taps that also delays the audio by 127 samples; ours
  is a Butterworth filter. They differ by 0.1 (log10) in the lowest band, by 0.005 on average. Its
  gain and pre-emphasis come after the mel was taken, so they belong to its model, not to its mel.
  Its mels of 2018 begin three frames earlier, over silence, and it clips them above, at a band
  magnitude of 10; those taken before 26 February 2018 add 0.01 where these hold at 1e-4.
- coqui clips above at a band magnitude of 10, which speech in [-1, 1] does not reach. Its settings
  differ from model to model; the preset is the default. Its models "for HiFi-GAN mels"
  (spec_gain 1, np.log, no signal_norm) read "tacotron2".
- HiFi-GAN scales each training file to a peak of 0.95, but not at inference, so its preset leaves
  the level alone.
"""

from __future__ import annotations

from typing import TypeAlias

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import ConfigError

Sizes: TypeAlias = tuple[int, int, int, int, int, float, float]

# Sample rate, n_fft, hop, win, bands, f_min, f_max.
LJ: Sizes = (22050, 1024, 256, 1024, 80, 0.0, 8000.0)
TACOTRON2 = MelSpec(*LJ, grid="centred")


def _hifigan(sizes: Sizes) -> MelSpec:
    return MelSpec(*sizes, magnitude_epsilon=1e-9)


def _parallel_wavegan(sizes: Sizes) -> MelSpec:
    return MelSpec(*sizes, grid="centred", log_base="10", floor=1e-10)


PRESETS: dict[str, MelSpec] = {
    "wavewn-16k": MelSpec(),
    "hifigan-22k": _hifigan(LJ),
    "univnet-24k": _hifigan((24000, 1024, 256, 1024, 100, 0.0, 12000.0)),
    "bigvgan-22k": _hifigan((22050, 1024, 256, 1024, 80, 0.0, 11025.0)),
    "bigvgan-22k-fmax8k": _hifigan(LJ),
    "bigvgan-24k": _hifigan((24000, 1024, 256, 1024, 100, 0.0, 12000.0)),
    "bigvgan-44k": _hifigan((44100, 2048, 512, 2048, 128, 0.0, 22050.0)),
    "tacotron2": TACOTRON2,
    "waveglow": TACOTRON2,
    "melgan-22k": TACOTRON2,  # seungwonpark's; descript's own is another
    "nemo-hifigan-22k": MelSpec(*LJ),
    "speechbrain-22k": TACOTRON2,
    "speechbrain-16k": MelSpec(16000, 1024, 256, 1024, 80, 0.0, 8000.0, grid="centred"),
    "parallel-wavegan-16k": _parallel_wavegan((16000, 1024, 256, 1024, 80, 80.0, 7600.0)),
    "parallel-wavegan-22k": _parallel_wavegan((22050, 1024, 256, 1024, 80, 80.0, 7600.0)),
    "parallel-wavegan-24k": _parallel_wavegan((24000, 2048, 300, 1200, 80, 80.0, 7600.0)),
    "wavenet-vocoder-22k": MelSpec(
        22050, 1024, 256, 1024, 80, 125.0, 7600.0, grid="centred", log_base="10", floor=1e-10,
        high_pass_hz=70.0,
    ),
    # (20 log10(x) - 20 + 100) / 100, clipped at 0
    "wavenet-vocoder-2018": MelSpec(
        22050, 1024, 256, 1024, 80, 125.0, 7600.0, grid="ahead", pad_mode="constant",
        window="root-hann", log_base="10", floor=1e-4, mean=-4.0, scale=5.0,
    ),
    "vocos-24k": MelSpec(
        24000, 1024, 256, 1024, 100, 0.0, 12000.0, mel_scale="htk", norm=None, grid="centred",
        floor=1e-7,
    ),
    "speecht5-16k": _parallel_wavegan((16000, 1024, 256, 1024, 80, 80.0, 7600.0)),
    # (20 log10(x) - 20 + 100) / 100 * 8 - 4, clipped at -4
    "coqui-22k": MelSpec(
        22050, 1024, 256, 1024, 80, 0.0, 11025.0, grid="centred", log_base="10", floor=1e-4,
        mean=-1.5, scale=0.625,
    ),
}  # fmt: skip

FRAMES_FIRST = frozenset(
    {
        "parallel-wavegan-16k",
        "parallel-wavegan-22k",
        "parallel-wavegan-24k",
        "wavenet-vocoder-22k",
        "wavenet-vocoder-2018",
        "speecht5-16k",
    }
)


def preset(name: str) -> MelSpec:
    """Give the mel definition of a family of vocoders.

    Raises:
        ConfigError: No preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"no mel preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
