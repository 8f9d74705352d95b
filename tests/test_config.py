"""Settings are checked where they are made, and an error names the field."""

import dataclasses
import json

import pytest

from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw, WaveNetConfig, wavenet_config
from wavewn.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MuLaw(classes=1), "MuLaw.classes must be at least 2, got 1"),
        (lambda: LogisticMixture(components=0), "LogisticMixture.components must be at least 1"),
        (lambda: LogisticMixture(log_scale_min=float("nan")), "log_scale_min must be finite"),
        (lambda: Gaussian(log_scale_min=float("inf")), "Gaussian.log_scale_min must be finite"),
        (lambda: Condition(channels=0), "Condition.channels must be at least 1"),
        (lambda: Condition(layers=0), "Condition.layers must be at least 1"),
        (lambda: Condition(kernel_size=0), "Condition.kernel_size must be at least 1"),
        (lambda: Condition(look_ahead=-1), "Condition.look_ahead must be at least 0"),
        (lambda: Condition(look_ahead=5), "look_ahead is 5 frames, but 2 layers of 3 taps"),
        (lambda: Condition(upsampling="cubic"), "nearest, linear or transposed, got 'cubic'"),
        (lambda: WaveNetConfig(residual_channels=0), "residual_channels must be at least 1"),
        (lambda: WaveNetConfig(skip_channels=0), "skip_channels must be at least 1"),
        (lambda: WaveNetConfig(head_channels=0), "head_channels must be at least 1"),
        (lambda: WaveNetConfig(kernel_size=0), "kernel_size must be at least 1"),
        (lambda: WaveNetConfig(cycles=0), "cycles must be at least 1"),
        (lambda: WaveNetConfig(layers_per_cycle=0), "layers_per_cycle must be at least 1"),
        (lambda: WaveNetConfig(longest_lag=256), "longest_lag is 256.*prediction_order above 0"),
        (
            lambda: WaveNetConfig(head=Gaussian(), prediction_order=8, longest_lag=7),
            "expected at least 8 samples",
        ),
        (lambda: WaveNetConfig(prediction_order=-1), "prediction_order must be at least 0"),
        (lambda: WaveNetConfig(prediction_order=16), "classes of a mu-law head cannot be moved"),
        (lambda: WaveNetConfig(speakers=-1), "speakers must be at least 0"),
        (lambda: WaveNetConfig(speaker_channels=0), "speaker_channels must be at least 1"),
        (lambda: WaveNetConfig(pre_emphasis=1.0), r"pre_emphasis must lie in \[0, 1\), got 1.0"),
        (lambda: WaveNetConfig(pre_emphasis=float("nan")), "pre_emphasis must lie in"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_least_settings_are_accepted():
    Condition(channels=1, layers=1, kernel_size=1, look_ahead=0)
    Condition(layers=2, kernel_size=3, look_ahead=4)
    least = {f.name: 1 for f in dataclasses.fields(WaveNetConfig) if f.type is int}
    predicted = least | {"longest_lag": 8}
    WaveNetConfig(**predicted, pre_emphasis=0.0, head=Gaussian())
    plain = least | {"longest_lag": 0, "prediction_order": 0}
    WaveNetConfig(**plain, head=MuLaw(classes=2))


def test_dilations_double_within_a_cycle():
    config = WaveNetConfig(cycles=2, layers_per_cycle=3)
    assert config.dilations == (1, 2, 4, 1, 2, 4)


def test_settings_are_values():
    assert WaveNetConfig() == WaveNetConfig()
    assert hash(WaveNetConfig()) == hash(WaveNetConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        WaveNetConfig().cycles = 3


def test_kinds_tell_the_heads_apart_and_never_take_a_positional_argument():
    assert MuLaw(64) == MuLaw(classes=64)
    assert LogisticMixture(3).components == 3
    assert {h().kind for h in (MuLaw, LogisticMixture, Gaussian)} == {
        "mu-law",
        "logistic-mixture",
        "gaussian",
    }


def test_settings_survive_json():
    settings = WaveNetConfig(head=Gaussian(log_scale_min=-7.0), speakers=3, kernel_size=3)

    assert wavenet_config(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
    assert wavenet_config({"pre_emphasis": 0}).pre_emphasis == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"residual_chanels": 3}, "model has no setting 'residual_chanels'; its settings are cond"),
        ({"condition": {"layer": 3}}, "model.condition has no setting 'layer'"),
        ({"condition": 3}, "model.condition must be a group of settings"),
        ({"condition": {"upsampling": "cubic"}}, r"upsampling must be one of \['nearest'"),
        ({"head": {"classes": 3}}, r"model.head.kind must be one of mu-law, .*, got None"),
        ({"head": {"kind": "gaussian", "classes": 3}}, "model.head has no setting 'classes'"),
        ({"cycles": 2.0}, r"model.cycles must be int, finite; got 2\.0"),
        ({"cycles": True}, "model.cycles must be int"),
        ({"pre_emphasis": float("nan")}, "model.pre_emphasis must be float"),
        ({"pre_emphasis": "0.8"}, "model.pre_emphasis must be float"),
        ({"cycles": 0}, "WaveNetConfig.cycles must be at least 1"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        wavenet_config(values)
