"""Data-dependent initialisation: tame outputs at every layer, and no silent failure."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wavewn.errors import ConfigError
from wavewn.nn.conv import CausalConv1d
from wavewn.nn.upsample import TransposedUpsample
from wavewn.nn.weight_norm import apply_weight_norm, data_dependent_init, gain_and_direction

TOLERANCE = 1e-4  # float32 moments of a few thousand values


def moments(y, channel_axis=-1):
    rows = y.movedim(channel_axis, -1).flatten(0, -2)
    return rows.mean(0), rows.std(0, correction=0)


def batch(channels=3, seed=0):
    torch.manual_seed(seed)
    return 0.3 + 0.8 * torch.randn(4, 600, channels) * torch.arange(1, channels + 1)


def make_net():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), CausalConv1d(6, 5, 2, 4), nn.Linear(5, 4))
    apply_weight_norm(net)
    return net


def test_every_layer_gets_mean_0_and_the_wanted_deviation_on_initialised_inputs():
    net, x = make_net(), batch()
    scales = {"0": 1.0, "2": torch.linspace(0.1, 1, 5), "3": 0.1}
    report = data_dependent_init(net, lambda: net(x), scale=lambda name, channels: scales[name])

    assert report.layers == ["0", "2", "3"] and not report.dead and not report.capped
    for end, name in ((1, "0"), (3, "2"), (4, "3")):
        mean, deviation = moments(net[:end](x))
        assert_close(mean, torch.zeros_like(mean), rtol=0, atol=TOLERANCE)
        assert_close(deviation, torch.ones_like(mean) * scales[name], rtol=TOLERANCE, atol=0)


def test_gain_and_bias_are_the_papers_formula():
    net = make_net()
    x = batch()
    g, v = gain_and_direction(net[0])
    with torch.no_grad():
        t = x @ (v / v.norm(dim=1, keepdim=True)).T
    mean, deviation = moments(t)
    data_dependent_init(net, lambda: net(x), max_gain=1e9)

    assert_close(g[:, 0].detach(), 1 / deviation, rtol=TOLERANCE, atol=0)
    assert_close(net[0].bias.detach(), -mean / deviation, rtol=0, atol=TOLERANCE)


def test_torchs_own_layouts_are_counted_over_their_channel_axis():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 6, 3), nn.ConvTranspose1d(6, 4, 4, stride=2, bias=False))
    apply_weight_norm(net)
    x = batch().transpose(1, 2)
    data_dependent_init(net, lambda: net(x))

    mean, deviation = moments(net[0](x), 1)
    assert_close(mean, torch.zeros(6), rtol=0, atol=TOLERANCE)
    assert_close(deviation, torch.ones(6), rtol=TOLERANCE, atol=0)
    assert_close(moments(net(x), 1)[1], torch.ones(4), rtol=TOLERANCE, atol=0)
    up = TransposedUpsample(3, 5)
    apply_weight_norm(up)
    assert data_dependent_init(up, lambda: up(batch())).layers == ["conv"]


def test_images_are_counted_over_their_channel_axis():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, (1, 5), bias=False))
    apply_weight_norm(net)
    x = batch().transpose(1, 2).unflatten(2, (20, 30))
    data_dependent_init(net, lambda: net(x))

    mean, deviation = moments(net[0](x), 1)
    assert_close(mean, torch.zeros(6), rtol=0, atol=TOLERANCE)
    assert_close(deviation, torch.ones(6), rtol=TOLERANCE, atol=0)
    assert_close(moments(net(x), 1)[1], torch.ones(4), rtol=TOLERANCE, atol=0)


def test_a_silent_batch_is_refused_by_name():
    net = make_net()
    with pytest.raises(ConfigError, match="no signal at '0': .* got silence"):
        data_dependent_init(net, lambda: net(torch.zeros(4, 600, 3)))


def test_a_run_that_never_calls_the_model_is_refused():
    with pytest.raises(ConfigError, match="reached no layer"):
        data_dependent_init(make_net(), lambda: None)


def test_dead_channels_are_reported_and_keep_their_gain():
    net, x = make_net(), batch()
    with torch.no_grad():
        g, v = gain_and_direction(net[0])
        g[4] = 0
    report = data_dependent_init(net, lambda: net(x))
    assert report.dead == {"0": [4]}
    assert g[4] == 0
    assert net(x).isfinite().all()


def test_a_gain_grows_by_the_bound_at_most_and_the_report_says_where():
    net, x = make_net(), batch()
    with torch.no_grad():
        g = gain_and_direction(net[0])[0]
        g[2] *= 1e-3
    before = g[2].item()
    report = data_dependent_init(net, lambda: net(x), max_gain=10.0)
    assert report.capped["0"] == [2]
    assert g[2].item() == pytest.approx(10 * before)


def test_rows_that_see_the_zeros_before_the_crop_can_be_left_out():
    net, x = make_net(), batch()
    x[:, :150] = 0
    data_dependent_init(net, lambda: net(x), skip_left=0.25)
    mean, deviation = moments(net[0](x)[:, 150:])
    assert_close(mean, torch.zeros(6), rtol=0, atol=TOLERANCE)
    assert_close(deviation, torch.ones(6), rtol=TOLERANCE, atol=0)
    assert moments(net[0](x))[1].max() < 0.95  # with them it would be another deviation


def test_a_layer_used_twice_is_set_once_at_its_first_use():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    net = nn.Sequential(layer, nn.Tanh(), layer)
    apply_weight_norm(net)
    x = batch()
    assert data_dependent_init(net, lambda: net(x)).layers == ["0"]
    assert_close(moments(net[0](x))[1], torch.ones(3), rtol=TOLERANCE, atol=0)


def test_one_row_an_utterance_is_too_few_and_stays():
    torch.manual_seed(0)
    net = nn.ModuleDict({"speaker": nn.Linear(3, 4), "rows": nn.Linear(4, 2)})
    apply_weight_norm(net)
    before = gain_and_direction(net["speaker"])[0].clone()
    report = data_dependent_init(
        net, lambda: net["rows"](torch.tanh(batch(4) + net["speaker"](torch.ones(4, 3))[:, None]))
    )
    assert report.layers == ["rows"]
    assert torch.equal(gain_and_direction(net["speaker"])[0], before)


def test_no_hook_stays_behind_even_after_an_error():
    net, x = make_net(), batch()
    with pytest.raises(ConfigError):
        data_dependent_init(net, lambda: net(torch.zeros(4, 600, 3)))
    assert not any(module._forward_hooks for module in net.modules())
    data_dependent_init(net, lambda: net(x))
    assert_close(net(x), net(x), rtol=0, atol=0)
    assert not any(module._forward_hooks for module in net.modules())
