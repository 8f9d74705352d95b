"""State dicts in three spellings: every one loads everywhere, strictly, and folds exactly."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wavewn.errors import ConfigError
from wavewn.nn.weight_norm import (
    apply_weight_norm,
    convert_state_dict,
    folded_state_dict,
    gain_and_direction,
    load_state,
    weight_norm,
)

FLOAT = 1e-6  # float32; a fused product against one rounded from float64
SPELLINGS = ["hook", "parametrized", "plain"]
AXES = {"0": 0, "1": 0}


def make_plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(3, 4, 2), nn.Conv1d(4, 2, 1))


def hook_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


def make(spelling, seed=0):
    """Give torch's own model of a spelling; gains differ from the norms."""
    net = make_plain(seed)
    if spelling == "plain":
        return net
    attach = hook_norm if spelling == "hook" else nn.utils.parametrizations.weight_norm
    for module in net:
        attach(module)
    with torch.no_grad():
        for key, p in net.named_parameters():
            if key.endswith(("weight_g", "original0")):
                p.mul_(-1.5)
    return net


def output(net):
    return net(torch.linspace(-1, 1, 2 * 3 * 9).view(2, 3, 9))


@pytest.mark.parametrize("to", SPELLINGS)
@pytest.mark.parametrize("source", SPELLINGS)
def test_torchs_model_of_any_spelling_loads_our_conversion_of_any_other(source, to):
    net = make(source, seed=1)
    state = net.state_dict()
    target = make(to, seed=2)
    assert not torch.allclose(output(target), output(net))
    target.load_state_dict(convert_state_dict(state, to, axes=AXES), strict=True)
    assert_close(output(target), output(net), rtol=0, atol=FLOAT)


@pytest.mark.parametrize("normed", ["both", "first", "none"])
@pytest.mark.parametrize("source", SPELLINGS)
def test_our_model_loads_any_spelling_whether_its_layers_are_normed_or_not(source, normed):
    net = make(source, seed=1)
    ours = make_plain(seed=2)
    if normed != "none":
        apply_weight_norm(ours, skip=lambda name: normed == "first" and name == "1")
    load_state(ours, net.state_dict())
    assert_close(output(ours), output(net), rtol=0, atol=FLOAT)


def test_torchs_parametrized_model_loads_our_state_as_it_is():
    ours = make_plain(seed=1)
    apply_weight_norm(ours)
    torchs = make("parametrized", seed=2)
    torchs.load_state_dict(ours.state_dict(), strict=True)
    assert_close(output(torchs), output(ours), rtol=0, atol=0)


@pytest.mark.parametrize("source", SPELLINGS)
@pytest.mark.parametrize("normed", [True, False])
def test_a_single_layer_is_a_model_too(source, normed):
    module = make(source, seed=1)[0]
    ours = nn.Conv1d(3, 4, 2)
    if normed:
        weight_norm(ours)
    load_state(ours, module.state_dict())
    x = torch.randn(1, 3, 5)
    assert_close(ours(x), module(x), rtol=0, atol=FLOAT)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1), (1, 1, 1), (4, 3, 2), (2, 5)])
@pytest.mark.parametrize("dim", [0, 1])
def test_folding_takes_the_axis_from_the_gain_whatever_the_sizes(shape, dim):
    g = torch.randn([s if d == dim else 1 for d, s in enumerate(shape)])
    v = torch.randn(shape)
    folded = convert_state_dict({"a.weight_g": g, "a.weight_v": v}, "plain")["a.weight"]
    axes = tuple(d for d in range(len(shape)) if d != dim)
    exact = v.numpy().astype(np.float64)
    exact = exact * (g.numpy() / np.sqrt((exact**2).sum(axes, keepdims=True)))
    assert folded.dtype == torch.float32
    assert_close(folded, torch.from_numpy(exact).float(), rtol=1.2e-7, atol=0)  # 1 ulp


def test_folding_is_rounded_once_and_folding_again_changes_nothing():
    net = make_plain()
    apply_weight_norm(net)
    with torch.no_grad():
        gain_and_direction(net[0])[0].mul_(1.1)
    g, v = (p.detach().double() for p in gain_and_direction(net[0]))
    folded = folded_state_dict(net)
    exact = v * (g / v.norm(2, dim=(1, 2), keepdim=True))

    assert_close(folded["0.weight"], exact.float(), rtol=0, atol=0)
    plain = make_plain(seed=3)
    plain.load_state_dict(folded, strict=True)
    again = folded_state_dict(plain)
    assert all(torch.equal(again[key], folded[key]) for key in folded)
    again["0.weight"].zero_()  # a copy
    assert plain[0].weight.abs().min() > 0


def test_the_callers_dict_is_not_changed():
    state = make("hook").state_dict()
    kept = {key: value.clone() for key, value in state.items()}
    net = make_plain(seed=1)
    apply_weight_norm(net)
    load_state(net, state)
    converted = convert_state_dict(state, "parametrized")
    with torch.no_grad():
        for tensor in (*net.parameters(), *converted.values()):
            tensor.zero_()
    assert list(state) == list(kept)
    assert all(torch.equal(state[key], kept[key]) for key in kept)


def test_missing_and_unexpected_entries_raise_where_torch_would_skip_them_silently():
    net = make_plain()
    apply_weight_norm(net)
    before = net[0].weight.detach().clone()
    wrong = {"first.weight": torch.ones(4, 3, 2), "1.bias": torch.ones(2)}
    with pytest.raises(ConfigError, match=r"missing '0.bias'.*and 2 more") as caught:
        load_state(net, wrong)
    assert "state does not fit the model" in str(caught.value)
    with pytest.raises(ConfigError, match="unexpected 'first.weight'"):
        load_state(net, folded_state_dict(net) | wrong)

    result = net.load_state_dict(folded_state_dict(make_plain(seed=1)), strict=False)
    assert "0.weight" in result.unexpected_keys
    assert torch.equal(net[0].weight, before)  # torch went on with the weights of before


@pytest.mark.parametrize("source", ["hook", "parametrized"])
def test_a_gain_over_another_axis_raises_with_both_shapes(source):
    attach = hook_norm if source == "hook" else nn.utils.parametrizations.weight_norm
    foreign = attach(nn.ConvTranspose1d(3, 4, 2))  # torch counts input channels
    ours = weight_norm(nn.ConvTranspose1d(3, 4, 2))
    with pytest.raises(ConfigError, match=r"\[1, 4, 1\] expected, \[3, 1, 1\] found .* dim"):
        load_state(ours, foreign.state_dict())

    as_asked = weight_norm(nn.ConvTranspose1d(3, 4, 2), dim=0)
    load_state(as_asked, foreign.state_dict())
    plain = nn.ConvTranspose1d(3, 4, 2)
    load_state(plain, foreign.state_dict())
    x = torch.randn(1, 3, 5)
    assert_close(as_asked(x), foreign(x), rtol=0, atol=FLOAT)
    assert_close(plain(x), foreign(x), rtol=0, atol=FLOAT)


def test_plain_transposed_weights_split_over_the_axis_that_is_asked_for():
    plain = nn.ConvTranspose1d(3, 4, 2)
    state = {f"up.{key}": value for key, value in plain.state_dict().items()}
    for axis, shape in ((0, (3, 1, 1)), (1, (1, 4, 1))):
        split = convert_state_dict(state, "hook", axes={"up": axis})
        assert split["up.weight_g"].shape == shape
        back = convert_state_dict(split, "plain")
        assert_close(back["up.weight"], plain.weight.detach(), rtol=0, atol=FLOAT)
    ours = weight_norm(nn.ConvTranspose1d(3, 4, 2))
    load_state(ours, plain.state_dict())
    assert_close(ours.weight, plain.weight, rtol=0, atol=FLOAT)


def test_dead_directions_are_refused_before_anything_is_loaded():
    net = make_plain()
    apply_weight_norm(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = folded_state_dict(net)
    state["1.weight"][1] = 0
    with pytest.raises(ConfigError, match=r"direction in '1', rows \[1\]"):
        load_state(net, state)
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in before)
    with torch.no_grad():
        gain_and_direction(net[0])[1][0] = 0
    with pytest.raises(ConfigError, match="direction in '0': cannot fold"):
        folded_state_dict(net)


def test_half_precision_checkpoints_load_into_float32_masters():
    net = make_plain()
    apply_weight_norm(net)
    load_state(net, {key: value.half() for key, value in make_plain(seed=1).state_dict().items()})
    assert net[0].weight.dtype == torch.float32
    assert_close(net[0].weight, make_plain(seed=1)[0].weight, rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("state", "to", "axes", "message"),
    [
        ({}, "torch", {}, "hook, plain, got 'torch'"),
        ({"a.weight_g": torch.ones(2, 1)}, "plain", {}, "'a' has one only"),
        ({"a.weight_v": torch.ones(2, 1)}, "plain", {}, "'a' has one only"),
        (
            {"a.weight_g": torch.ones(2), "a.weight_v": torch.ones(2, 3)},
            "plain",
            {},
            r"gain \[2\] and direction \[2, 3\]",
        ),
        ({"b.bias": torch.ones(2)}, "hook", {"b": 0}, "no weight 'b.weight' to split"),
    ],
)
def test_what_cannot_be_spelled_otherwise_is_refused(state, to, axes, message):
    with pytest.raises(ConfigError, match=message):
        convert_state_dict(state, to, axes=axes)
