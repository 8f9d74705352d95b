"""The contestants: their equations against NumPy, their flags as properties."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize
from torch.testing import assert_close

from wavewn.errors import ConfigError
from wavewn.nn.norms import (
    NORMS,
    NormedConv,
    batch_norms,
    freeze,
    make_stack,
    measure_flags,
    path_norm,
    set_precise_statistics,
)
from wavewn.nn.norms.activations import BatchNorm, GroupNorm, LayerNorm, MeanOnly, RMSNorm
from wavewn.nn.norms.flags import TOLERANCE
from wavewn.nn.norms.weights import WEIGHT_NORMS

SIZES = (8, 4, 6, 2, (1, 2, 4))
CAUSAL = set(NORMS) - {"batch", "batch-frozen", "mean-only", "group"}
ATOL = 2e-6  # float32; sums in another order


def speech(batch=3, time=48):
    return torch.randint(0, 8, (batch, time), generator=torch.Generator().manual_seed(1))


def make(name):
    """A contestant after a few steps of training, so that nothing in it is trivial."""
    model = make_stack(NORMS[name], *SIZES, seed=0, batch=speech())
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimiser.zero_grad()
        x = speech()
        logits = model(x[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten()).backward()
        optimiser.step()
    return model


@pytest.fixture(scope="module")
def flags():
    return {name: measure_flags(make(name), speech()) for name in NORMS}


@pytest.mark.parametrize("name", sorted(CAUSAL))
def test_a_causal_norm_leaks_exactly_nothing_while_training(flags, name):
    assert flags[name].leak == flags[name].leak_nats == flags[name].batch_leak == 0
    assert flags[name].causal


@pytest.mark.parametrize("name", sorted(set(NORMS) - CAUSAL))
def test_batch_statistics_and_statistics_over_time_leak(flags, name):
    assert flags[name].leak > 1e-3
    assert flags[name].leak_nats > 1e-6
    assert not flags[name].causal
    assert (flags[name].batch_leak > 1e-3) == (name != "group")


@pytest.mark.parametrize("name", NORMS)
def test_all_stream_but_group_norm(flags, name):
    assert flags[name].streams == (name != "group")
    assert flags[name].stream_error < 1e-12 or flags[name].stream_error > 1e-3  # no twilight


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_a_single_row_do_not_fold_away_and_neither_does_group_norm(flags, name):
    assert flags[name].folds == (name not in ("layer", "rms", "group"))
    assert flags[name].fold_error < 1e-12 or flags[name].fold_error > 1e-3


@pytest.mark.parametrize("name", NORMS)
def test_what_streams_is_what_was_trained_only_without_batch_statistics(flags, name):
    same = CAUSAL - {"spectral"}  # its power iteration goes one step on in training
    assert (flags[name].train_error <= TOLERANCE) == (name in same)


def test_a_frozen_batch_norm_is_causal():
    model = make("batch")
    freeze(model)
    assert measure_flags(model, speech()).causal
    model.train()
    assert not any(norm.training for norm in batch_norms(model))


def test_precise_statistics_are_those_of_the_batches():
    model = make("batch").eval()
    x = speech()
    set_precise_statistics(model, [x])
    assert not model.training
    first = model.gates[0].norm
    wanted = model.gates[0].conv(model.embed(x)).mean((0, 1))
    assert_close(first.running_mean, wanted, rtol=0, atol=ATOL)

    model = make("mean-only").eval()
    set_precise_statistics(model, [x, x])
    wanted = model.gates[0].conv(model.embed(x)).mean((0, 1))
    assert_close(model.gates[0].norm.running_mean, wanted, rtol=0, atol=ATOL)


def test_plain_and_weight_norm_start_as_the_same_function_when_initialised_from_data():
    x = speech()
    plain, normed = (
        make_stack(NORMS[name], *SIZES, seed=3, batch=x) for name in ("none-init", "weight-init")
    )
    assert_close(plain(x), normed(x), rtol=0, atol=1e-5)
    assert len(list(normed.parameters())) > len(list(plain.parameters()))
    bare = make_stack(NORMS["none"], *SIZES, seed=3, batch=x)
    assert (bare(x) - plain(x)).abs().max() > 0.1


def test_a_batch_shorter_than_the_receptive_field_initialises_nothing():
    with pytest.raises(ConfigError, match="more than 8 samples a signal, got 8"):
        make_stack(NORMS["weight-init"], *SIZES, seed=0, batch=speech(2, 8))


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    make_stack(NORMS["weight-init"], *SIZES, seed=0, batch=speech())
    assert torch.equal(torch.rand(1), wanted)


# The equations once more, in NumPy over loops of one row.


def rows_of(weight):
    return weight.detach().double().numpy().reshape(len(weight), -1)


def spectral(v):
    return v / np.linalg.svd(v, compute_uv=False)[0]


EQUATIONS = {
    "plain": lambda v, g: v,
    "weight": lambda v, g: np.stack(
        [a * r / np.sqrt((r * r).sum()) for a, r in zip(g, v, strict=True)]
    ),
    "shared-l1": lambda v, g: np.stack([g[0] * r / np.abs(r).sum() for r in v]),
    "conditioned": lambda v, g: np.stack([r / np.sqrt((r * r).sum()) for r in v]),
    "standardised": lambda v, g: np.stack(
        [a * (r - r.mean()) / (r.std() * np.sqrt(len(r))) for a, r in zip(g, v, strict=True)]
    ),
    "spectral": lambda v, g: spectral(v),
}


@pytest.mark.parametrize("kind", WEIGHT_NORMS)
def test_a_norm_of_weights_is_its_equation(kind):
    torch.manual_seed(0)
    layer = NormedConv(next(n for n in NORMS.values() if n.weight == kind), 3, 5, 2, free=True)
    conv = layer.conv
    g, v = None, conv.weight
    if kind != "plain":
        held = conv.parametrizations.weight
        g, v = getattr(held, "original0", None), getattr(held, "original1", None)
        v = held.original if v is None else v
        if g is not None:
            with torch.no_grad():
                g.add_(0.5)
    for _ in range(200 if kind == "spectral" else 1):  # power iterations
        weight = conv.weight
    gains = None if g is None else g.detach().double().numpy().ravel()
    wanted = EQUATIONS[kind](rows_of(v), gains)

    np.testing.assert_allclose(rows_of(weight), wanted, atol=ATOL)
    assert parametrize.is_parametrized(conv) == (kind != "plain")


def over(x, axes, eps, centre=True):
    mean = x.mean(axes, keepdims=True) if centre else 0
    power = ((x - mean) ** 2).mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(power + eps)


OUTPUT_EQUATIONS = {
    BatchNorm: lambda x, g, b: g * over(x, (0, 1), 1e-5) + b,
    MeanOnly: lambda x, g, b: x - x.mean((0, 1)) + b,
    GroupNorm: lambda x, g, b: g * over(x, (1, 2), 1e-5) + b,
    LayerNorm: lambda x, g, b: g * over(x, 2, 1e-5) + b,
    RMSNorm: lambda x, g, b: g * over(x, 2, 1e-5, centre=False) + b,
}


@pytest.mark.parametrize("kind", OUTPUT_EQUATIONS)
def test_a_norm_of_outputs_is_its_equation(kind):
    torch.manual_seed(0)
    norm, x = kind(6).train(), 3 * torch.randn(4, 9, 6) + 1
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    gain = getattr(norm, "weight", None)
    wanted = OUTPUT_EQUATIONS[kind](
        x.double().numpy(),
        None if gain is None else gain.detach().double().numpy(),
        norm.bias.detach().double().numpy(),
    )

    np.testing.assert_allclose(norm(x).detach().numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [BatchNorm, MeanOnly])
def test_running_statistics_are_averages_of_a_tenth(kind):
    norm, x = kind(3).train(), torch.randn(2, 50, 3) + 4
    norm(x)
    assert_close(norm.running_mean, 0.1 * x.mean((0, 1)), rtol=0, atol=ATOL)
    norm.eval()
    assert not torch.allclose(norm(x).mean((0, 1)), torch.zeros(3), atol=0.1)


def test_the_path_norm_of_shared_gains_is_their_product():
    torch.manual_seed(0)
    norm = NORMS["shared-l1"]
    layers = [NormedConv(norm, 3, 4, 2), NormedConv(norm, 4, 5), NormedConv(norm, 5, 2, 3)]
    weights = [layer.conv.weight for layer in layers]
    gains = [layer.conv.parametrizations.weight.original0.abs().prod() for layer in layers]
    assert_close(path_norm(weights), 2 * gains[0] * gains[1] * gains[2], rtol=1e-5, atol=0)

    paths = sum(
        weights[0][h, i, a].abs() * weights[1][j, h, 0].abs() * weights[2][k, j, b].abs()
        for i in range(3)
        for a in range(2)
        for h in range(4)
        for j in range(5)
        for k in range(2)
        for b in range(3)
    )
    assert_close(path_norm(weights), paths, rtol=1e-5, atol=0)
