import dataclasses
import json
import math

import pytest
import torch

from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.audio.mel_presets import PRESETS
from wavewn.errors import ConfigError

CAUSAL = MelSpec(grid="causal", pad_mode="constant")


@pytest.mark.parametrize("spec", [*map(MelSpec.preset, PRESETS), CAUSAL], ids=str)
def test_frames_is_what_the_spectrogram_has(spec):
    for samples in (1, 199, 200, 255, 256, 257, 1023, 1024, 5000, 5120):
        mel = mel_spectrogram(torch.zeros(samples), spec)
        assert mel.shape == (1, spec.n_mels, spec.frames(samples))


def test_grids_count_frames_as_the_families_do():
    assert MelSpec(grid="centred").frames(1999) == 10
    assert MelSpec(grid="half-hop").frames(1999) == 9
    assert CAUSAL.frames(2000) == 10


def test_the_default_is_our_own_preset_and_has_no_affine():
    spec = MelSpec.preset("wavewn-16k")
    assert spec == MelSpec()
    assert (spec.mean, spec.scale) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="'wavegrad'; there are wavewn-16k, hifigan-22k"):
        MelSpec.preset("wavegrad")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"sample_rate": 0}, "sample_rate must be at least 1"),
        ({"n_fft": 1024.0}, "n_fft must be an integer, got 1024.0"),
        ({"n_fft": None}, "n_fft must be an integer, got None"),
        ({"hop_length": (1, 2)}, "hop_length must be an integer"),
        ({"hop_length": 801}, "hop_length 801 exceeds win_length 800"),
        ({"win_length": 2048}, "win_length 2048 exceeds n_fft 1024"),
        ({"n_mels": True}, "n_mels must be an integer, got True"),
        ({"f_max": 8001.0}, "f_max 8001.0 Hz exceeds half the sample rate, 8000.0"),
        ({"f_min": 7000.0}, "f_min 7000.0 Hz is not below f_max 7000.0"),
        ({"f_min": -1.0}, "f_min must be at least 0"),
        ({"mel_scale": "bark"}, "mel_scale must be one of"),
        ({"norm": "peak"}, "norm must be one of"),
        ({"power": 0.0}, "power must be above 0"),
        ({"grid": "left"}, "grid must be one of"),
        ({"grid": "causal"}, "hear the future"),
        ({"pad_mode": "wrap"}, "pad_mode must be one of"),
        ({"magnitude_epsilon": -1e-9}, "magnitude_epsilon must be at least 0"),
        ({"log_base": "2"}, "log_base must be one of"),
        ({"floor_kind": "max"}, "floor_kind must be one of"),
        ({"floor": 0.0}, "logarithm needs a floor above 0"),
        ({"floor": math.nan}, "floor must be a finite number"),
        ({"mean": (0.0, 1.0)}, "n_mels = 80 of them"),
        ({"mean": ()}, "mean must be a finite number"),
        ({"scale": 0.0}, "scale must be above 0"),
        ({"peak": 1.5}, r"peak must lie in \(0, 1\]"),
        ({"high_pass_hz": 8000.0}, "high_pass_hz must lie between 0 and 8000.0"),
        ({"pre_emphasis": 1.0}, r"pre_emphasis must lie in \[0, 1\)"),
        ({"gain": 0.0}, "gain must be above 0"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(change, cause):
    with pytest.raises(ConfigError, match=cause):
        MelSpec(**change)


def test_to_dict_survives_json_and_comes_back():
    per_band = dataclasses.replace(
        MelSpec(), mean=tuple(range(80)), scale=(0.5,) * 80, peak=0.95, high_pass_hz=70.0, norm=None
    )
    for spec in (*map(MelSpec.preset, PRESETS), CAUSAL, per_band):
        back = MelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert back == spec and hash(back) == hash(spec)


def test_an_unknown_key_is_named():
    with pytest.raises(ConfigError, match="no field 'hop_size'.*hop_length"):
        MelSpec.from_dict({"hop_size": 256})


def test_log_floor_is_the_value_of_silence():
    affine = MelSpec(mean=tuple(float(i) for i in range(80)), scale=2.0)
    for spec in (*map(MelSpec.preset, PRESETS), MelSpec(log_base="10"), MelSpec(log_base=None),
                 MelSpec(floor_kind="add"), affine):  # fmt: skip
        silence = mel_spectrogram(torch.zeros(4000), spec)
        assert silence.min().item() == pytest.approx(spec.log_floor, rel=1e-6)
    assert MelSpec().log_floor == pytest.approx(math.log(1e-5))
