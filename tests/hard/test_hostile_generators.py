"""Configs of one-pass models that claim the impossible cost an error, no time, no memory."""

import dataclasses
import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import wavewn
from wavewn.bundle import fresh_model, load_bundle, save_bundle
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig, SpectralConfig
from wavewn.errors import BundleError, EngineError

PATIENCE_S = 5.0
SETTINGS = {
    "hifigan": HiFiGANConfig(8, (5, 4), (11, 8), "2", (3,), ((1, 2),)),
    "melgan": MelGANConfig(8, (5, 4), stacks=2),
    "parallel-wavegan": ParallelWaveGANConfig(
        4, 6, 5, cycles=1, layers_per_cycle=3, upsample_rates=(5, 4)
    ),
    "spectral": SpectralConfig(
        channels=6, hidden_channels=5, dilations=(1, 2), look_ahead=1, n_fft=40
    ),
}
NUMBERS = {"0": 0, "-1": -1, "1e6": 10**6, "2**62": 2**62, "1e30": 10**30, "1e400": 10**400}


@pytest.fixture(scope="module", params=list(SETTINGS))
def bundle(request, tmp_path_factory, spec):
    """A good bundle, and its config."""
    folder = tmp_path_factory.mktemp("bundles") / "v"
    torch.manual_seed(0)
    save_bundle(folder, fresh_model(SETTINGS[request.param], spec), spec)
    return folder, json.loads((folder / "config.json").read_text())


def answer(folder, config):
    """Load a bundle of this config; return what was wrong with it, or ""."""
    (folder / "config.json").write_text(json.dumps(config))
    began = time.perf_counter()
    try:
        load_bundle(folder)
        error = ""
    except BundleError as caught:
        error = str(caught)
    assert time.perf_counter() - began < PATIENCE_S
    return error


def grown(value, number):
    """Put a number in the place of each number in a value, and make lists of it long."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            for changed in grown(item, number):
                yield [*value[:i], changed, *value[i + 1 :]]
        yield value * min(max(number, 0), 20_000)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield number


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_no_size_is_too_large_to_be_refused(bundle, number):
    folder, config = bundle
    tried = 0
    for key, value in config["model"].items():
        for changed in grown(value, number):
            if changed != value:
                error = answer(folder, config | {"model": config["model"] | {key: changed}})
                assert error or number < 10**9, (key, changed)  # a dilation may well be 10**6
                tried += 1
    assert tried >= 5


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("key", ["n_mels", "hop_length", "win_length"])
def test_no_mel_is_too_large_to_be_refused(bundle, key, number):
    folder, config = bundle
    assert answer(folder, config | {"mel": config["mel"] | {key: number}})


def test_a_dilation_beyond_any_machine_is_refused(bundle):
    """Dilations do not show in the shapes of weights."""
    folder, config = bundle
    model = config["model"]
    far = {
        "hifigan": {"resblock_dilations": [[1, 10**9]]},
        "melgan": {"stacks": 40},
        "parallel-wavegan": {"layers_per_cycle": 40},
        "spectral": {"dilations": [1, 10**9]},
    }[model["kind"]]
    weights = (folder / "model.safetensors").read_bytes()
    state = load_file(folder / "model.safetensors")
    state.update({f"more.{number}": torch.zeros(1) for number in range(200)})
    save_file(state, folder / "model.safetensors")

    assert "beyond any machine" in answer(folder, config | {"model": model | far})
    (folder / "model.safetensors").write_bytes(weights)


def test_a_model_that_would_speak_in_an_hour_is_refused(bundle):
    """A dilation that memory would allow."""
    folder, config = bundle
    if config["model"]["kind"] != "hifigan":
        pytest.skip("one of them is enough")
    (folder / "config.json").write_text(
        json.dumps(config | {"model": config["model"] | {"resblock_dilations": [[1, 10**6]]}})
    )
    with pytest.raises(EngineError, match="gives no whole hop for each frame"):
        wavewn.load(folder)


def test_a_good_bundle_passes(bundle):
    """So that the tests above can fail."""
    folder, config = bundle
    (folder / "config.json").write_text(json.dumps(config))
    assert dataclasses.asdict(load_bundle(folder).model.settings)["kind"] == config["model"]["kind"]
