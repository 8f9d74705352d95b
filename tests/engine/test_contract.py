"""What every engine promises: the network's distribution, and samples drawn from it.

The contract goes on in test_contract_streams.py, test_contract_refusals.py and
test_contract_allocations.py. `choice` is each engine, instruction set and precision in its turn.
"""

import dataclasses
import functools

import pytest
import torch
from torch.testing import assert_close

from wavewn.models.heads import LogisticMixtureHead, MuLawHead
from wavewn.noise import draw_noise
from wavewn.state import StreamState

HOP, FRAMES = 20, 6
ROUNDING = 1e-5  # of sums over the classes in float32, and of an exponential


def true_levels(model, batch, frames):
    audio = torch.rand(batch, frames * HOP, generator=torch.Generator().manual_seed(3)) - 0.5
    return model.levels(audio)


@torch.no_grad()
def network(model, levels, mel, speaker):
    """Teacher-forced parameters of a mel that holds the frames looked ahead, too."""
    return model(levels, mel, speaker)


def cached(engine, state, mel, levels, speaker, cuts):
    """Parameters of pushes of so many frames each."""
    parts, begin = [], 0
    for chunk in mel.split(cuts, dim=2):
        end = begin + engine.due_frames(state, chunk.shape[2]) * HOP
        parts.append(engine.parameters(state, chunk, levels[:, begin:end], speaker=speaker))
        begin = end
    return torch.cat(parts, dim=1)


def size(x):
    return max(1.0, float(x.abs().max())) if x.numel() else 1.0


def assert_near(found, expected, tolerance):
    assert_close(found, expected, rtol=0, atol=tolerance * size(expected))


@pytest.fixture(scope="module")
def truth(make, reference_of, mel_of, speaker_of):
    """From settings to what the network and the reference say of a signal; made once."""

    @functools.cache
    def of(settings):
        model = make(settings)
        engine = reference_of(model)
        mel, speaker = mel_of(2, FRAMES + engine.look_ahead), speaker_of(engine, 2)
        levels, state = true_levels(model, 2, FRAMES), StreamState.zeros(engine.layout, 2)
        engine.parameters(state, mel, levels, speaker=speaker)
        right, wrong = (network(model, one, mel, speaker) for one in (levels, -levels))
        return mel, speaker, levels, state, right, wrong

    return of


@pytest.mark.parametrize("first", ["itself", "reference"])
def test_parameters_and_state_are_the_networks_whoever_began(choice, model, engine, truth, first):
    """A stream on forced samples goes from one engine to the other and back."""
    mine = choice.make(model)
    one, other = (mine, engine) if first == "itself" else (engine, mine)
    mel, speaker, levels, expected_state, expected, wrong = truth(model.settings)
    state = StreamState.zeros(engine.layout, 2)

    begin, found = 0, []
    for runner, chunk in zip(
        (one, other, one), mel.split([3, 1, mel.shape[2] - 4], 2), strict=True
    ):
        end = begin + runner.due_frames(state, chunk.shape[2]) * HOP
        found.append(cached(runner, state, chunk, levels[:, begin:end], speaker, 2))
        begin = end

    assert_near(torch.cat(found, dim=1), expected, choice.tolerance)
    for entry in engine.layout.entries:
        assert_near(state.view(entry.name), expected_state.view(entry.name), choice.tolerance)
    assert state.clock.tolist() == [FRAMES * HOP] * 2
    assert (wrong - expected).abs().max() > 2 * choice.tolerance * size(expected)


@pytest.mark.parametrize("cuts", [1, 12])
def test_dilations_longer_than_a_hop(choice, wide_model, mel_of, cuts):
    """Dilations 1 to 32 with 3 taps: contexts of 2 to 64 samples around a hop of 20."""
    engine = choice.make(wide_model)
    mel, levels = mel_of(1, 12 + engine.look_ahead), true_levels(wide_model, 1, 12)

    found = cached(engine, StreamState.zeros(engine.layout, 1), mel, levels, None, cuts)

    assert_near(found, network(wide_model, levels, mel, None), choice.tolerance)


def chosen(logits, uniform, temperature, error):
    """Which classes [..., classes] this noise can choose if logits are off by up to `error`."""
    if temperature == 0:
        return logits >= logits.amax(-1, keepdim=True) - 2 * error
    shares = torch.softmax(logits.double() / temperature, dim=-1)
    upper = shares.cumsum(-1)
    slack = 0.5 * torch.tensor(2 * error / temperature).expm1() + ROUNDING
    uniform = uniform[..., None]
    return (uniform >= upper - shares - slack) & (uniform <= upper + slack)


def drawn(head, parameters, noise, level, temperature, error=0.0):
    """Whether this noise can draw these levels [...] if parameters are off by up to `error`."""
    if isinstance(head, MuLawHead):
        possible = chosen(parameters, noise[..., 0], temperature, error)
        return possible.gather(-1, head.classes_of(level)[..., None])[..., 0]
    *logits, mean, log_scale = parameters.unflatten(-1, (-1, head.components)).unbind(-2)
    spread = temperature * log_scale.clamp_min(head.log_scale_min).exp() * noise[..., -1:]
    slack = error + spread.abs() * torch.tensor(error).expm1() + ROUNDING
    possible = (level[..., None] - (mean + spread).clamp(-1, 1)).abs() <= slack
    if isinstance(head, LogisticMixtureHead):
        possible &= chosen(logits[0], noise[..., 0], temperature, error)
    return possible.any(-1)


@pytest.fixture(scope="module")
def made(make):
    """From how to make an engine, and settings, to an engine; made once."""
    return functools.cache(lambda how, settings: how(make(settings)))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_what_is_drawn_is_what_the_parameters_say(
    choice, model, made, reference_of, mel_of, speaker_of, temperature
):
    """Without pre-emphasis the audio tells the levels; forced, they give the same state."""
    settings = dataclasses.replace(model.settings, pre_emphasis=0.0)
    engine, reference = made(choice.make, settings), made(reference_of, settings)
    mel, speaker = mel_of(2, 3 + engine.look_ahead), speaker_of(engine, 2)
    free = StreamState.zeros(engine.layout, 2, seed=4)
    forced, truth = free.clone(), free.clone()
    noise = draw_noise(engine.head.noise, free.seed, free.stream, free.clock, 3 * HOP)

    audio = engine.generate(free, mel, speaker=speaker, temperature=temperature)
    levels = engine.head.encode(audio)
    parameters = engine.parameters(forced, mel, levels, speaker=speaker)
    expected = reference.parameters(truth, mel, levels, speaker=speaker)

    assert drawn(engine.head, parameters, noise, levels, temperature).all()
    error = choice.tolerance * size(expected)
    assert drawn(engine.head, expected, noise, levels, temperature, error).all()
    assert torch.equal(forced.buffer, free.buffer)
    assert not drawn(engine.head, parameters, noise.flip(1), -levels, temperature).all()
