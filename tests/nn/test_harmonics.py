"""The source: its harmonics, its steps of phase, and the network that reads F0 off a mel."""

import math

import pytest
import torch
from torch.testing import assert_close

from wavewn.audio.io import read_audio
from wavewn.audio.mel import MelSpec, mel_spectrogram
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.harmonics import BINS, STEP, PitchNetwork, harmonics
from wavewn.nn.weight_norm import apply_weight_norm
from wavewn.shipped import shipped

SPEC = MelSpec.preset("wavewn-16k")
RATE, SUBFRAMES = SPEC.sample_rate, 2
HOP = SPEC.hop_length // SUBFRAMES


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PitchNetwork(SPEC.n_mels, SUBFRAMES, 2, RATE, HOP).requires_grad_(False)


@pytest.fixture(scope="module")
def speech():
    """Two seconds of the embedded corpus, [1, samples]."""
    path = sorted(shipped("recipes", "corpus").rglob("*.flac"))[0]
    return read_audio(path, RATE)[None, 8000:40000]


def heard(speech):
    return (mel_spectrogram(speech, SPEC) - SPEC.log_floor) / 10


def test_the_source_is_the_sum_of_all_harmonics_below_half_the_sample_rate():
    cycles = torch.tensor([[[HOP * 137.0 / RATE]]], dtype=torch.float64)
    phase = torch.tensor([[[0.3]]], dtype=torch.float64)

    source = harmonics(cycles, phase, 400, HOP)[0, 0]

    place = torch.arange(400) - 199.5
    t = 0.3 + 137.0 / RATE * place.double()
    count = math.floor(RATE / 2 / 137.0)
    plain = 2 * sum(torch.cos(2 * math.pi * k * t) for k in range(1, count + 1))
    assert_close(source, plain.float(), rtol=0, atol=2e-3)  # of a peak of 116, in float32


def test_steps_of_phase_are_multiples_of_a_power_of_two(network):
    torch.manual_seed(0)
    cycles = network.cycles(torch.randn(2, BINS, 50))

    assert cycles.dtype == torch.float64
    assert torch.equal(cycles / STEP, (cycles / STEP).round())
    low, high = 55.0 * HOP / RATE, 550.0 * HOP / RATE
    assert (cycles >= low - STEP).all() and (cycles <= high + STEP).all()


def test_the_pitch_is_learned_from_recordings(network, speech):
    network.requires_grad_(True)
    apply_weight_norm(network)
    mel = heard(speech)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = network.loss(mel, speech)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    assert losses[0] > 4.0  # about log(120): it knows nothing
    assert losses[-1] < 0.7 * losses[0]


def test_pitch_does_not_depend_on_how_the_mel_was_cut(network, speech):
    mel = heard(speech)
    whole = network.flow(Flow(), Rows.of(mel)).whole

    memory = {f"flow.{i}": torch.zeros(1, 8, 80 if i == 0 else 64) for i in range(3)}
    parts, at = [], 0
    for frames in (1, 2, 3, 5, 60, 89):
        rows = Rows.of(mel[:, :, at : at + frames], at, at + frames == mel.shape[2])
        parts.append(network.flow(Flow(memory), rows).whole)
        at += frames

    assert torch.equal(torch.cat(parts, dim=2), whole)  # to the bit: it is summed over time
