"""From another program's checkpoint over fine-tuning to a bundle, by the commands of a user."""

import json

import numpy as np
import pytest
import torch

import wavewn
from wavewn.cli.main import main
from wavewn.config import DiscriminatorsConfig, HiFiGANConfig
from wavewn.models.discriminators import Discriminators
from wavewn.models.hifigan import HiFiGAN
from wavewn.nn.weight_norm import apply_weight_norm, convert_state_dict

RATE, HOP, BANDS = 4000, 50, 8
GAME = DiscriminatorsConfig(periods=(2, 3), scales=2, channels=4, max_channels=16)
SAME = 1e-3  # audio in [-1, 1], after steps whose learning rate is next to nothing
STILL = ("--optimiser.lr", "1e-12", "--trainer.max_steps", "2", "--trainer.val_check_interval", "1")


def write_hifigan(folder):
    """Lay out a generator and its discriminators as jik876's program does; give the latter."""
    torch.manual_seed(0)
    folder.mkdir()
    sizes = HiFiGANConfig(16, (10, 5), (20, 11), "2", (3,), ((1, 2),))
    config = {
        "resblock": "2", "upsample_rates": [10, 5], "upsample_kernel_sizes": [20, 11],
        "upsample_initial_channel": 16, "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 2]], "num_mels": BANDS, "n_fft": 128, "hop_size": HOP,
        "win_size": 128, "sampling_rate": RATE, "fmin": 0, "fmax": 2000,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    state = {
        key: 0.2 * torch.randn_like(value)
        for key, value in HiFiGAN(sizes, BANDS).state_dict().items()
    }
    torch.save({"generator": state}, folder / "g_00000020")
    judges = Discriminators(GAME)
    apply_weight_norm(judges)
    old = convert_state_dict(judges.state_dict(), "hook")
    spectral = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}
    for ours, theirs in spectral.items():
        end = f"parametrizations.weight.{ours}"
        old = {k.replace(end, theirs) if k.endswith(end) else k: v for k, v in old.items()}
    parts = {
        name: {k.removeprefix(f"{name}."): v for k, v in old.items() if k.startswith(name)}
        for name in ("mpd", "msd")
    }
    torch.save({**parts, "steps": 20}, folder / "do_00000020")
    return judges.state_dict()


def write_wavenet(folder):
    """Lay out a WaveNet as r9y9's program does: repeated mels, gates narrower than the residual."""
    torch.manual_seed(0)
    folder.mkdir()
    settings = {
        "name": "wavenet_vocoder", "input_type": "raw", "preprocess": "preemphasis",
        "postprocess": "inv_preemphasis", "global_gain_scale": 0.55, "sample_rate": RATE,
        "num_mels": BANDS, "fmin": 50, "fmax": 2000, "fft_size": 128, "hop_size": HOP,
        "win_length": 128, "window": "hann", "highpass_cutoff": 70.0, "log_scale_min": -16.0,
        "output_distribution": "Logistic", "out_channels": 6, "layers": 4, "stacks": 2,
        "residual_channels": 8, "gate_channels": 8, "skip_out_channels": 8, "kernel_size": 2,
        "cin_channels": BANDS, "cin_pad": 0, "upsample_conditional_features": False,
        "gin_channels": -1,
    }  # fmt: skip
    shapes = {"first_conv": (8, 1, 1), "last_conv_layers.1": (8, 8, 1)}
    shapes["last_conv_layers.3"] = (6, 8, 1)
    state = {}
    for i in range(4):
        name = f"conv_layers.{i}"
        shapes |= {f"{name}.conv": (8, 8, 2), f"{name}.conv1x1_out": (8, 4, 1)}
        shapes |= {f"{name}.conv1x1_skip": (8, 4, 1)}
        state[f"{name}.conv1x1c.weight"] = 0.3 * torch.randn(8, BANDS, 1)
    for name, shape in shapes.items():
        state[f"{name}.weight"] = 0.3 * torch.randn(shape)
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0])
    (folder / "hparams.json").write_text(json.dumps(settings))
    torch.save({"state_dict": state}, folder / "checkpoint_step000000001.pth")
    np.save(folder / "stats.npy", np.array([[-2.0] * BANDS, [1.5] * BANDS]))


def wavewn_does(*command):
    assert main([str(part) for part in command]) == 0


def audio_of(place):
    voice = wavewn.load(place, precision="float32")
    noise = 0.1 * torch.randn(20 * HOP, generator=torch.Generator().manual_seed(1))
    return voice.synthesize(voice.mel(noise), seed=3)


def taken(source):
    """The options that take everything from a converted model."""
    return ("--mel", source, "--model", source, "--init-from", source)


@pytest.mark.slow
def test_a_hifigan_goes_on_with_its_discriminators(generator_file, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    judges = write_hifigan(tmp_path / "theirs")
    wavewn_does("convert", "theirs", "-o", "voice")
    game = ("--adversarial.discriminators.resolutions", "[]")

    wavewn_does("train", generator_file, *taken("voice.ckpt"), *game, *STILL, "--out", "still")
    wavewn_does("export", "still/checkpoints/last.ckpt", "-o", "same")
    wavewn_does("train", generator_file, *taken("voice"), *game, "--out", "run")
    wavewn_does("export", "run/checkpoints/best.ckpt", "-o", "tuned")

    before = audio_of("voice")
    assert before.std() > 1e-3
    torch.testing.assert_close(audio_of("same"), before, rtol=0, atol=SAME)
    assert (audio_of("tuned") - before).abs().max() > SAME
    kept = torch.load("still/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for key, value in judges.items():
        if "_u" not in key and "_v" not in key:  # of the spectral norm: power iteration goes on
            torch.testing.assert_close(kept[f"discriminators.{key}"], value, rtol=0, atol=SAME)


@pytest.mark.slow
def test_a_wavenet_goes_on(recipe_file, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    write_wavenet(tmp_path / "theirs")
    wavewn_does("convert", "theirs", "-o", "voice")
    mel = ("--mel.high_pass_hz", "null")

    wavewn_does("train", recipe_file, *taken("voice"), *mel, *STILL, "--out", "still")
    assert "voice: its audio was filtered or levelled first" in caplog.text
    wavewn_does("export", "still/checkpoints/last.ckpt", "-o", "same")
    wavewn_does("train", recipe_file, *taken("voice"), *mel, "--out", "run")
    wavewn_does("export", "run/checkpoints/best.ckpt", "-o", "tuned")

    first, second, third = (wavewn.load(place) for place in ("voice", "same", "tuned"))
    levels, heard = 0.1 * torch.randn(1, 6 * HOP), torch.randn(1, BANDS, 6)
    before = first.model(levels, heard)
    torch.testing.assert_close(second.model(levels, heard), before, rtol=0, atol=SAME)
    assert (third.model(levels, heard) - before).abs().max() > SAME
    assert audio_of("tuned").std() > 0


def test_what_does_not_go_together_says_which_option_mends_it(
    generator_file, recipe_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_hifigan(tmp_path / "theirs")
    write_wavenet(tmp_path / "nets")
    train = ("train", str(generator_file), "--init-from", "theirs", "--out", "run")

    assert main([*train]) == 2
    assert "its mels are not the recipe's; take them into the recipe with --mel theirs" in (
        capsys.readouterr().err
    )
    assert main([*train, "--mel", "theirs"]) == 2
    assert "another model than the recipe's (--model theirs takes its settings)" in (
        capsys.readouterr().err
    )
    assert main(["train", str(recipe_file), *taken("nets"), "--out", "run"]) == 2
    assert "must be off (--mel.high_pass_hz null)" in capsys.readouterr().err
    assert main(["train", str(recipe_file), "--model", "nothing", "--out", "run"]) == 2
    assert "no model preset is called 'nothing'" in capsys.readouterr().err


def test_a_kind_that_is_not_trained_is_refused_by_name(recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_wavenet(tmp_path / "nets")
    settings = json.loads((tmp_path / "nets/hparams.json").read_text())
    settings |= {
        "upsample_conditional_features": True, "upsample_net": "ConvInUpsampleNetwork",
        "upsample_params": {"upsample_scales": [50]},
    }  # fmt: skip
    (tmp_path / "nets/hparams.json").write_text(json.dumps(settings))
    path = tmp_path / "nets/checkpoint_step000000001.pth"
    content = torch.load(path, weights_only=True)
    content["state_dict"] |= {
        "upsample_net.conv_in.weight": torch.randn(BANDS, BANDS, 1),
        "upsample_net.upsample.up_layers.1.weight": torch.randn(1, 1, 1, 101),
    }
    torch.save(content, path)

    assert main(["train", str(recipe_file), "--model", "nets", "--out", "run"]) == 2

    assert "kind smoothed-wavenet, which wavewn runs and does not train" in capsys.readouterr().err
