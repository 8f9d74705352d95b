"""Weight norm while a model is trained, copied, averaged, compiled and spread over processes."""

import copy
import socket
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from wavewn.nn.weight_norm import (
    apply_weight_norm,
    folded_state_dict,
    gain_and_direction,
    normed_modules,
    parameter_groups,
    weight_norm,
)

FLOAT = 1e-6  # float32; the two sides round differently
BFLOAT = 2e-2  # bfloat16 products of 12 terms of order one


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 4, 2), nn.Tanh(), nn.ConvTranspose1d(4, 5, 4, stride=2))


def test_bfloat16_layers_become_float32_masters_and_run_under_autocast():
    net = make_net().to(torch.bfloat16)
    x = torch.randn(2, 3, 9)
    before = net(x.bfloat16()).float()
    apply_weight_norm(net)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert_close(net(x), before, rtol=0, atol=BFLOAT)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), net(x), rtol=0, atol=BFLOAT)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


def test_frozen_weights_stay_frozen():
    module = nn.Linear(3, 4).to(torch.bfloat16).requires_grad_(False)
    weight_norm(module)
    assert not any(p.requires_grad for p in module.parameters())


def test_folding_a_deepcopy_leaves_the_original_working():
    net = make_net()
    apply_weight_norm(net)
    x = torch.randn(1, 3, 8)
    wanted = net(x)
    plain = make_net()
    plain.load_state_dict(folded_state_dict(copy.deepcopy(net)), strict=True)

    assert not normed_modules(plain)
    assert_close(plain(x), wanted, rtol=0, atol=FLOAT)
    assert_close(net(x), wanted, rtol=0, atol=0)
    assert len(normed_modules(net)) == 2
    net(x).sum().backward()
    assert gain_and_direction(net[0])[0].grad.abs().min() > 0


def test_an_exponential_average_folds_into_a_fresh_model():
    net = make_net()
    apply_weight_norm(net)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(net)  # the first update copies
    old = [gain_and_direction(net[i]) for i in (0, 2)]
    old = [(g.detach().clone(), v.detach().clone()) for g, v in old]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
    average.update_parameters(net)
    plain = make_net()
    plain.load_state_dict(folded_state_dict(average.module), strict=True)

    g = (old[0][0] + gain_and_direction(net[0])[0].detach()) / 2
    v = (old[0][1] + gain_and_direction(net[0])[1].detach()) / 2
    wanted = v * g / v.norm(2, dim=(1, 2), keepdim=True)
    assert_close(plain[0].weight.detach(), wanted, rtol=0, atol=FLOAT)


def test_directions_gains_and_biases_do_not_decay():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Embedding(2, 3))
    weight_norm(net[0])
    decaying, free = parameter_groups(net, decay=0.1)

    assert decaying["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    assert {id(p) for p in decaying["params"]} == {id(net[1].weight), id(net[2].weight)}
    g, v = gain_and_direction(net[0])
    assert {id(p) for p in free["params"]} == {id(p) for p in (g, v, net[0].bias, net[1].bias)}
    torch.optim.AdamW([decaying, free])


def test_torch_compile_gives_the_same_values_and_gradients():
    net = make_net()
    apply_weight_norm(net)
    x = torch.randn(2, 3, 8)
    net(x).square().sum().backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    y = compiled(x)
    y.square().sum().backward()

    assert_close(y, net(x), rtol=0, atol=FLOAT)
    assert_close([p.grad for p in net.parameters()], wanted, rtol=1e-5, atol=FLOAT)


def _ddp_rank(rank, port, batches, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    net = make_net()
    apply_weight_norm(net)
    parallel = nn.parallel.DistributedDataParallel(net)
    parallel(batches[rank]).square().mean().backward()
    results[rank] = [p.grad.numpy() for p in net.parameters()]
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # starts two processes that import torch
def test_two_processes_agree_on_the_gradient_of_the_whole_batch():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    batches = torch.randn(2, 2, 3, 8)
    net = make_net()
    apply_weight_norm(net)
    net(batches.flatten(0, 1)).square().mean().backward()
    results = torch.multiprocessing.get_context("spawn").Manager().dict()
    torch.multiprocessing.spawn(_ddp_rank, (port, batches, results), nprocs=2)

    for ours, first, second in zip(net.parameters(), results[0], results[1], strict=True):
        assert (first == second).all()
        assert_close(torch.from_numpy(first), ours.grad, rtol=1e-5, atol=FLOAT)
