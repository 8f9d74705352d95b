"""`--levellings`: bundles and graphs are made of it, and `inspect` names it."""

import json

import pytest
import torch

from wavewn.audio.io import write_audio
from wavewn.audio.mel import mel_spectrogram
from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle import fresh_model, load_bundle, save_bundle
from wavewn.cli.main import main
from wavewn.config import HiFiGANConfig, SpectralConfig

SPEC = MelSpec(
    sample_rate=8000, n_fft=128, hop_length=32, win_length=128, n_mels=10, f_min=0, f_max=4000
)
VERDICT = {"float32": {"usable": True}, "bfloat16": {"usable": True, "snr_db": 50.0}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = fresh_model(HiFiGANConfig(4, (8, 4), (8, 4), "2", (3,), ((1,),)), SPEC)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture
def voice(model, tmp_path):
    save_bundle(tmp_path / "voice", model, SPEC, verdict=VERDICT)
    return tmp_path / "voice"


def test_a_bundle_is_made_of_another_number(voice, model, tmp_path, capsys):
    out = tmp_path / "levelled"
    assert main(["export", str(voice), "-o", str(out), "--levellings", "2"]) == 0

    bundle = load_bundle(out)
    assert bundle.levellings == 2
    assert "bfloat16" not in bundle.config["verdict"]  # it was measured on other audio
    for name, weight in model.state_dict().items():
        assert torch.equal(bundle.model.state_dict()[name], weight)
    assert main(["export", str(out), "-o", str(tmp_path / "again")]) == 0
    assert load_bundle(tmp_path / "again").levellings == 2
    capsys.readouterr()

    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["levellings"] == 2
    assert main(["inspect", str(voice)]) == 0
    assert "levellings" not in capsys.readouterr().out


def test_a_spectral_bundle_is_made_of_another_number_too(tmp_path):
    settings = SpectralConfig(channels=6, hidden_channels=5, dilations=(1,), n_fft=64)
    model = fresh_model(settings, SPEC)
    save_bundle(tmp_path / "voice", model, SPEC, verdict=VERDICT)
    wanted = model.settings.levellings + 2
    wish = ["export", str(tmp_path / "voice"), "--levellings", str(wanted)]
    assert main([*wish, "-o", str(tmp_path / "levelled")]) == 0

    bundle = load_bundle(tmp_path / "levelled")
    assert (bundle.model.settings.levellings, bundle.levellings) == (wanted, 0)
    assert "bfloat16" not in bundle.config["verdict"]


def test_the_verdict_is_on_audio_that_is_levelled(voice, tmp_path):
    """Levelling mends some of what bfloat16 does, or all of what it does to the spectrum."""
    (tmp_path / "speech").mkdir()
    for i in range(2):
        noise = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(i))
        write_audio(tmp_path / f"speech/{i}.wav", noise, 8000)
    found = []
    for count in ("0", "2"):
        out = tmp_path / count
        given = ["--levellings", count, "--calibrate", str(tmp_path / "speech")]
        assert main(["export", str(voice), "-o", str(out), *given]) == 0
        found.append(load_bundle(out).config["verdict"]["bfloat16"]["snr_db"])

    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("count", "message"), [("17", "0 to 16, got 17"), ("-1", "0 to 16, got -1")]
)
@pytest.mark.parametrize("to", ["bundle", "torch"])
def test_an_impossible_number_is_one_line(voice, tmp_path, capsys, to, count, message):
    out = tmp_path / "out"
    wish = ["export", str(voice), "-o", str(out), "--to", to, "--levellings", count]

    assert main(wish) == 2

    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_a_graph_sounds_as_its_bundle(voice, model, tmp_path, asked):
    save_bundle(voice, model, SPEC, levellings=1, force=True)
    wish = ["--levellings", "2"] if asked else []
    out = tmp_path / "voice.pt2"

    assert main(["export", str(voice), "--to", "torch", "-o", str(out), *wish]) == 0

    mel = (torch.randn(1, 10, 30) * 0.5).cumsum(dim=2).clamp(-4, 4) - 6
    found = torch.export.load(out).module()(mel)
    before, after = ((mel_spectrogram(x, SPEC) - mel).abs().mean() for x in (model(mel), found))
    assert after < 0.5 * before
