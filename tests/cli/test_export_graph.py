"""`wavewn export --to torch`: a bundle becomes a graph, and mistakes are named."""

import pytest
import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.bundle import save_bundle
from wavewn.cli.main import main
from wavewn.config import HiFiGANConfig
from wavewn.models.generators import make_generator

SPEC = MelSpec(
    sample_rate=8000, n_fft=128, hop_length=32, win_length=128, n_mels=10, f_min=0, f_max=4000
)


@pytest.fixture
def one_pass(tmp_path):
    torch.manual_seed(0)
    settings = HiFiGANConfig(
        channels=4,
        upsample_rates=(8, 4),
        upsample_kernel_sizes=(8, 4),
        resblock="2",
        resblock_kernel_sizes=(3,),
        resblock_dilations=((1,),),
    )
    model = make_generator(settings, SPEC)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    save_bundle(tmp_path / "voice", model, SPEC)
    return tmp_path / "voice", model


def test_a_graph_comes_out(one_pass, tmp_path, capsys):
    bundle, model = one_pass
    out = tmp_path / "voice.pt2"

    assert main(["export", str(bundle), "--to", "torch", "-o", str(out)]) == 0

    mel = torch.rand(1, 10, 7)
    audio = torch.export.load(out).module()(mel)
    torch.testing.assert_close(audio, model(mel), rtol=0, atol=1e-5)
    assert f"{out}: whole utterances; audio within" in capsys.readouterr().out


@pytest.mark.slow
def test_the_graphs_of_a_stream_come_out(one_pass, tmp_path, capsys):
    out = tmp_path / "graphs"
    wish = ["--to", "torch", "--streaming", "--chunk-frames", "3", "-o", str(out)]

    assert main(["export", str(one_pass[0]), *wish]) == 0

    assert (out / "next.pt2").is_file() and (out / "wavewn.json").is_file()
    assert "streams of 3 frames a chunk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (["--streaming"], "are for graphs; add --to onnx or torch"),
        (["--to", "torch", "--chunk-frames", "8"], "--chunk-frames is for --streaming"),
        (["--to", "torch", "--licence", "MIT"], "--licence is for bundles"),
        (["--to", "torch", "--calibrate", "x.wav"], "--calibrate is for bundles"),
        (["--to", "torch", "--dtype", "float16"], "a graph is float32, not float16"),
        (["--to", "torch", "--weights", "raw"], "--weights is for checkpoints"),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(one_pass, tmp_path, wish, message, capsys):
    out = tmp_path / "out"

    assert main(["export", str(one_pass[0]), "-o", str(out), *wish]) == 2

    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_wavenet_has_no_graph(voice, tmp_path, capsys):
    assert main(["export", str(voice), "--to", "onnx", "-o", str(tmp_path / "v.onnx")]) == 2
    assert "a WaveNet, which makes one sample after another" in capsys.readouterr().err
