"""Damaged and hostile files of ParallelWaveGAN and wavenet_vocoder: one error, nothing runs."""

import copy
import json
import time

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig
from wavewn.errors import WavewnError
from wavewn.formats.writing import write_foreign
from wavewn.models.generators import make_generator
from wavewn.source import open_source

PATIENCE_S = 10.0
ODD = [0, -1, 10**6, 2**62, 10**30, 1e400, float("nan"), None, "x", [], {}, [[]], True, [2] * 99]
SPEC = MelSpec(
    n_mels=6, n_fft=64, hop_length=16, win_length=64, grid="centred", log_base="10", floor=1e-10
)
GENERATORS = {
    "hifigan": HiFiGANConfig(8, (4, 4), (8, 8), "2", (3,), ((1, 2),)),
    "melgan": MelGANConfig(channels=16, upsample_rates=(4, 4), stacks=1),
    "parallel-wavegan": ParallelWaveGANConfig(4, 4, 4, 3, 1, 2, 1, (4, 4)),
}
HPARAMS = {
    "name": "wavenet_vocoder", "input_type": "raw", "preprocess": "", "postprocess": "",
    "global_gain_scale": 0.5, "sample_rate": 16000, "num_mels": 6, "fmin": 125, "fmax": 7600,
    "fft_size": 64, "hop_size": 16, "win_length": 64, "window": "hann", "highpass_cutoff": 70.0,
    "output_distribution": "Logistic", "log_scale_min": -16.0, "out_channels": 6, "layers": 2,
    "stacks": 1, "residual_channels": 4, "gate_channels": 8, "skip_out_channels": 3,
    "kernel_size": 2, "cin_channels": 6, "cin_pad": 1, "upsample_conditional_features": True,
    "upsample_params": {"upsample_scales": [4, 4]}, "gin_channels": -1,
}  # fmt: skip


OLD_HPARAMS = HPARAMS | {
    "min_level_db": -100, "ref_level_db": 20, "allow_clipping_in_normalization": True,
    "upsample_scales": [4, 4], "freq_axis_kernel_size": 3, "legacy": True, "gin_channels": 2,
    "n_speakers": 2,
}  # fmt: skip


def write_wavenet_vocoder(folder, old):
    shapes = {"first_conv": (4, 1, 1), "last_conv_layers.1": (3, 3, 1)}
    shapes["last_conv_layers.3"] = (6, 3, 1)
    state = {} if old else {"upsample_net.conv_in.weight": torch.randn(6, 6, 3)}
    if old:
        state["embed_speakers.weight"] = torch.randn(2, 2)
    for i in range(2):
        name = f"conv_layers.{i}"
        shapes |= {f"{name}.conv": (8, 4, 2), f"{name}.conv1x1_out": (4, 4, 1)}
        shapes |= {f"{name}.conv1x1_skip": (3, 4, 1)}
        if old:
            shapes |= {f"{name}.conv1x1c": (8, 6, 1), f"{name}.conv1x1g": (8, 2, 1)}
            shapes[f"upsample_conv.{2 * i}"] = (1, 1, 3, 4)
        else:
            state[f"{name}.conv1x1c.weight"] = torch.randn(8, 6, 1)
            state[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"] = torch.randn(1, 1, 1, 9)
    for name, shape in shapes.items():
        state |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    folder.mkdir()
    (folder / "hparams.json").write_text(json.dumps(OLD_HPARAMS if old else HPARAMS))
    torch.save({"state_dict": state}, folder / "checkpoint_step000000001.pth")
    if not old:
        np.save(folder / "stats.npy", np.array([[0.0] * 6, [1.0] * 6]))


@pytest.fixture(scope="module", params=[*GENERATORS, "wavenet_vocoder", "2018"])
def checkpoint(request, tmp_path_factory):
    """Give the folder of a good checkpoint, and its files with their content."""
    folder = tmp_path_factory.mktemp("files") / "out"
    torch.manual_seed(0)
    if request.param in ("wavenet_vocoder", "2018"):
        write_wavenet_vocoder(folder, request.param == "2018")
    else:
        model = make_generator(GENERATORS[request.param], SPEC)
        write_foreign(model.settings, SPEC, model.state_dict(), "parallel-wavegan", folder)
    assert open_source(folder)
    return folder, {path: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def good(checkpoint):
    """The same, put in order again behind each test."""
    yield checkpoint
    for path, content in checkpoint[1].items():
        path.write_bytes(content)


def answer(folder):
    """Read it as `wavewn.load` does; return what was wrong, or ""."""
    began, error = time.perf_counter(), ""
    try:
        open_source(folder)
    except WavewnError as caught:
        error = str(caught)
        assert 0 < len(error) < 2000
    assert time.perf_counter() - began < PATIENCE_S
    return error


def settings_of(folder):
    """The settings, and what writes them."""
    path = folder / "hparams.json"
    if path.exists():
        return json.loads(path.read_text()), lambda values: path.write_text(json.dumps(values))
    path = folder / "config.yml"
    return yaml.safe_load(path.read_text()), lambda values: path.write_text(yaml.safe_dump(values))


def places(values):
    """Yield the way to every setting, nested ones too."""
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in places(value))


@pytest.mark.slow
def test_no_setting_makes_more_than_an_error(good):
    folder, _ = good
    values, write = settings_of(folder)
    refused = 0
    for place in places(values):
        for odd in ODD:
            changed = copy.deepcopy(values)
            owner = changed
            for key in place[:-1]:
                owner = owner[key]
            owner[place[-1]] = odd
            write(changed)
            refused += bool(answer(folder))
    assert refused > len(ODD) * len(values) / 2


@given(data=st.data())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_ends_in_one_error(good, data):
    folder, files = good
    path = data.draw(st.sampled_from(sorted(files)), label="file")
    content = bytearray(files[path])
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1), label="at") :]
    else:
        at = data.draw(st.integers(0, len(content) - 1), label="byte")
        content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(bytes(content))

    answer(folder)
    path.write_bytes(files[path])


@pytest.mark.parametrize("hostile", [np.array([print], object), np.zeros((2, 10**6))])
def test_statistics_run_nothing_and_stay_small(good, hostile):
    folder, files = good
    if folder / "stats.npy" not in files:
        pytest.skip("its mels are not normalised by statistics")
    np.save(folder / "stats.npy", hostile, allow_pickle=True)

    assert "stats.npy" in answer(folder)
