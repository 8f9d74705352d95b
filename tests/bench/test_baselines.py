"""The baselines are the same network: the audio of the reference engine, sample for sample."""

import dataclasses

import pytest
import torch

from wavewn.bench.baselines import unfit
from wavewn.bench.numba_loop import NumbaLoop
from wavewn.config import Condition, Gaussian, MuLaw, WaveNetConfig
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.stream import Stream
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError
from wavewn.models.wavenet import WaveNet

BANDS, HOP, FRAMES, SEED = 6, 20, 9, 3
SMALL = WaveNetConfig(
    residual_channels=8,
    skip_channels=12,
    head_channels=16,
    cycles=2,
    layers_per_cycle=5,
    head=MuLaw(classes=64),
)
# Off by this, a product has another order of its sums; a class more would be off by 1e-3 or more.
ATOL = 1e-6


def weights_of(upsampling="linear", **changes):
    torch.manual_seed(1)
    condition = Condition(channels=10, upsampling=upsampling)
    settings = dataclasses.replace(SMALL, condition=condition, **changes)
    model = WaveNet(settings, BANDS, HOP, -11.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that classes differ in likelihood
    return pack_wavenet(model)


def mel_of(frames=FRAMES):
    return torch.randn(1, BANDS, frames, generator=torch.Generator().manual_seed(5)) * 2 - 6


def reference_audio(weights):
    stream = Stream(ReferenceEngine(weights), seed=SEED)
    return torch.cat([stream.push(mel_of()), stream.finish()], dim=1)


@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
def test_the_numba_loop_draws_the_samples_of_the_reference(upsampling):
    weights = weights_of(upsampling)

    audio = NumbaLoop(weights).generate(mel_of(), SEED)

    assert audio.std() > 0.01
    torch.testing.assert_close(audio, reference_audio(weights), rtol=0, atol=ATOL)


@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
def test_the_onnx_step_draws_the_samples_of_the_reference(upsampling):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'wavewn[bench]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, as above")
    from wavewn.bench.onnx_step import OnnxStep

    weights = weights_of(upsampling)

    audio = OnnxStep(weights).generate(mel_of(), SEED)

    torch.testing.assert_close(audio, reference_audio(weights), rtol=0, atol=ATOL)


def test_another_seed_gives_other_samples():
    weights = weights_of()
    loop = NumbaLoop(weights)

    other = loop.generate(mel_of(), SEED + 1)

    assert (other - reference_audio(weights)).abs().max() > 1000 * ATOL


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head": Gaussian()}, "gaussian head"),
        ({"kernel_size": 3}, "this model has 3"),
        ({"upsampling": "transposed"}, "learned its own"),
        ({"speakers": 2}, "2 speakers"),
    ],
)
def test_what_the_baselines_do_not_know_is_refused_by_name(changes, reason):
    weights = weights_of(**changes)

    assert reason in unfit(weights)
    with pytest.raises(EngineError, match=reason):
        NumbaLoop(weights)
