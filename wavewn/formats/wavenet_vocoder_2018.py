"""Settings of wavenet_vocoder as it was in 2018: its mels and its upsampling were others.

Mels are decibels in [0, 1], of frames that begin at their hop. Its own files hold three frames
more, over the zeros that stood before each recording; a model that reads such a mel speaks after
as much silence. The names of weights are today's, but for the upsampling.

Source: audio.py, ljspeech.py, wavenet_vocoder/ of the repository at commit 2092a64, and python/
lws.pyx of lws at its version 1.0.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import FormatError
from wavewn.formats.arguments import Arguments
from wavewn.formats.wavenet_vocoder_weights import Network

ADDED = 0.01  # to a band's magnitude, before 26 February 2018


def read_old_mel(values: Arguments, bands: int) -> tuple[MelSpec, str]:
    """Give the definition of the mels, and what was assumed of it."""
    rate, n_fft, hop = (
        values.whole("sample_rate"),
        values.whole("fft_size"),
        values.whole("hop_size"),
    )
    if n_fft % hop:
        raise values.wrong("hop_size", hop, f"what divides fft_size, {n_fft}")
    lowest, reference = values.number("min_level_db"), values.number("ref_level_db")
    if not lowest < 0 or abs(reference) > 200 or lowest < -400:
        raise values.wrong("min_level_db", lowest, "decibels from -400 to 0, and a ref_level_db")
    floor = 10 ** ((max(reference, 0.0) + lowest) / 20)
    clipping = values.switch("allow_clipping_in_normalization", False)
    assumed = "its mels hold the magnitudes of bands at a floor, as since 26 February 2018"
    if not clipping:
        floor = ADDED
        assumed = f"its mels add {ADDED} to the magnitudes of bands, as before 26 February 2018"
    mel = MelSpec(
        rate, n_fft, hop, n_fft, bands, values.number("fmin"), values.number("fmax", rate / 2),
        grid="ahead", pad_mode="constant", window="root-hann", log_base="10",
        floor_kind="clamp" if clipping else "add", floor=floor, mean=(reference + lowest) / 20,
        scale=-lowest / 20,
    )  # fmt: skip
    told = "allow_clipping_in_normalization"
    return mel, f"{assumed} ({told} is {'true' if clipping else 'false'}): check it"


def with_old_upsampling(network: Network, values: Arguments, path: Path) -> Network:
    """Add how it stretches mels and sums skips."""
    skip_sum: Literal["halved", "plain"] = "halved" if values.switch("legacy", True) else "plain"
    if not values.switch("upsample_conditional_features", False):
        return replace(network, old=True, skip_sum=skip_sum)
    taps, rates = values.whole("freq_axis_kernel_size", 3), values.wholes("upsample_scales")
    if not taps % 2:
        raise FormatError(f"{path}: freq_axis_kernel_size is {taps}, which gives a band too many")
    return replace(network, old=True, skip_sum=skip_sum, rates=rates, band_taps=taps)
