"""The way out: what is written is what another program's files say, and is read back the same."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig, WaveNetConfig
from wavewn.errors import FormatError
from wavewn.formats.found import read_foreign
from wavewn.formats.writing import write_foreign
from wavewn.models.generators import make_generator

HIFIGAN = HiFiGANConfig(
    channels=8,
    upsample_rates=(4, 4),
    upsample_kernel_sizes=(8, 8),
    resblock_kernel_sizes=(3, 5),
    resblock_dilations=((1, 3, 5), (1, 3, 5)),
)
OTHERS = [
    HIFIGAN,
    dataclasses.replace(HIFIGAN, resblock="2", resblock_dilations=((1, 2), (2, 6))),
    MelGANConfig(channels=16, upsample_rates=(4, 4), stacks=2, kernel_size=5),
    MelGANConfig(channels=16, upsample_rates=(4, 4), padding="replicate"),
    ParallelWaveGANConfig(4, 6, 5, cycles=2, layers_per_cycle=2, upsample_rates=(4, 4)),
    ParallelWaveGANConfig(4, 4, 4, 3, 1, 3, upsample_rates=(16,), causal=True),
]
MEL = MelSpec(n_fft=64, hop_length=16, win_length=64, magnitude_epsilon=1e-9)
PWG_MEL = MelSpec(
    n_fft=64, hop_length=16, win_length=64, n_mels=6, grid="centred", log_base="10", floor=1e-10,
    mean=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0), scale=0.5,
)  # fmt: skip


def write(settings, mel, family, folder):
    torch.manual_seed(1)
    model = make_generator(settings, mel)
    files = write_foreign(settings, mel, model.state_dict(), family, folder)
    return model, files


@torch.no_grad()
def same_audio(model, found):
    other = make_generator(found.settings, found.mel)
    other.load_state_dict(found.state)
    mel, noise = torch.randn(1, model.n_mels, 8), torch.randn(1, 1, 128)
    torch.testing.assert_close(other(mel, noise), model(mel, noise), rtol=0, atol=1e-6)


def test_a_hifigan_goes_out_and_comes_back(tmp_path):
    model, files = write(HIFIGAN, MEL, "hifigan", tmp_path / "out")

    assert files == ["config.json", "g_00000000"]
    found = read_foreign(tmp_path / "out")
    assert (found.settings, found.mel) == (HIFIGAN, MEL)
    same_audio(model, found)


def test_its_files_say_what_the_published_code_reads(tmp_path):
    model, _ = write(HIFIGAN, MEL, "hifigan", tmp_path / "out")

    config = json.loads((tmp_path / "out/config.json").read_text())
    state = torch.load(tmp_path / "out/g_00000000", weights_only=True)["generator"]
    assert (config["resblock"], config["hop_size"], config["sampling_rate"]) == ("1", 16, 16000)
    assert set(config) >= {"seed", "segment_size", "num_mels", "fmax_for_loss", "num_freq"}
    assert set(state) == {
        key.replace("weight", end) for key in model.state_dict() for end in ("weight_g", "weight_v")
    }
    # torch's weight norm counts the first axis, of transposed convolutions, too
    assert state["ups.0.weight_g"].shape == (8, 1, 1)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda s: f"{s.kind}-{s.padding}-{s.causal}")
def test_all_three_go_out_to_parallel_wavegan(tmp_path, settings):
    model, files = write(settings, PWG_MEL, "parallel-wavegan", tmp_path / "out")

    assert files == ["checkpoint-0steps.pkl", "config.yml", "stats.npy"]
    found = read_foreign(tmp_path / "out")
    assert found.settings == settings
    assert found.mel.mean == PWG_MEL.mean and found.mel.scale == (0.5,) * 6
    same_audio(model, found)


def test_the_residual_output_that_nobody_hears_is_there(tmp_path):
    write(OTHERS[4], PWG_MEL, "parallel-wavegan", tmp_path / "out")

    content = torch.load(tmp_path / "out/checkpoint-0steps.pkl", weights_only=True)
    config = yaml.safe_load((tmp_path / "out/config.yml").read_text())
    assert content["model"]["generator"]["conv_layers.3.conv1x1_out.weight_v"].shape == (4, 3, 1)
    assert config["generator_params"]["upsample_params"] == {"upsample_scales": [4, 4]}
    assert np.load(tmp_path / "out/stats.npy").shape == (2, 6)


@pytest.mark.parametrize(
    ("settings", "mel", "family", "message"),
    [
        (HIFIGAN, dataclasses.replace(MEL, n_mels=6), "hifigan", "reads 6 bands"),
        (HIFIGAN, dataclasses.replace(MEL, grid="causal", pad_mode="constant"), "hifigan",
         "its mel.grid is 'causal'.*becomes 'half-hop'"),
        (HIFIGAN, dataclasses.replace(MEL, magnitude_epsilon=0.0), "hifigan", "magnitude_epsilon"),
        (dataclasses.replace(HIFIGAN, causal=True), MEL, "hifigan", "its causal is True"),
        (dataclasses.replace(HIFIGAN, padding="reflect"), MEL, "hifigan", "its padding is 'refl"),
        (OTHERS[2], MEL, "hifigan", "its kind is melgan"),
        (HIFIGAN, MEL, "parallel-wavegan", "its mel.grid is 'half-hop'"),
        (dataclasses.replace(HIFIGAN, causal=True), PWG_MEL, "parallel-wavegan", "use_causal_conv"),
        (dataclasses.replace(OTHERS[2], padding="zeros"), PWG_MEL, "parallel-wavegan",
         "pad is 'ConstantPad1d'"),
        (dataclasses.replace(OTHERS[4], padding="reflect"), PWG_MEL, "parallel-wavegan",
         "its padding is 'reflect'"),
        (dataclasses.replace(OTHERS[2], channels=8), PWG_MEL, "parallel-wavegan",
         "as many channels as samples a frame, 16"),
        (dataclasses.replace(HIFIGAN, upsample_kernel_sizes=(10, 8)), PWG_MEL, "parallel-wavegan",
         "twice the rates"),
        (HIFIGAN, MEL, "vocos", "nothing is written as 'vocos'"),
    ],
)  # fmt: skip
def test_what_it_cannot_hold_is_named_and_nothing_is_left(tmp_path, settings, mel, family, message):
    with pytest.raises(FormatError, match=message):
        write(settings, mel, family, tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["hifigan", "parallel-wavegan"])
def test_a_wavenet_goes_out_to_neither(tmp_path, family):
    with pytest.raises(FormatError, match="its kind is wavenet"):
        write_foreign(WaveNetConfig(), PWG_MEL, {}, family, tmp_path / "out")


def test_a_weight_without_direction_cannot_be_written(tmp_path):
    model = make_generator(HIFIGAN, MEL)
    state = model.state_dict() | {"conv_post.weight": torch.zeros(1, 2, 7)}

    with pytest.raises(FormatError, match="conv_post"):
        write_foreign(HIFIGAN, MEL, state, "hifigan", tmp_path / "out")


def test_what_is_there_is_not_replaced(tmp_path):
    with pytest.raises(FormatError, match="exists already"):
        write_foreign(HIFIGAN, MEL, {}, "hifigan", tmp_path)
