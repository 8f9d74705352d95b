"""The native stack in training: against torch's in float32 and bfloat16, and where it is not."""

import pytest
import torch
from torch.nn import functional as F

from wavewn.nn import wn
from wavewn.nn.gated_training import why_no_kernel, why_not_natively
from wavewn.nn.weight_norm import apply_weight_norm
from wavewn.nn.wn import WN

NATIVE = pytest.mark.skipif(bool(why_no_kernel()), reason=why_no_kernel())
# Of the length of the error to that of the value, against float32: bfloat16 has eight bits.
RTOL = 2**-6
# Of that error to the one of torch's own bfloat16: both round at the same places.
AS_EXACT = 1.2


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def outcome(stack, x, condition, upsampling, native=None):
    """Values and all gradients, in float32 or as autocast has them, by name."""
    stack.zero_grad()
    x, condition = x.clone().requires_grad_(), condition.clone().requires_grad_()
    if native is None:
        y = stack(x, condition, upsampling)
    else:
        with pytest.MonkeyPatch.context() as patch, autocast():
            if not native:
                patch.setattr(wn, "why_not_natively", lambda *_: "asked not to")
            y = stack(x, condition, upsampling)
        assert (y.grad_fn.name() == "GatedStackBackward") == native
    torch.manual_seed(1)
    (y.float() * torch.randn(y.shape)).sum().backward()
    gradients = {name: p.grad for name, p in stack.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "condition": condition.grad} | gradients


def error(found, wanted):
    return {
        name: float((found[name].float() - value).norm() / value.norm())
        for name, value in wanted.items()
    }


def make(width, skips, taps, dilations, batch, time, frames):
    torch.manual_seed(0)
    stack = WN(width, skips, taps, dilations, 7)
    rows = time if frames is None else 1 + frames
    return stack, torch.randn(batch, time, width), torch.randn(batch, rows, 7)


STACKS = {
    "even": ((64, 96, 2, (1, 2, 4, 8), 2, 480, 4), "nearest"),
    "recipe": ((48, 64, 2, (1, 2, 128), 2, 300, 5), "linear"),
    "three taps": ((32, 40, 3, (1, 3, 9), 2, 91, 7), "linear"),
    "one tap": ((16, 8, 1, (1, 1), 1, 65, 13), "nearest"),
    "odd": ((20, 10, 2, (1, 5), 3, 37, 1), "linear"),
    "learned": ((24, 10, 2, (1, 2), 2, 70, None), "transposed"),
    "lonely": ((32, 32, 2, (64,), 1, 64, 64), "nearest"),
    "segments": ((16, 8, 2, (1, 700), 2, 4400, 11), "linear"),
}


@NATIVE
@pytest.mark.parametrize("name", STACKS)
def test_values_and_gradients_are_as_near_to_float32_as_torchs(name):
    sizes, upsampling = STACKS[name]
    stack, x, condition = make(*sizes)
    wanted = outcome(stack, x, condition, upsampling)
    torchs = error(outcome(stack, x, condition, upsampling, native=False), wanted)

    found = error(outcome(stack, x, condition, upsampling, native=True), wanted)

    assert max(found.values()) < RTOL
    assert {k: (e, torchs[k]) for k, e in found.items() if e > AS_EXACT * torchs[k]} == {}


@NATIVE
def test_a_wrong_stack_would_be_found():
    stack, x, condition = make(16, 8, 2, (1, 2), 1, 40, 4)
    wanted = outcome(stack, x, condition, "linear")

    found = error(outcome(stack, x, condition, "nearest", native=True), wanted)

    for name in ("y", "x", "condition", "layers.0.gate.weight", "layers.0.out.weight"):
        assert found[name] > RTOL


@NATIVE
def test_bits_are_the_same_again_and_on_any_number_of_threads():
    stack, x, condition = make(32, 24, 2, (1, 2, 4), 2, 4400, 11)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found.append(outcome(stack, x, condition, "linear", native=True))
    finally:
        torch.set_num_threads(before)

    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items())


@NATIVE
def test_a_training_goes_as_torchs(monkeypatch):
    losses = {}
    for native in (True, False):
        stack, x, condition = make(32, 16, 2, (1, 2, 4, 8), 2, 240, 4)
        apply_weight_norm(stack)
        if not native:
            monkeypatch.setattr(wn, "why_not_natively", lambda *_: "asked not to")
        optimiser = torch.optim.Adam(stack.parameters(), 0.01)
        target = torch.tanh(x.roll(1, dims=1)[..., :16] + x[..., 16:])
        losses[native] = []
        for _ in range(30):
            with autocast():
                loss = F.mse_loss(stack(x, condition, "linear").float(), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[native].append(loss.item())

    assert losses[True][-1] < losses[True][0] / 2
    torch.testing.assert_close(losses[True], losses[False], rtol=0.02, atol=0)


@NATIVE
def test_gradients_have_the_type_of_their_weights():
    stack, x, condition = make(16, 8, 2, (1, 2), 1, 40, 4)
    stack.layers[0].gate.bfloat16()

    with autocast():
        stack(x.bfloat16(), condition, "linear").sum().backward()

    assert stack.layers[0].gate.weight.grad.dtype == torch.bfloat16
    assert stack.layers[1].gate.weight.grad.dtype == torch.float32


@NATIVE
def test_a_second_gradient_is_refused():
    stack, x, condition = make(16, 8, 2, (1, 2), 1, 40, 4)
    with autocast():
        y = stack(x.requires_grad_(), condition, "linear")
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_elsewhere_torch_serves_and_the_reason_is_said(monkeypatch):
    x = torch.zeros(1, 8, 16)

    assert "not bfloat16" in why_not_natively(x, 16)
    with torch.autocast("cpu", torch.float16):
        assert "not bfloat16" in why_not_natively(x, 16)
    with autocast():
        assert "no gradients" in torch.no_grad()(why_not_natively)(x, 16)
        assert why_not_natively(x.to("meta"), 16) == "it runs on meta"
        assert (why_no_kernel() or "more than 256") in why_not_natively(x, 257)
        assert why_not_natively(x, 16) == why_no_kernel()
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert why_not_natively(x, 16) == "the stack is traced"


def test_without_the_kernel_autocast_takes_torchs_path(monkeypatch):
    stack, x, condition = make(16, 8, 2, (1, 2), 1, 40, 4)
    monkeypatch.setattr("wavewn.nn.gated_training.why_no_kernel", lambda: "none was built")

    with autocast():
        y = stack(x, condition, "linear")

    assert y.grad_fn.name() != "GatedStackBackward"
