"""What is measured of generators: the multiplications of the bound, and the published network."""

import pytest
import torch
from torch.testing import assert_close

from wavewn.bench import generator_lineup, generators
from wavewn.bench.lineup import Wish
from wavewn.config import HiFiGANConfig
from wavewn.config.presets import PRESETS
from wavewn.errors import ConfigError
from wavewn.nn.flow import Flow

ATOL = 1e-5  # float32: the same sums in another order


@pytest.fixture(scope="module")
def small():
    subject = generators.make_generator_subject("hifigan-v2")
    return subject


def test_multiplications_are_those_of_the_layers(small):
    # Stage by stage: taps of a residual block's six convolutions, at the rate of the stage.
    settings, total = PRESETS["hifigan-v2"], 0.0
    assert isinstance(settings, HiFiGANConfig)
    rate, width = 1 / 256, 128
    total += rate * 80 * 128 * 7
    for factor, taps in zip(settings.upsample_rates, settings.upsample_kernel_sizes, strict=True):
        total += rate * width * width / 2 * taps
        rate, width = rate * factor, width / 2
        total += rate * width**2 * 6 * (3 + 7 + 11)
    total += width * 7

    assert small.multiplications == pytest.approx(total, rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hifigan-v2", "melgan"])
def test_the_published_network_gives_what_ours_gives(name):
    subject = generators.make_generator_subject(name)
    mel = subject.mel(1, 12)

    published = generators.whole(subject.model, mel, generators.Published())

    assert_close(published, generators.whole(subject.model, mel, Flow()), rtol=0, atol=ATOL)


def test_mels_are_loud_enough_to_matter(small):
    mel = small.mel(2, 5)

    assert mel.shape == (2, 80, 5)
    assert small.spec.log_floor <= mel.min() < mel.max() <= small.spec.log_floor + generators.RANGE


def test_bfloat16_without_its_instructions_is_left_out(small, monkeypatch, caplog):
    monkeypatch.setattr(generator_lineup, "why_not_bfloat16", lambda device: "too old")

    found = generator_lineup.generator_engines(small, Wish(threads=(1, 2)))

    assert [(engine.precision, threads) for engine, threads in found] == [
        ("float32", 1),
        ("float32", 2),
    ]
    assert "onepass, bfloat16: left out: too old" in caplog.text


def test_instruction_sets_are_those_that_are_wanted(small, caplog):
    pytest.importorskip("wavewn._native")
    wish = Wish(precisions=("float32",), instruction_sets=("portable", "mmx"))

    [(engine, _)] = generator_lineup.generator_engines(small, wish)
    every = generator_lineup.chosen_sets(Wish(instruction_sets=("all",)), "float32")

    assert (engine.name, engine.instruction_set) == ("native", "portable")
    assert "left out: instruction set mmx: it has no kernel of float32" in caplog.text
    assert every[-1] == "portable"


def test_only_presets_with_a_mel_are_measured():
    assert set(generators.MEL_OF) <= set(PRESETS)
    with pytest.raises(ConfigError, match="no model 'hifigan-v9' to measure; choose from hifigan-"):
        generators.make_generator_subject("hifigan-v9")


@pytest.mark.slow
def test_onnx_runtime_hears_the_same_frames(small):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    contender = generator_lineup.OnnxContender(small, threads=1)

    contender.run(40)
    assert (contender.engine, contender.threads, contender.streams) == ("onnxruntime", 1, 1)
