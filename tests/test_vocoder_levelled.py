"""The vocoder that users hold, whose audio is levelled to its mel."""

import dataclasses

import pytest
import torch

import wavewn
from wavewn.audio.mel import MelSpec
from wavewn.bundle import fresh_model, load_bundle, save_bundle
from wavewn.cli.main import main
from wavewn.config import Condition, HiFiGANConfig, SpectralConfig, WaveNetConfig
from wavewn.errors import ConfigError
from wavewn.models.levelled import Levelled
from wavewn.nn.padded import PaddedConv1d

SPEC = MelSpec(hop_length=40, win_length=160, n_fft=256, n_mels=10)
HOP = SPEC.hop_length
ATOL = 1e-5  # float32: chunks of a one-pass model against the whole
SETTINGS = {
    "hifigan": HiFiGANConfig(8, (8, 5), (16, 10), "2", (3, 5), ((1, 2), (1, 3))),
    "wavenet": WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        layers_per_cycle=3,
        condition=Condition(channels=8),
        speakers=2,
    ),
    "spectral": SpectralConfig(
        channels=8, hidden_channels=8, dilations=(1,), look_ahead=1, n_fft=80, levellings=1
    ),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A bundle of each kind; those that can be say that they are levelled twice."""
    found = {}
    for kind, settings in SETTINGS.items():
        torch.manual_seed(2)
        model = fresh_model(settings, SPEC)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        found[kind] = tmp_path_factory.mktemp("bundles") / kind
        own = kind == "spectral"
        names = ["anna", "boris"] if kind == "wavenet" else []
        save_bundle(found[kind], model, SPEC, speakers=names, levellings=0 if own else 2)
    return found


@pytest.fixture(scope="module")
def mel():
    torch.manual_seed(4)
    return torch.randn(1, 10, 30).cumsum(dim=2) * 0.3 - 5


def speaking(vocoder):
    return {"speaker": "boris"} if vocoder.speakers else {}


def distance(vocoder, mel, audio):
    return float((vocoder.mel(audio) - mel).abs().mean())


@pytest.mark.parametrize("kind", ["hifigan", "wavenet"])
def test_audio_comes_nearer_to_its_mel_the_more_often_it_is_levelled(bundles, mel, kind):
    found = []
    for count in (0, 1, 2):
        vocoder = wavewn.load(bundles[kind], levellings=count)
        assert vocoder.levellings == count
        audio = vocoder.synthesize(mel, **speaking(vocoder))
        found.append(distance(vocoder, mel, audio))

    assert found[1] < 0.7 * found[0]
    assert found[2] < found[1]


@pytest.mark.parametrize("kind", ["hifigan", "wavenet"])
def test_a_bundle_is_levelled_as_it_says_and_streams_alike(bundles, mel, kind):
    vocoder, asked = wavewn.load(bundles[kind]), wavewn.load(bundles[kind], levellings=2)
    plain = wavewn.load(bundles[kind], levellings=0)
    options = speaking(vocoder)
    whole = vocoder.synthesize(mel, **options)

    stream, parts, heard, given = vocoder.stream(**options), [], 0, 0
    for part in mel.split([1, 7, 0, 2, 20], dim=2):
        parts.append(stream.push(part))
        heard, given = heard + part.shape[2] * HOP, given + parts[-1].shape[1]
        assert heard - given <= stream.latency_samples
    parts.append(stream.finish())

    exact = kind == "wavenet"
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=0 if exact else ATOL)
    assert vocoder.levellings == 2
    assert torch.equal(asked.synthesize(mel, **options), whole)
    assert not torch.equal(plain.synthesize(mel, **options), whole)
    more = stream.latency_samples - plain.stream(**options).latency_samples
    assert 2 * 2 * HOP < more <= 2 * SPEC.win_length  # from half a window to a window each


def test_levelling_is_exact_where_convolutions_are_rounded(bundles, mel):
    exact, rounded = (
        wavewn.load(bundles["hifigan"], "onepass", one) for one in ("float32", "bfloat16")
    )

    said = [one.synthesize(mel) for one in (exact, rounded)]

    assert not torch.equal(*said)
    assert distance(exact, mel, said[1]) < 1.1 * distance(exact, mel, said[0])
    ours = rounded.engine._model
    assert isinstance(ours, Levelled)
    assert {b.dtype for b in ours.levels.buffers() if b.is_floating_point()} == {torch.float32}
    convolution = next(m for m in ours.modules() if isinstance(m, PaddedConv1d))
    assert convolution.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["hifigan", "wavenet"])
def test_rows_of_different_lengths_are_what_they_are_alone(bundles, mel, kind):
    vocoder, told = wavewn.load(bundles[kind]), []
    lengths, names = [30, 7, 0, 7], ["boris", "anna", "anna", "boris"]
    mels = torch.cat([mel, mel.flip(2), mel, -mel - 8])
    options = {"speaker": names} if kind == "wavenet" else {}

    audio = vocoder.synthesize(
        mels, lengths=lengths, seed=[5, 6, 7, 8], progress=told.append, **options
    )

    assert sum(told) == 30
    for row, (frames, name) in enumerate(zip(lengths, names, strict=True)):
        own = {"speaker": name} if options else {}
        if frames:
            alone = vocoder.synthesize(mels[row, :, :frames], seed=5 + row, **own)[0]
            atol = 0 if kind == "wavenet" else ATOL
            torch.testing.assert_close(audio[row, : frames * HOP], alone, rtol=0, atol=atol)
        assert not audio[row, frames * HOP :].any()


def test_a_spectral_model_is_levelled_as_often_as_is_asked_and_no_more(bundles, mel):
    bundle = load_bundle(bundles["spectral"])
    usual, twice = wavewn.Vocoder(bundle), wavewn.Vocoder(bundle, levellings=2)

    assert (usual.levellings, twice.levellings) == (1, 2)
    assert bundle.model.settings.levellings == 1
    model = fresh_model(dataclasses.replace(SETTINGS["spectral"], levellings=2), SPEC)
    model.load_state_dict(bundle.model.state_dict())
    other = wavewn.Vocoder(dataclasses.replace(bundle, model=model))
    assert torch.equal(twice.synthesize(mel), other.synthesize(mel))
    assert not torch.equal(twice.synthesize(mel), usual.synthesize(mel))


@pytest.mark.parametrize("count", [-1, 17, 1.5, True])
def test_an_impossible_number_is_refused(bundles, count):
    with pytest.raises(ConfigError, match="levellings must be a whole number in 0 to 16"):
        wavewn.load(bundles["hifigan"], levellings=count)


def test_mels_that_cannot_be_levelled_to_are_refused(tmp_path):
    spec = dataclasses.replace(SPEC, win_length=80)
    save_bundle(tmp_path / "v", fresh_model(SETTINGS["hifigan"], spec), spec)

    assert wavewn.load(tmp_path / "v").levellings == 0
    with pytest.raises(ConfigError, match="three hops or more"):
        wavewn.load(tmp_path / "v", levellings=1)


def test_the_command_line_asks_for_another_number(bundles, tmp_path, mel):
    import numpy as np

    np.save(tmp_path / "a.npy", mel[0].numpy())
    for count in ("0", "2"):
        out = str(tmp_path / f"{count}.wav")
        model = str(bundles["hifigan"])
        given = [str(tmp_path / "a.npy"), "-o", out, "--levellings", count, "--force"]
        assert main(["synth", model, *given]) == 0

    default = str(tmp_path / "default.wav")
    assert main(["synth", str(bundles["hifigan"]), str(tmp_path / "a.npy"), "-o", default]) == 0
    found = {name: (tmp_path / f"{name}.wav").read_bytes() for name in ("0", "2", "default")}
    assert found["default"] == found["2"] != found["0"]
