"""The vocoder that users hold: loading, mels in, audio out, and errors that name their cause."""

import numpy as np
import pytest
import torch

import wavewn
from wavewn.audio.mel import MelSpec, noise_levels
from wavewn.bundle import save_bundle
from wavewn.config import Condition, WaveNetConfig
from wavewn.errors import BundleError, EngineError, MelError
from wavewn.models.wavenet import WaveNet

SPEC = MelSpec(hop_length=40, win_length=256, n_fft=256, n_mels=10)
HOP = SPEC.hop_length
NAMES = ["anna", "boris"]


def write_model(folder, speakers=()):
    torch.manual_seed(2)
    settings = WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        layers_per_cycle=3,
        condition=Condition(channels=8),
        speakers=len(speakers),
    )
    model = WaveNet(settings, SPEC.n_mels, HOP, SPEC.log_floor)
    save_bundle(folder, model, SPEC, speakers=speakers)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="module")
def vocoder(folder):
    return wavewn.load(folder)


@pytest.fixture(scope="module")
def choir(tmp_path_factory):
    return wavewn.load(write_model(tmp_path_factory.mktemp("bundles") / "choir", NAMES))


@pytest.fixture(scope="module")
def mel(vocoder):
    time = torch.arange(1000) / SPEC.sample_rate
    return vocoder.mel(0.3 * torch.sin(2 * torch.pi * 440 * time))


def test_copy_synthesis_has_the_length_of_whole_frames(vocoder, mel):
    audio = vocoder.synthesize(mel)

    assert mel.shape == (1, SPEC.n_mels, SPEC.frames(1000)) == (1, 10, 25)
    assert audio.shape == (1, 25 * HOP)
    assert audio.dtype == torch.float32
    assert audio.abs().max() <= 1
    assert audio.std() > 0.01
    assert (vocoder.sample_rate, vocoder.mel_spec) == (16000, SPEC)


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.double, lambda mel: mel[0]])
def test_arrays_doubles_and_two_axes_are_taken(vocoder, mel, kind):
    assert torch.equal(vocoder.synthesize(kind(mel[..., :5])), vocoder.synthesize(mel[..., :5]))


def test_offline_is_the_stream(vocoder, mel):
    stream = vocoder.stream(seed=3)
    parts = [stream.push(chunk) for chunk in mel.split(4, dim=2)]

    assert torch.equal(torch.cat([*parts, stream.finish()], 1), vocoder.synthesize(mel, seed=3))
    assert stream.latency_samples == 2 * HOP


def test_a_row_with_its_length_is_the_row_alone(vocoder, mel):
    """What lies behind a row's length is not heard, even if it is nonsense."""
    lengths = [10, 3, 7, 0]
    batch = torch.full((4, 10, 10), float("nan"))
    for row, length in enumerate(lengths):
        batch[row, :, :length] = mel[0, :, row : row + length]

    audio = vocoder.synthesize(batch, lengths=lengths, seed=[5, 6, 7, 8])

    for row, length in enumerate(lengths):
        assert not audio[row, length * HOP :].any()
        if length:
            alone = vocoder.synthesize(batch[row, :, :length], seed=5 + row)
            assert torch.equal(audio[row, : length * HOP], alone[0])
    tensor = vocoder.synthesize(batch, lengths=torch.tensor(lengths), seed=[5, 6, 7, 8])
    assert torch.equal(tensor, audio)


def test_seed_and_temperature_matter(vocoder, mel):
    mel = mel[..., :6]
    audio = vocoder.synthesize(mel)

    assert torch.equal(vocoder.synthesize(mel, seed=0), audio)
    assert not torch.equal(vocoder.synthesize(mel, seed=1), audio)
    assert not torch.equal(vocoder.synthesize(mel, temperature=0.5), audio)
    coldest = vocoder.synthesize(mel, temperature=0)
    assert torch.equal(vocoder.synthesize(mel, temperature=0, seed=1), coldest)


def test_progress_adds_up_to_the_frames(vocoder, mel):
    told = []
    vocoder.synthesize(mel[..., :6], progress=told.append)
    assert sum(told) == 6


@pytest.mark.parametrize("lengths", [[3], [3, 99], [-1, 2], [1.5, 2.0], 3])
def test_impossible_lengths_are_refused(vocoder, mel, lengths):
    with pytest.raises(MelError, match="lengths must"):
        vocoder.synthesize(mel.expand(2, -1, -1), lengths=lengths)


def test_whole_numbers_are_no_mel_with_lengths_either(vocoder, mel):
    with pytest.raises(MelError, match="floating point"):
        vocoder.synthesize(mel.long(), lengths=[3])


def test_the_first_push_finds_all_made(vocoder, mel):
    noise_levels.cache_clear()
    stream = vocoder.stream()
    before = noise_levels.cache_info().misses

    stream.push(mel[..., :2])

    assert before == 1
    assert noise_levels.cache_info().misses == 1


def test_a_stream_checks_what_is_pushed(vocoder, mel):
    stream = vocoder.stream()
    with pytest.raises(MelError, match="these are decibels"):
        stream.push(torch.full((1, 10, 3), -60.0))
    assert stream.push(mel[..., :0]).shape == (1, 0)
    assert stream.push(mel[..., :3]).shape == (1, HOP)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mel: mel.transpose(1, 2), "the mel is transposed"),
        (lambda mel: mel[:, :7], "reads 10 bands"),
        (lambda mel: mel * float("nan"), "NaN or infinite values, the first in frame 0"),
        (lambda mel: mel[..., :0], "not empty"),
        (lambda mel: mel[None], "must be .bands, frames"),
        (lambda mel: mel.long(), "floating point"),
        (lambda mel: np.linspace(-11, 300, 40).reshape(10, 4), "too loud"),
    ],
)
def test_a_mel_that_cannot_be_is_refused(vocoder, mel, spoil, message):
    with pytest.raises(MelError, match=message):
        vocoder.synthesize(spoil(mel))


def test_speakers_have_names_and_numbers(choir, mel):
    mel = mel[..., :4]
    anna, boris = (choir.synthesize(mel, speaker=name) for name in NAMES)

    assert choir.speakers == NAMES
    assert not torch.equal(anna, boris)
    assert torch.equal(choir.synthesize(mel, speaker=1), boris)
    both = choir.synthesize(mel.expand(2, -1, -1), speaker=["boris", 0])
    assert torch.equal(both, torch.cat([boris, anna]))
    stream = choir.stream(speaker="boris")
    assert torch.equal(torch.cat([stream.push(mel), stream.finish()], 1), boris)


@pytest.mark.parametrize("speaker", ["carla", 2, -1, True, ["anna", "carla"]])
def test_an_unknown_speaker_is_answered_with_the_known(choir, speaker):
    batch = len(speaker) if isinstance(speaker, list) else 1
    with pytest.raises(EngineError, match="no speaker .*; choose one of: anna, boris"):
        choir.stream(batch, speaker=speaker)


def test_a_speaker_is_asked_for_exactly_where_there_are_some(choir, vocoder):
    with pytest.raises(EngineError, match="several speakers, choose one of: anna, boris"):
        choir.stream()
    with pytest.raises(EngineError, match="expected one speaker or 3 of them, got 2"):
        choir.stream(3, speaker=NAMES)
    with pytest.raises(EngineError, match="one voice and takes no speaker, got 'anna'"):
        vocoder.stream(speaker="anna")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "warp"}, "no engine 'warp' here; choose auto or native, cuda, graph"),
        ({"precision": "int3"}, "no precision 'int3' here; choose auto or int8, float16, float32"),
        (
            {"engine": "reference", "precision": "int8"},
            "reference engine cannot run here: it runs float32 alone, not",
        ),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used here"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
    ],
)
def test_what_is_not_here_is_refused(folder, arguments, message):
    with pytest.raises(EngineError, match=message):
        wavewn.load(folder, **arguments)
    vocoder = wavewn.load(folder, engine="reference", precision="float32", device="cpu")
    assert (vocoder.engine.name, vocoder.engine.precision) == ("reference", "float32")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match="a path that exists or one of the shipped .*'nothing'"):
        wavewn.load("nothing")
    with pytest.raises(BundleError, match="expected a bundle"):
        wavewn.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(BundleError, match="folder of a training.*checkpoints.best.ckpt"):
        wavewn.load(tmp_path)
    text = tmp_path / "model.ckpt"
    text.write_text("no model")
    with pytest.raises(BundleError, match="model.ckpt"):
        wavewn.load(text)
