"""The product of gain and direction: its formulas, and how a layer gets it and its values."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from wavewn.errors import ConfigError, ShapeError
from wavewn.nn.weight_norm import (
    apply_weight_norm,
    check_directions,
    gain_and_direction,
    is_weight_normed,
    normed_modules,
    parametrization,
    set_weight,
    weight_norm,
)

EXACT = 1e-12  # float64; a handful of roundings
FLOAT = 1e-6  # float32; the two sides round differently


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 4, 2), nn.Tanh(), nn.ConvTranspose1d(4, 5, 4, stride=2))


def as_double(module):
    """Give a float64 module with a gain that is not the norm any more."""
    weight_norm(module.double())
    with torch.no_grad():
        gain_and_direction(module)[0].mul_(1.7).neg_()
    return module


def other_axes(v, dim):
    return [d for d in range(v.dim()) if d != dim]


MODULES = [
    pytest.param(lambda: nn.Conv1d(3, 4, 2), 0, id="conv"),
    pytest.param(lambda: nn.ConvTranspose1d(3, 4, 2), 1, id="transposed"),
    pytest.param(lambda: nn.Linear(3, 4), 0, id="linear"),
    pytest.param(lambda: nn.Conv1d(1, 4, 1), 0, id="one-input"),
    pytest.param(lambda: nn.Linear(3, 1), 0, id="one-output"),
]


@pytest.mark.parametrize(("make", "dim"), MODULES)
def test_attaching_keeps_the_weight_and_normalises_each_output_channel(make, dim):
    module = make()
    before = module.weight.detach().clone()
    weight_norm(module)
    g, v = gain_and_direction(module)

    assert_close(module.weight, before, rtol=0, atol=FLOAT)
    assert list(g.shape) == [s if d == dim else 1 for d, s in enumerate(v.shape)]
    assert g.numel() == module.bias.numel()
    with torch.no_grad():
        g.fill_(-2.0)
    length = module.weight.norm(2, dim=other_axes(v, dim))
    assert_close(length, torch.full_like(length, 2.0), rtol=0, atol=FLOAT)


@pytest.mark.parametrize(("make", "dim"), MODULES)
def test_gradients_follow_equation_3_of_the_paper(make, dim):
    torch.manual_seed(1)
    module = as_double(make())
    g, v = gain_and_direction(module)
    grad_w = torch.randn_like(v)
    (module.weight * grad_w).sum().backward()

    axes = other_axes(v, dim)
    norm = v.detach().norm(2, dim=axes, keepdim=True)
    grad_g = (grad_w * v.detach()).sum(axes, keepdim=True) / norm
    grad_v = g.detach() / norm * grad_w - g.detach() * grad_g / norm**2 * v.detach()
    assert_close(g.grad, grad_g, rtol=0, atol=EXACT)
    assert_close(v.grad, grad_v, rtol=0, atol=EXACT)
    along = (v * v.grad).sum(axes)
    assert along.abs().max() < EXACT
    if v[0].numel() > 1:
        assert v.grad.abs().max() > 1e-3  # so that the line above can fail


@pytest.mark.parametrize(("make", "dim"), MODULES)
def test_gradcheck_accepts_the_product(make, dim):
    g, v = gain_and_direction(as_double(make()))
    product = parametrization.WeightNorm(dim)
    assert torch.autograd.gradcheck(product, (g, v))


def test_a_longer_direction_gives_the_same_weight_and_smaller_gradients():
    module = as_double(nn.Conv1d(3, 4, 2))
    _, v = gain_and_direction(module)
    before = module.weight.detach().clone()
    module.weight.square().mul(torch.arange(8.0).view(4, 1, 2)).sum().backward()
    first = v.grad.clone()
    v.grad = None
    with torch.no_grad():
        v.mul_(5.0)
    module.weight.square().mul(torch.arange(8.0).view(4, 1, 2)).sum().backward()

    assert_close(module.weight, before, rtol=0, atol=EXACT)
    assert_close(v.grad, first / 5.0, rtol=0, atol=EXACT)
    with torch.no_grad():
        v.neg_()
    assert_close(module.weight, -before, rtol=0, atol=EXACT)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3), (6, 1, 1)])
def test_the_fused_product_equals_the_composite_one(shape, monkeypatch):
    g = torch.randn(shape[0], *[1] * (len(shape) - 1), requires_grad=True)
    v = torch.randn(shape, requires_grad=True)
    seed = torch.randn(shape)
    product = parametrization.WeightNorm(0)
    fused = product(g, v)
    fused_grads = torch.autograd.grad(fused, (g, v), seed)
    monkeypatch.setattr(parametrization, "_fused", None)  # a torch without the private name
    plain = product(g, v)

    assert "WeightNorm" in type(fused.grad_fn).__name__
    assert "WeightNorm" not in type(plain.grad_fn).__name__
    assert_close(fused, plain, rtol=0, atol=FLOAT)
    assert_close(fused_grads, torch.autograd.grad(plain, (g, v), seed), rtol=0, atol=FLOAT)


def test_an_initialisation_written_after_weight_norm_is_lost_and_set_weight_is_the_way():
    # jik876/hifi-gan#145: `convs.apply(init_weights)` after weight_norm changed nothing.
    module = weight_norm(nn.Conv1d(3, 4, 2))
    before = module.weight.detach().clone()
    nn.init.normal_(module.weight.data)
    module.weight.data.fill_(7.0)
    assert_close(module.weight, before, rtol=0, atol=0)

    wanted = torch.randn(4, 3, 2)
    set_weight(module, wanted)
    assert_close(module.weight.detach(), wanted, rtol=0, atol=FLOAT)
    assert is_weight_normed(module)
    wanted.zero_()  # the module keeps a copy
    assert module.weight.abs().min() > 0


@pytest.mark.parametrize("normed", [True, False])
def test_set_weight_refuses_another_shape(normed):
    module = weight_norm(nn.Conv1d(3, 4, 2)) if normed else nn.Conv1d(3, 4, 2)
    with pytest.raises(ShapeError, match=r"\[4, 3, 2\], got \[1, 3, 2\]"):
        set_weight(module, torch.ones(1, 3, 2))
    set_weight(module, torch.ones(4, 3, 2, dtype=torch.float64))
    assert_close(module.weight.detach(), torch.ones(4, 3, 2), rtol=0, atol=FLOAT)


def test_initialising_before_weight_norm_is_kept():
    net = make_net()
    nn.init.constant_(net[0].weight, 0.25)
    apply_weight_norm(net)
    assert_close(net[0].weight, torch.full((4, 3, 2), 0.25), rtol=0, atol=FLOAT)


def test_zero_rows_raise_with_the_layer_and_the_rows():
    net = make_net()
    with torch.no_grad():
        net[2].weight[:, 3] = 0
        net[2].weight[:, 1] = float("nan")
    with pytest.raises(ConfigError, match=r"direction in '2', rows \[1, 3\].* gain g to 0"):
        apply_weight_norm(net)
    assert not normed_modules(net)  # nothing was half done
    with torch.no_grad():
        net[2].weight.fill_(1.0)
    apply_weight_norm(net)
    check_directions(net)
    with torch.no_grad():
        gain_and_direction(net[0])[1][2] = 0
    with pytest.raises(ConfigError, match=r"'0', rows \[2\]"):
        check_directions(net)
    with pytest.raises(ConfigError, match=r"rows \[0, 1, 2, 3\]"):
        set_weight(net[0], torch.zeros(4, 3, 2))


def test_a_layer_that_starts_at_zero_gain_has_finite_gradients_and_leaves_zero():
    module = weight_norm(nn.Conv1d(3, 4, 2))
    g, v = gain_and_direction(module)
    with torch.no_grad():
        g.zero_()
    module(torch.randn(2, 3, 8)).sum().backward()

    assert module.weight.abs().max() == 0
    assert v.grad.abs().max() == 0
    assert g.grad.isfinite().all() and g.grad.abs().min() > 0


@pytest.mark.parametrize("dim", [-1, 3])
def test_an_axis_outside_the_weight_is_refused(dim):
    with pytest.raises(ConfigError, match=f"axis in 0..2 .* got axis {dim}"):
        weight_norm(nn.Conv1d(3, 4, 2), dim=dim)


def test_attaching_twice_or_to_nothing_is_refused():
    net = make_net()
    assert apply_weight_norm(net, skip=lambda name: name == "2") == ["0"]
    with pytest.raises(ConfigError, match="first already has weight norm"):
        weight_norm(net[0], name="first")
    assert apply_weight_norm(net) == ["2"]
    with pytest.raises(ConfigError, match="no plain Conv1d"):
        apply_weight_norm(net)
    with pytest.raises(ConfigError, match="two axes"):
        weight_norm(nn.LayerNorm(4))


def test_transposed_convolutions_normalise_per_input_channel_only_when_asked():
    ours, foreign = weight_norm(nn.ConvTranspose1d(3, 4, 2)), nn.ConvTranspose1d(3, 4, 2)
    weight_norm(foreign, dim=0)
    torchs = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(3, 4, 2))
    assert gain_and_direction(ours)[0].shape == (1, 4, 1)
    foreign.load_state_dict(torchs.state_dict(), strict=True)
    x = torch.randn(1, 3, 5)
    assert_close(foreign(x), torchs(x), rtol=0, atol=0)
    assert_close(F.conv_transpose1d(x, ours.weight, ours.bias), ours(x), rtol=0, atol=FLOAT)
