"""The gated stack: against an independent one of torch's convolutions, and against the future."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wavewn.errors import ShapeError
from wavewn.nn.upsample import upsample_linear
from wavewn.nn.wn import WN, gated_activation

ATOL = 2e-6  # float32; sums of some ten terms in another order, through five layers
HOP = 6
SHAPES = {"nearest": 5, "linear": 5, "transposed": 4 * HOP}


def make(taps=2, condition=7):
    torch.manual_seed(0)
    stack = WN(4, 6, taps, (1, 2, 4, 1, 2), condition)
    return stack, torch.randn(2, 4 * HOP, 4)


def upsample_nearest(frames, hop_length):
    return frames[:, 1:].repeat_interleave(hop_length, dim=1)


def reference(stack, x, condition, upsampling):
    """The equations of van den Oord et al. over [batch, channels, time], layer by layer."""
    upsample = {"nearest": upsample_nearest, "linear": upsample_linear}.get(upsampling)
    local = (condition if upsample is None else upsample(condition, HOP)).transpose(1, 2)
    x, skip = x.transpose(1, 2), 0
    weights = stack.condition.weight.chunk(len(stack.layers))
    biases = stack.condition.bias.chunk(len(stack.layers))
    for layer, weight, bias in zip(stack.layers, weights, biases, strict=True):
        a = F.conv1d(
            F.pad(x, (layer.gate.context, 0)),
            layer.gate.weight,
            layer.gate.bias,
            dilation=layer.gate.dilation,
        )
        a = a + F.conv1d(local, weight[:, :, None], bias)
        z = torch.tanh(a[:, :4]) * torch.sigmoid(a[:, 4:])
        out = F.conv1d(z, layer.out.weight[:, :, None], layer.out.bias)
        if out.shape[1] > 6:
            x, out = x + out[:, :4], out[:, 4:]
        skip = skip + out
    return skip.transpose(1, 2)


@pytest.mark.parametrize("upsampling", SHAPES)
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_it_equals_the_papers_stack_of_convolutions_in_values_and_gradients(taps, upsampling):
    stack, x = make(taps)
    condition = torch.randn(2, SHAPES[upsampling], 7, requires_grad=True)
    x.requires_grad_(True)
    y, wanted = stack(x, condition, upsampling), reference(stack, x, condition, upsampling)
    seed = torch.randn_like(y)
    inputs = (x, condition, *stack.parameters())

    assert_close(y, wanted, rtol=0, atol=ATOL)
    ours = torch.autograd.grad(y, inputs, seed)
    theirs = torch.autograd.grad(wanted, inputs, seed)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("taps", [1, 2, 3])
def test_the_future_is_not_heard_and_the_receptive_field_is_exact(taps):
    stack, _ = make(taps)
    x = torch.randn(1, 30, 4, requires_grad=True)
    stack(x, torch.zeros(1, 6, 7), "nearest")[:, 25].sum().backward()
    heard = (x.grad.abs().amax((0, 2)) > 0).nonzero().flatten().tolist()
    assert stack.receptive_field == 1 + 10 * (taps - 1)
    assert heard == list(range(26 - stack.receptive_field, 26))


def test_the_condition_reaches_every_layer():
    stack, x = make()
    for i in range(len(stack.layers)):
        silent = copy.deepcopy(stack)
        with torch.no_grad():
            silent.condition.weight.zero_()
            silent.condition.weight[8 * i : 8 * i + 8] = stack.condition.weight[8 * i : 8 * i + 8]
        one, other = torch.zeros(2, 5, 7), torch.ones(2, 5, 7)
        difference = silent(x, one, "linear") - silent(x, other, "linear")
        assert difference.abs().max() > 1e-4


def test_the_last_layer_has_no_residual_output():
    stack, x = make()
    assert stack.layers[-1].out.out_features == 6
    assert stack.layers[0].out.out_features == 10
    stack(x, torch.zeros(2, 5, 7), "linear").sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


@pytest.mark.parametrize(("upsampling", "rows"), [("linear", 6), ("nearest", 1), ("transposed", 5)])
def test_frames_that_do_not_fit_the_samples_are_refused(upsampling, rows):
    stack, x = make()
    with pytest.raises(ShapeError, match="24 samples cannot be conditioned on"):
        stack(x, torch.zeros(2, rows, 7), upsampling)


def test_the_gate_is_tanh_times_sigmoid():
    a = torch.linspace(-30, 30, 122).view(1, 61, 2)
    assert_close(
        gated_activation(a), torch.tanh(a[..., :1]) * torch.sigmoid(a[..., 1:]), rtol=0, atol=1e-6
    )
    wide = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gated_activation, wide)


def test_torch_compile_gives_the_same_values_and_gradients():
    stack, x = make()
    condition = torch.randn(2, 5, 7)
    stack(x, condition, "linear").square().sum().backward()
    wanted = [p.grad.clone() for p in stack.parameters()]
    stack.zero_grad()
    torch._dynamo.reset()
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
    y = compiled(x, condition, "linear")
    y.square().sum().backward()
    assert_close(y, stack(x, condition, "linear"), rtol=0, atol=ATOL)
    assert_close([p.grad for p in stack.parameters()], wanted, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_stays_near_float32():
    stack, x = make()
    condition = torch.randn(2, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        y = stack(x, condition, "linear")
    y.float().square().sum().backward()
    assert_close(y.float(), stack(x, condition, "linear"), rtol=0, atol=0.05)  # 8 bits, 5 layers
    assert all(p.grad.dtype == torch.float32 for p in stack.parameters())
