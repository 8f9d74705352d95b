"""Conversion between mel definitions commutes with the analysis, comes back, or says why not."""

import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from wavewn.audio.mel import MelSpec, mel_spectrogram, prepare_audio
from wavewn.audio.mel_convert import (
    bands_first,
    grid_shift,
    obstacles,
    shift_audio,
)
from wavewn.audio.mel_presets import PRESETS
from wavewn.errors import MelError, ShapeError

BANDS = 20
SMALL = MelSpec(8000, 256, 64, 200, BANDS, 60.0, 3500.0)
NATS = 5e-4  # what two float32 front ends differ by, and PRECISION, which convert allows itself

quick = settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def numbers(low, high):
    one = st.floats(low, high)
    return one | st.lists(one, min_size=BANDS, max_size=BANDS).map(tuple)


def spec_of(log_base, floor, mean, **rest):
    """Mend what cannot be: a log of 0, and small magnitudes that float32 loses beside a mean."""
    linear = log_base is None
    return dataclasses.replace(
        SMALL, log_base=log_base, floor=floor if linear else max(floor, 1e-9),
        mean=0.0 if linear else mean, **rest,
    )  # fmt: skip


convertible = st.builds(  # differ in nothing but what `convert` may change
    spec_of,
    log_base=st.sampled_from(["e", "10", None]),
    floor=st.sampled_from([0.0, 1e-9, 1e-7, 1e-5, 1e-4, 1e-2]),
    floor_kind=st.sampled_from(["clamp", "add"]),
    mean=numbers(-4, 1),
    scale=numbers(0.25, 3),
    norm=st.sampled_from(["slaney", None]),
    gain=st.sampled_from([0.1, 0.5, 1.0]),
)


@st.composite
def recordings(draw):
    """White noise of some level that falls to a quieter one or to digital silence."""
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    loud, quiet = draw(st.sampled_from([(0.2, 0.1), (0.1, 0.01), (0.1, 0.0), (0.0, 0.0)]))
    return torch.cat([noise[:1000] * loud, noise[1000:] * quiet])


def analysed(audio, spec):
    return mel_spectrogram(prepare_audio(audio, spec), spec)


def assert_same_mel(one, other, spec):
    """Compare before the statistics: logarithms by difference, linear magnitudes by ratio."""
    scale, mean = (torch.tensor(v).reshape(-1, 1) for v in (spec.scale, spec.mean))
    rtol, atol = (NATS, 1e-7) if spec.log_base is None else (0.0, NATS)
    assert_close(one * scale + mean, other * scale + mean, rtol=rtol, atol=atol)


@quick
@given(recordings(), convertible, convertible)
def test_conversion_commutes_with_analysis(audio, spec, to):
    mel = analysed(audio, spec)
    try:
        converted = spec.convert(mel, to=to)
    except MelError as error:
        assert "floor is" in str(error)  # nothing else may stand between these definitions
        return
    assert_same_mel(converted, analysed(audio, to), to)


@quick
@given(recordings(), convertible, convertible)
def test_a_conversion_that_keeps_the_floor_goes_and_comes_back(audio, spec, to):
    to = dataclasses.replace(
        to, floor=spec.floor, floor_kind=spec.floor_kind, norm=spec.norm, gain=spec.gain,
        log_base=to.log_base if spec.floor else spec.log_base,
    )  # fmt: skip
    mel = analysed(audio, spec)
    back = to.convert(spec.convert(mel, to=to), to=spec)
    assert_same_mel(back, mel, spec)


@quick
@given(recordings(), convertible, st.sampled_from([1.5, 10.0, 1e3]))
def test_a_clamped_floor_rises_always_and_sinks_where_no_value_rests_on_it(audio, spec, times):
    low = dataclasses.replace(spec, floor_kind="clamp", floor=max(spec.floor, 1e-9))
    high = dataclasses.replace(low, floor=low.floor * times)
    linear = dataclasses.replace(low, log_base=None, floor=0.0, mean=0.0, scale=1.0)
    mel = analysed(audio, low)
    raised = low.convert(mel, to=high)
    if bool((analysed(audio, linear) <= high.floor).any()):
        with pytest.raises(MelError, match="rest on the floor"):
            high.convert(raised, to=low)
    else:
        assert_same_mel(high.convert(raised, to=low), mel, low)


OTHER = {
    "sample_rate": (16000, "counted in other units"),
    "n_fft": (512, "bins under the filters"),
    "hop_length": (50, "other times"),
    "win_length": (256, "bins under the filters"),
    "n_mels": (24, "inside a band is not known"),
    "f_min": (80.0, "inside a band is not known"),
    "f_max": (3600.0, "inside a band is not known"),
    "mel_scale": ("htk", "inside a band is not known"),
    "power": (2.0, "sum of energies"),
    "grid": ("centred", "would lie 32 samples earlier"),
    "window": ("root-hann", "bins under the filters"),
    "pad_mode": ("constant", "first 2 and last 2 frames"),
    "magnitude_epsilon": (1e-9, "nats at the floor"),
    "peak": (0.95, "how loud the file was"),
    "high_pass_hz": (70.0, "a filter acts on the audio"),
    "pre_emphasis": (0.5, "a filter acts on the audio"),
}
FREE = {"norm", "log_base", "floor_kind", "floor", "mean", "scale", "gain"}


@pytest.mark.parametrize("field", OTHER)
def test_what_a_mel_does_not_tell_is_refused_with_the_field_and_the_reason(field):
    value, reason = OTHER[field]
    to = dataclasses.replace(SMALL, **{field: value})
    mel = mel_spectrogram(0.1 * torch.randn(2000), SMALL)
    with pytest.raises(MelError, match=f"exactly, {field} is .* should be {value}: .*{reason}"):
        SMALL.convert(mel, to=to)


def test_every_field_is_either_free_or_refused():
    assert OTHER.keys() | FREE == {entry.name for entry in dataclasses.fields(MelSpec)}


@pytest.mark.parametrize("field", ["grid", "pad_mode", "magnitude_epsilon"])
def test_a_confined_obstacle_can_be_accepted(field):
    to = dataclasses.replace(SMALL, log_base="10", **{field: OTHER[field][0]})
    (found,) = obstacles(SMALL, to)
    assert found.field == field and found.bounded
    accepted = dataclasses.replace(SMALL, **{field: getattr(to, field)})
    mel = mel_spectrogram(0.1 * torch.randn(2000), SMALL)
    assert_close(accepted.convert(mel, to=to), mel / math.log(10))


def test_all_obstacles_are_named_at_once():
    mel = mel_spectrogram(0.1 * torch.randn(9000), MelSpec.preset("vocos-24k"))
    with pytest.raises(MelError, match="mel_scale is htk and should be slaney.*grid is centred"):
        MelSpec.preset("vocos-24k").convert(mel, to=MelSpec.preset("bigvgan-24k"))


def test_an_epsilon_stays_within_the_bound_that_its_refusal_states():
    spec, to = MelSpec.preset("nemo-hifigan-22k"), MelSpec.preset("hifigan-22k")
    (found,) = obstacles(spec, to)
    assert "up to 0.14 nats" in found.reason
    audio = torch.randn(22050) * torch.logspace(-6, -1, 22050)
    difference = (mel_spectrogram(audio, to) - mel_spectrogram(audio, spec)).abs().max()
    assert 0 < difference < 0.14


def test_what_rests_on_a_floor_cannot_be_brought_below_it():
    audio = 0.1 * torch.randn(2000)
    low = dataclasses.replace(SMALL, floor=1e-10)
    assert_close(SMALL.convert(mel_spectrogram(audio, SMALL), to=low), mel_spectrogram(audio, low))
    audio[:1000] = 0
    with pytest.raises(MelError, match=r"floor is 1e-05 \(clamp\) .* 1e-10 .*: 2[0-9]0 of 620 val"):
        SMALL.convert(mel_spectrogram(audio, SMALL), to=low)
    added = dataclasses.replace(SMALL, floor_kind="add", floor=1e-2)
    with pytest.raises(MelError, match="are drowned in the floor"):
        added.convert(mel_spectrogram(audio, added), to=low)


def test_parallel_wavegan_with_statistics_reads_as_speecht5_and_back():
    pwg = MelSpec.preset("parallel-wavegan-16k")
    stats = dataclasses.replace(pwg, mean=tuple(i / 80 - 2 for i in range(80)), scale=(0.7,) * 80)
    mel = mel_spectrogram(0.1 * torch.randn(3, 8000), stats)
    plain = stats.convert(mel, to=MelSpec.preset("speecht5-16k"))
    assert plain.shape == mel.shape and plain.dtype == torch.float32
    assert_close(pwg.convert(plain, to=stats), mel, rtol=0, atol=1e-5)


def test_a_prediction_that_undershoots_keeps_doing_so_where_the_floor_stays():
    mel = mel_spectrogram(torch.zeros(2000), SMALL) - 0.5
    log10 = dataclasses.replace(SMALL, log_base="10", mean=-2.0, scale=2.0)
    assert_close(SMALL.convert(mel, to=log10), (mel / math.log(10) + 2) / 2)
    higher = dataclasses.replace(SMALL, floor=1e-4)
    assert_close(SMALL.convert(mel, to=higher), torch.full_like(mel, math.log(1e-4)))


def test_a_mel_that_is_not_what_it_claims_is_refused_before_anything_else():
    with pytest.raises(MelError, match="transposed"):
        SMALL.convert(mel_spectrogram(torch.randn(9000), SMALL).mT, to=SMALL)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_converts_to_itself_unchanged(name):
    spec = MelSpec.preset(name)
    mel = mel_spectrogram(0.1 * torch.randn(spec.sample_rate // 4), spec)
    assert_close(spec.convert(mel, to=spec), mel, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["tacotron2", "wavewn-16k"])
@pytest.mark.parametrize("grids", [("centred", "half-hop"), ("half-hop", "centred")])
def test_another_grid_is_the_same_mel_of_shifted_audio(name, grids):
    spec, to = (dataclasses.replace(MelSpec.preset(name), grid=grid) for grid in grids)
    half = spec.hop_length // 2
    assert grid_shift(spec, to) == (half if grids[1] == "half-hop" else -half)
    audio = 0.1 * torch.randn(10000)
    moved = mel_spectrogram(shift_audio(audio, spec, to), spec)
    meant = mel_spectrogram(audio, to)
    inside = slice(4, 35)  # away from the padding
    assert_close(moved[..., inside], meant[..., inside], rtol=0, atol=1e-4)
    assert (mel_spectrogram(audio, spec)[..., inside] - meant[..., inside]).abs().max() > 0.5


def test_a_causal_grid_is_the_same_mel_of_shifted_audio_too():
    spec = dataclasses.replace(SMALL, pad_mode="constant")
    causal = dataclasses.replace(spec, grid="causal")
    assert grid_shift(spec, causal) == 64 - 128 - 32
    audio = 0.1 * torch.randn(2000)
    moved = mel_spectrogram(shift_audio(audio, spec, causal), spec)
    assert_close(moved[..., 4:28], mel_spectrogram(audio, causal)[..., 4:28], rtol=0, atol=1e-4)
    with pytest.raises(ShapeError, match="40 samples cannot be moved by 96"):
        shift_audio(audio[:40], causal, spec)


def test_frames_first_is_turned_and_what_cannot_be_told_is_refused():
    mel = torch.randn(2, BANDS, 31)
    assert torch.equal(bands_first(mel.mT, BANDS), mel)
    assert bands_first(mel, BANDS) is mel
    with pytest.raises(MelError, match="does not tell bands from frames"):
        bands_first(mel[..., :BANDS], BANDS)
    with pytest.raises(MelError, match=r"expected 80 bands on one of .* \[2, 20, 31\]"):
        bands_first(mel, 80)
