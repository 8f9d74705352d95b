"""The spectral vocoder's own parts; what all generators promise is in test_generators_stream.py."""

from dataclasses import replace

import pytest
import torch

from wavewn.audio.io import read_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.config import SpectralConfig
from wavewn.errors import ConfigError
from wavewn.models.spectral import Spectral
from wavewn.nn.harmonics import BINS
from wavewn.nn.pitch import fundamental_frequency
from wavewn.shipped import shipped

SPEC = MelSpec.preset("wavewn-16k")
SMALL = SpectralConfig(channels=16, hidden_channels=16, dilations=(1, 2))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Spectral(SMALL, SPEC).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def speech():
    """Two seconds of the embedded corpus, [1, samples]."""
    path = sorted(shipped("recipes", "corpus").rglob("*.flac"))[0]
    return read_audio(path, SPEC.sample_rate)[None, 8000:40000]


def test_the_voice_has_the_pitch_that_the_network_says_without_a_seam(model, speech):
    mel = mel_spectrogram(speech, SPEC)
    flat = torch.full_like(mel, -2.0)
    model.pitch[-1].weight.zero_()
    model.pitch[-1].bias.view(2, BINS)[:] = torch.eye(BINS)[40] * 50
    model.outlet.weight.zero_()
    model.outlet.bias.view(2, 3, -1)[:] = torch.tensor([0.0, 0.0, -20.0])[:, None]  # no breath

    audio = model(flat, torch.zeros(1, 1, mel.shape[2] * SPEC.hop_length))

    wanted = 55.0 * 10 ** (40 / (BINS - 1))
    found = fundamental_frequency(audio, SPEC.sample_rate, SPEC.hop_length)[0, 10:-10]
    assert (found > 0).all()
    assert (1200 * (found / wanted).log2()).abs().max() < 10


def test_the_pitch_is_learned_from_recordings_and_nothing_else_by_it(model, speech):
    mel = mel_spectrogram(speech, SPEC)
    _, own = model.requires_grad_(True).learn(mel, torch.randn(1, 1, speech.shape[1]), speech)

    weight, loss = own["pitch"]
    loss.backward()

    assert weight > 0
    learning = {name for name, one in model.named_parameters() if one.grad is not None}
    assert learning == {f"pitch.{i}.{part}" for i in range(3) for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        (replace(SMALL, n_fft=512), SPEC, "must be four hops"),
        (replace(SMALL, subframes=3), SPEC, "must be four hops"),
        (replace(SMALL, look_ahead=40), SPEC, "more than the layers can see"),
        (SMALL, replace(SPEC, log_base=None, floor_kind="clamp"), "takes none"),
        (SMALL, replace(SPEC, win_length=500), "three hops or more"),
    ],
)
def test_settings_that_do_not_go_with_the_mel_are_refused(settings, spec, message):
    with pytest.raises(ConfigError, match=message):
        Spectral(settings, spec)


def test_learning_levels_once_and_asks_for_little_to_mend(model, speech):
    mel = mel_spectrogram(speech, SPEC)
    torch.manual_seed(1)
    noise = torch.randn(1, 1, mel.shape[2] * SPEC.hop_length)
    middle = speech[:, 2 * SPEC.hop_length : -2 * SPEC.hop_length]

    audio, own = model.learn(mel, noise, middle)
    once = Spectral(replace(SMALL, levellings=1), SPEC)
    once.load_state_dict(model.state_dict())
    assert torch.equal(audio, once(mel, noise))

    weight, before = own["level"]
    model.outlet.bias.view(2, 3, -1)[:, ::2].add_(
        2.0
    )  # what levelling takes back nearly whole, so that nobody hears it
    louder, own = model.learn(mel, noise, middle)
    assert (louder - audio).abs().mean() < 0.1 * audio.abs().mean()
    assert own["level"][1] > before + 1
    assert weight > 0


def test_an_untrained_model_has_nearly_the_mel_that_it_was_given_and_levelling_brings_it_nearer(
    speech,
):
    mel = mel_spectrogram(speech, SPEC)
    torch.manual_seed(1)
    noise = torch.randn(1, 1, mel.shape[2] * SPEC.hop_length)
    errors = []
    for levellings in (0, 1, 2):
        torch.manual_seed(0)
        plain = Spectral(replace(SMALL, levellings=levellings), SPEC).requires_grad_(False)
        errors.append(float((mel_spectrogram(plain(mel, noise), SPEC) - mel).abs().mean()))

    assert errors[0] < 0.7  # nats
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.9 * errors[1]
