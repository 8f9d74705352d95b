"""The vocoder that users hold, of a one-pass model: other rules only where they must differ."""

import pytest
import torch

import wavewn
from wavewn.audio.mel import MelSpec
from wavewn.bundle import fresh_model, save_bundle
from wavewn.config import HiFiGANConfig, ParallelWaveGANConfig
from wavewn.engine.native import available
from wavewn.errors import EngineError, MelError, StateError

SPEC = MelSpec(hop_length=40, win_length=256, n_fft=256, n_mels=10)
HOP = SPEC.hop_length
ATOL = 1e-5
ENGINE = "onepass" if available() else "native"
HIFIGAN = HiFiGANConfig(8, (8, 5), (16, 10), "2", (3, 5), ((1, 2), (1, 3)))
WAVEGAN = ParallelWaveGANConfig(
    4, 6, 5, cycles=1, layers_per_cycle=3, upsample_rates=(8, 5), causal=True
)


def write_model(folder, settings, **options):
    torch.manual_seed(2)
    model = fresh_model(settings, SPEC)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    save_bundle(folder, model, SPEC, **options)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    verdict = {"float32": {"usable": True}, "bfloat16": {"usable": False, "reason": "30 dB"}}
    return write_model(tmp_path_factory.mktemp("bundles") / "plain", HIFIGAN, verdict=verdict)


@pytest.fixture(scope="module")
def vocoder(folder):
    return wavewn.load(folder)


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    return wavewn.load(write_model(tmp_path_factory.mktemp("bundles") / "driven", WAVEGAN))


@pytest.fixture(scope="module")
def mel(vocoder):
    time = torch.arange(1000) / SPEC.sample_rate
    return vocoder.mel(0.3 * torch.sin(2 * torch.pi * 440 * time))


def near(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=ATOL)


def test_copy_synthesis_has_the_length_of_whole_frames(vocoder, mel):
    audio = vocoder.synthesize(mel)

    assert (vocoder.engine.name, vocoder.engine.precision) == (ENGINE, "float32")
    assert audio.shape == (1, 25 * HOP)
    assert audio.dtype == torch.float32
    assert audio.std() > 0.01
    near(audio, vocoder.model(mel))


def test_offline_is_the_stream(vocoder, driven, mel):
    for each in (vocoder, driven):
        stream = each.stream(seed=3)
        parts = [stream.push(chunk) for chunk in mel.split(4, dim=2)]

        near(torch.cat([*parts, stream.finish()], 1), each.synthesize(mel, seed=3))
        assert stream.latency_samples == each.engine.latency_samples
    assert vocoder.stream().latency_samples > 0  # the one is not causal, the other is
    assert driven.stream().latency_samples == 0


def test_a_row_with_its_length_hears_its_own_end(vocoder, driven, mel):
    """What lies behind a row's length is not heard, not even as silence."""
    lengths = [10, 3, 10, 0]
    batch = torch.full((4, 10, 12), float("nan"))
    for row, length in enumerate(lengths):
        batch[row, :, :length] = mel[0, :, row : row + length]

    for each in (vocoder, driven):
        audio = each.synthesize(batch, lengths=lengths, seed=[5, 6, 7, 8])

        assert audio.shape == (4, 12 * HOP)
        for row, length in enumerate(lengths):
            assert not audio[row, length * HOP :].any()
            if length:
                alone = each.synthesize(batch[row, :, :length], seed=5 + row)
                near(audio[row, : length * HOP], alone[0])
    padded = batch[1].nan_to_num(SPEC.log_floor)
    longer = vocoder.synthesize(padded)[0, : 3 * HOP]  # so that the loop above can fail
    assert not torch.allclose(vocoder.synthesize(batch[1, :, :3])[0], longer, atol=ATOL)


@pytest.mark.parametrize("lengths", [None, [6, 4]])
def test_progress_adds_up_to_the_frames(vocoder, mel, lengths):
    told = []
    vocoder.synthesize(mel[..., :7].expand(2, -1, -1), lengths=lengths, progress=told.append)
    assert sum(told) == 7


def test_seeds_are_heard_where_noise_drives_the_model(vocoder, driven, mel):
    mel = mel[..., :6]

    assert torch.equal(vocoder.synthesize(mel, seed=1), vocoder.synthesize(mel))
    assert not torch.allclose(driven.synthesize(mel, seed=1), driven.synthesize(mel))
    assert not torch.allclose(driven.synthesize(mel, temperature=0.5), driven.synthesize(mel))
    with pytest.raises(StateError, match="seed must be"):
        driven.synthesize(mel.expand(2, -1, -1), seed=[1, 2, 3], lengths=[2, 3])


def test_what_such_a_model_has_not_is_refused(vocoder, mel):
    with pytest.raises(EngineError, match="temperature must be 1, got 0.5: no noise drives"):
        vocoder.synthesize(mel, temperature=0.5)
    with pytest.raises(EngineError, match="one voice and takes no speaker, got 'anna'"):
        vocoder.stream(speaker="anna")
    with pytest.raises(MelError, match="these are decibels"):
        vocoder.stream().push(torch.full((1, 10, 3), -60.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "warp"}, "no engine 'warp' here; choose auto or native, onepass"),
        ({"engine": "graph"}, "is a hifigan, which runs in no engine graph; choose auto or native"),
        ({"precision": "int3"}, "no precision 'int3' here; choose auto or bfloat16, float32"),
        ({"precision": "int8"}, "is a hifigan, which runs in no precision int8; choose auto or bf"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_what_cannot_run_it_is_refused(folder, arguments, message):
    with pytest.raises(EngineError, match=message):
        wavewn.load(folder, **arguments)
    assert wavewn.load(folder, engine="onepass", precision="float32").engine.name == "onepass"


def test_bfloat16_is_used_against_the_verdict_only_by_name(folder, vocoder, mel, caplog):
    rounded = wavewn.load(folder, precision="bfloat16")

    assert rounded.engine.precision == "bfloat16"
    assert "bfloat16 is used although the bundle's verdict speaks against it" in caplog.text
    error = rounded.synthesize(mel) - vocoder.synthesize(mel)
    assert 0 < error.abs().max() < 0.1
