"""`wavewn convert`: another program's checkpoint becomes a bundle, whole or not at all."""

import json

import pytest
import torch
from torch.testing import assert_close

import wavewn
from wavewn.bundle import load_checkpoint
from wavewn.bundle.checkpoint import save_checkpoint
from wavewn.cli.main import main
from wavewn.config import DiscriminatorsConfig, HiFiGANConfig
from wavewn.models.discriminators import Discriminators
from wavewn.models.hifigan import HiFiGAN
from wavewn.nn.weight_norm import apply_weight_norm
from wavewn.source import open_source

SETTINGS = HiFiGANConfig(8, (5, 4), (11, 8), "2", (3,), ((1, 2),))
GAME = DiscriminatorsConfig(periods=(2, 3), scales=2, channels=4, max_channels=16)
CONFIG = {
    "resblock": "2", "upsample_rates": [5, 4], "upsample_kernel_sizes": [11, 8],
    "upsample_initial_channel": 8, "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 2]], "num_mels": 8, "n_fft": 80, "hop_size": 20,
    "win_size": 80, "sampling_rate": 16000, "fmin": 0, "fmax": 8000,
}  # fmt: skip
ATOL = 1e-5  # float32; a stream sums in another order


@pytest.fixture
def source(tmp_path):
    """Lay out a checkpoint as jik876's program does."""
    torch.manual_seed(0)
    folder = tmp_path / "hifi-gan"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    model = HiFiGAN(SETTINGS, 8)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    torch.save({"generator": model.state_dict()}, folder / "g_00000020")
    return folder


@pytest.fixture
def judges(source):
    """Put discriminators beside it, in torch's old spelling of both norms."""
    torch.manual_seed(1)
    made = Discriminators(GAME)
    apply_weight_norm(made)
    spelled = {
        "parametrizations.weight.0._u": "weight_u",
        "parametrizations.weight.0._v": "weight_v",
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
        "parametrizations.weight.original": "weight_orig",
    }
    old = {}
    for key, value in made.state_dict().items():
        end = next((end for end in spelled if key.endswith(end)), "")
        old[key.removesuffix(end) + spelled.get(end, "")] = value
    for name in ("mpd", "msd"):
        own = {k.removeprefix(f"{name}."): v for k, v in old.items() if k.startswith(name)}
        assert own
        old[name] = own
    content = {"mpd": old["mpd"], "msd": old["msd"], "optim_g": {}, "steps": 20}
    torch.save(content, source / "do_00000020")
    return made


@torch.no_grad()
def test_a_bundle_lies_there_that_sounds_the_same(source, tmp_path, capsys):
    out = tmp_path / "voice"
    assert main(["convert", str(source), "-o", str(out), "--licence", "MIT"]) == 0

    told = capsys.readouterr().out
    assert told.startswith(f"{source}: HiFi-GAN of jik876\n  model    hifigan, ")
    assert "mels     8 bands, 0 to 8000 Hz, hop 20, at 16000 Hz" in told
    assert "note     settings from config.json, weights from g_00000020" in told
    assert "usable in float32; next: wavewn synth" in told
    direct, voice = wavewn.load(source), wavewn.load(out)
    assert voice.config["licence"] == "MIT"
    assert voice.config["provenance"]["converted_from"] == "HiFi-GAN of jik876"
    assert str(tmp_path) not in json.dumps(voice.config)
    mel = voice.mel(torch.randn(2000) * 0.1)
    audio = voice.synthesize(mel)
    assert audio.shape == (1, 2000)
    assert torch.equal(audio, direct.synthesize(mel))
    assert_close(audio, open_source(source).model(mel), rtol=0, atol=ATOL)
    stream = voice.stream()
    parts = [stream.push(chunk) for chunk in mel.split(7, dim=-1)]
    assert_close(torch.cat([*parts, stream.finish()], dim=1), audio, rtol=0, atol=ATOL)
    assert not (tmp_path / "voice.ckpt").exists()


def test_discriminators_go_into_a_checkpoint_beside_it(source, judges, tmp_path, capsys):
    out = tmp_path / "voice"
    assert main(["convert", str(source), "-o", str(out)]) == 0

    assert "voice.ckpt: with the discriminators" in capsys.readouterr().out
    state = torch.load(tmp_path / "voice.ckpt", weights_only=True)["state_dict"]
    found = {k.removeprefix("discriminators."): v for k, v in state.items() if k[:4] == "disc"}
    fresh = Discriminators(GAME)
    apply_weight_norm(fresh)
    fresh.load_state_dict(found, strict=True)
    expected = judges.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in fresh.state_dict().items())
    from_checkpoint = load_checkpoint(tmp_path / "voice.ckpt")
    assert from_checkpoint.mel == wavewn.load(out).mel_spec
    assert main(["inspect", str(tmp_path / "voice.ckpt")]) == 0
    assert "training checkpoint, hifigan" in capsys.readouterr().out


def test_a_training_checkpoint_beside_foreign_settings_is_ours(source, tmp_path):
    bundle = open_source(source)
    save_checkpoint(source / "mine.ckpt", bundle, {})

    assert "converted_from" not in open_source(source / "mine.ckpt").config["provenance"]


def test_nothing_is_replaced_unasked(source, judges, tmp_path, capsys):
    out = tmp_path / "voice"
    (tmp_path / "voice.ckpt").write_text("somebody's")
    command = ["convert", str(source), "-o", str(out)]

    assert main(command) == 2
    assert "voice.ckpt exists already" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--force"]) == 0
    assert main(command) == 2
    assert "exists already; choose another folder" in capsys.readouterr().err


def test_what_is_nobodys_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "a").mkdir()

    assert main(["convert", str(tmp_path / "a"), "-o", str(tmp_path / "b")]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no checkpoint of a known program. Looked for: HiFi-GAN (config.json" in error
    assert not (tmp_path / "b").exists()


def test_inspect_reads_other_programs_models_too(source, judges, capsys):
    for path in (source, source / "g_00000020"):
        assert main(["inspect", str(path)]) == 0
        told = capsys.readouterr().out
        assert "checkpoint of another program, hifigan" in told
        assert "converted_from: HiFi-GAN of jik876" in told
    assert main(["inspect", str(source / "do_00000020")]) == 2


def test_precisions_are_measured_on_recordings(source, tmp_path, capsys):
    speech = tmp_path / "speech"
    speech.mkdir()
    for number in range(3):
        wavewn.write_audio(speech / f"{number}.wav", torch.randn(8000) * 0.1, 16000)
    command = ["convert", str(source), "-o", str(tmp_path / "voice"), "--dtype", "float16"]

    assert main([*command, "--calibrate", str(speech)]) == 0

    assert {"float32", "bfloat16"} <= set(wavewn.load(tmp_path / "voice").config["verdict"])
    assert "usable in float32" in capsys.readouterr().out
