"""One-pass models lie in the same bundles as WaveNets: their kind says which model it is."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from wavewn.bundle import Calibration, fresh_model, load_bundle, load_checkpoint, save_bundle
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig, SpectralConfig
from wavewn.errors import BundleError, ConfigError
from wavewn.nn.weight_norm import apply_weight_norm, folded_state_dict

SETTINGS = {
    "hifigan": HiFiGANConfig(8, (5, 4), (11, 8), "2", (3,), ((1, 2),), causal=True),
    "melgan": MelGANConfig(8, (5, 4), stacks=2),
    "parallel-wavegan": ParallelWaveGANConfig(
        4, 6, 5, cycles=1, layers_per_cycle=3, upsample_rates=(5, 4), padding="replicate"
    ),
    "spectral": SpectralConfig(
        channels=6, hidden_channels=5, dilations=(1, 2), look_ahead=1, n_fft=40
    ),
}


@pytest.fixture
def build(spec):
    """From a kind to a random model."""

    def make(kind, seed=0):
        torch.manual_seed(seed)
        return fresh_model(SETTINGS[kind], spec)

    return make


@pytest.fixture
def folder(tmp_path, build, spec):
    """A good bundle."""
    save_bundle(tmp_path / "v", build("hifigan"), spec, licence="CC0")
    return tmp_path / "v"


def rewrite(folder, part, **changes):
    """Change a part of config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[part] = config[part] | changes
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("kind", list(SETTINGS))
def test_a_bundle_comes_back_whole(tmp_path, build, spec, kind):
    model = build(kind)
    folded = folded_state_dict(model)
    apply_weight_norm(model)
    verdict = {"float32": {"usable": True}, "bfloat16": {"usable": True, "snr_db": 51.5}}
    save_bundle(tmp_path / "v", model, spec, provenance={"steps": 3}, verdict=verdict)

    bundle = load_bundle(tmp_path / "v")

    assert bundle.model.settings == SETTINGS[kind]
    assert type(bundle.model) is type(model)
    assert (bundle.mel, bundle.speakers) == (spec, [])
    assert bundle.config["verdict"] == verdict
    assert not bundle.model.training
    found = bundle.model.state_dict()
    assert found.keys() == folded.keys()
    for key, value in folded.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)
    card = (tmp_path / "v/README.md").read_text()
    assert f"Model: {kind}, " in card and "steps: 3" in card


@pytest.mark.parametrize("kind", list(SETTINGS))
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_checkpoint_loads_folded(tmp_path, build, spec, kind, weights):
    states = {}
    for seed, name in enumerate(("raw", "ema")):
        model = build(kind, seed)
        apply_weight_norm(model)
        states[name] = (model.state_dict(), folded_state_dict(model))
    ours = {
        "format": 1,
        "recipe": {"mel": spec.to_dict(), "model": dataclasses.asdict(SETTINGS[kind])},
        "speakers": [],
        "ema": states["ema"][0],
        "step": 7,
    }
    state = {f"model.{k}": v for k, v in states["raw"][0].items()}
    state |= {"discriminators.0.weight": torch.zeros(3)}
    torch.save({"wavewn": ours, "state_dict": state}, tmp_path / "a.ckpt")

    bundle = load_checkpoint(tmp_path / "a.ckpt", weights)

    assert bundle.model.settings == SETTINGS[kind]
    for key, value in states[weights][1].items():
        assert torch.equal(bundle.model.state_dict()[key], value), key
    assert bundle.config["model"]["kind"] == kind


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model", {"kind": "wavenet"}, "no setting"),
        ("model", {"kind": "melgan"}, "no setting"),
        ("model", {"kind": ["hifigan"]}, "kind must be one of"),
        ("model", {"channels": 7}, "channels is 7, but each of 2 upsamplings halves it"),
        ("model", {"channels": 12}, "expected, .* found"),
        ("model", {"padding": "reflect"}, "a causal model cannot pad by reflection"),
        (
            "model",
            {"upsample_rates": [5, 5]},
            "gives? 25 samples a frame, the mel's hop_length is 20",
        ),
        ("model", {"resblock_dilations": [[1, 2, 3]]}, "missing 'resblocks"),
        ("mel", {"hop_length": 10}, "give 20 samples a frame, the mel's hop_length is 10"),
        ("mel", {"n_mels": 5}, "expected, .* found"),
        ("statistics", {"calibration": None}, None),
        (
            "statistics",
            {"calibration": Calibration(((1.0,),), 1.0, 1.0).to_dict()},
            "is for int8, which hifigan does not run in",
        ),
        ("verdict", {"bfloat16": {"snr_db": 60}}, "verdict.bfloat16.usable must be true or false"),
    ],
)
def test_every_field_is_checked(folder, part, changes, message):
    rewrite(folder, part, **changes)

    if message is None:
        load_bundle(folder)
        return
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_one_pass_models_have_one_voice(folder, tmp_path, build, spec):
    with pytest.raises(BundleError, match="the model has 0 speakers, 1 are named"):
        save_bundle(tmp_path / "w", build("melgan"), spec, speakers=["anna"])


def test_weights_that_do_not_fit_are_named(folder):
    state = load_file(folder / "model.safetensors")
    state["conv_pre.bias"] = torch.full((8,), torch.nan)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(BundleError, match=r"'conv_pre\.bias' holds NaN"):
        load_bundle(folder)


def test_a_model_that_does_not_go_with_a_mel_is_not_made(spec):
    with pytest.raises(ConfigError, match="hifigan: upsample_rates give 256 samples a frame"):
        fresh_model(HiFiGANConfig(), spec)
    with pytest.raises(ConfigError, match="do not go with a hop of 20 samples"):
        fresh_model(SpectralConfig(), spec)
