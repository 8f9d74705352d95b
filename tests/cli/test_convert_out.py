"""`wavewn convert MODEL --to PROGRAM`."""

import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.bundle import save_bundle
from wavewn.cli.convert_out import FAMILIES
from wavewn.cli.main import main
from wavewn.config import ParallelWaveGANConfig
from wavewn.formats import writing
from wavewn.models.generators import make_generator

SPEC = MelSpec(
    n_mels=6, n_fft=64, hop_length=16, win_length=64, grid="centred", log_base="10", floor=1e-10
)


@pytest.fixture
def bundle(tmp_path):
    """A Parallel WaveGAN that runs in no time."""
    torch.manual_seed(0)
    settings = ParallelWaveGANConfig(4, 4, 4, cycles=1, layers_per_cycle=2, upsample_rates=(4, 4))
    save_bundle(tmp_path / "bundle", make_generator(settings, SPEC), SPEC)
    return tmp_path / "bundle"


def test_the_families_are_those_that_can_be_written():
    assert FAMILIES == tuple(writing.FAMILIES)


def test_a_bundle_goes_out_and_comes_back(bundle, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"

    assert main(["convert", str(bundle), "--to", "parallel-wavegan", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert main(["convert", str(out), "-o", str(again)]) == 0

    assert "checkpoint-0steps.pkl, config.yml, stats.npy; read back" in said
    weights = [(one / "model.safetensors").read_bytes() for one in (bundle, again)]
    assert len(weights[0]) == len(weights[1])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--to", "hifigan"], "its kind is parallel-wavegan"),
        (["--to", "parallel-wavegan", "--force"], "belong to bundles"),
    ],
)
def test_what_cannot_be_is_one_line(bundle, tmp_path, capsys, more, message):
    assert main(["convert", str(bundle), "-o", str(tmp_path / "out"), *more]) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
