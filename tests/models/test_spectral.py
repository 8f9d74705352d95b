"""The spectral vocoder's own parts; what all generators promise is in test_generators_stream.py."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.io import read_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.config import SpectralConfig
from wavewn.errors import ConfigError
from wavewn.models.spectral import PITCH_BINS, STEP, Spectral
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.pitch import fundamental_frequency
from wavewn.nn.weight_norm import apply_weight_norm
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


def test_the_source_is_the_sum_of_all_harmonics_below_half_the_sample_rate(model):
    cycles = torch.tensor([[[100 * 137.0 / 16000]]], dtype=torch.float64)
    phase = torch.tensor([[[0.3]]], dtype=torch.float64)

    source = model._harmonics(cycles, phase)[0, 0]

    place = torch.arange(400) - 199.5
    t = 0.3 + 137.0 / 16000 * place.double()
    count = math.floor(8000 / 137.0)
    plain = 2 * sum(torch.cos(2 * math.pi * k * t) for k in range(1, count + 1))
    assert_close(source, plain.float(), rtol=0, atol=2e-3)  # of a peak of 116, in float32


def test_the_voice_has_the_pitch_that_the_network_says_without_a_seam(model, speech):
    mel = mel_spectrogram(speech, SPEC)
    flat = torch.full_like(mel, -2.0)
    model.pitch[-1].weight.zero_()
    model.pitch[-1].bias.view(2, PITCH_BINS)[:] = torch.eye(PITCH_BINS)[40] * 50
    model.outlet.weight.zero_()
    model.outlet.bias.view(2, 3, -1)[:] = torch.tensor([0.0, 0.0, -20.0])[:, None]  # no breath

    audio = model(flat, torch.zeros(1, 1, mel.shape[2] * SPEC.hop_length))

    wanted = 55.0 * 10 ** (40 / (PITCH_BINS - 1))
    found = fundamental_frequency(audio, SPEC.sample_rate, SPEC.hop_length)[0, 10:-10]
    assert (found > 0).all()
    assert (1200 * (found / wanted).log2()).abs().max() < 10


def test_steps_of_phase_are_multiples_of_a_power_of_two(model):
    torch.manual_seed(0)
    cycles = model._cycles(torch.randn(2, PITCH_BINS, 50))

    assert cycles.dtype == torch.float64
    assert torch.equal(cycles / STEP, (cycles / STEP).round())
    low, high = 55.0 * 100 / 16000, 550.0 * 100 / 16000
    assert (cycles >= low - STEP).all() and (cycles <= high + STEP).all()


def test_the_pitch_is_learned_from_recordings(model, speech):
    model.requires_grad_(True)
    apply_weight_norm(model)
    mel = mel_spectrogram(speech, SPEC)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = model.pitch_loss(mel, speech)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    assert losses[0] > 4.0  # about log(120): it knows nothing
    assert losses[-1] < 0.7 * losses[0]
    assert model.outlet.parametrizations.weight.original0.grad is None  # nobody else learns by it


def test_pitch_does_not_depend_on_how_the_mel_was_cut(model, speech):
    mel = mel_spectrogram(speech, SPEC)
    whole = model._pitch_logits(Flow(), Rows.of(mel)).whole

    memory = {f"flow.{i}": torch.zeros(1, 8, 80 if i == 0 else 64) for i in range(3)}
    parts, at = [], 0
    for frames in (1, 2, 3, 5, 60, 89):
        rows = Rows.of(mel[:, :, at : at + frames], at, at + frames == mel.shape[2])
        parts.append(model._pitch_logits(Flow(memory), rows).whole)
        at += frames

    assert torch.equal(torch.cat(parts, dim=2), whole)  # to the bit: it is summed over time


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
