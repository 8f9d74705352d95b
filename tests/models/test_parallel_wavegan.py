"""Parallel WaveGAN's generator against its published definition, written down a second time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wavewn.config import ParallelWaveGANConfig
from wavewn.errors import ShapeError
from wavewn.models.parallel_wavegan import ParallelWaveGAN
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure
from wavewn.nn.weight_norm import apply_weight_norm, folded_state_dict, load_state

BANDS = 5
FRAMES = 9
ATOL = 1e-5  # float32; sums in another order
KINDS = [(False, "zeros"), (False, "replicate"), (False, "reflect"), (True, "zeros")]


def settings(causal=False, padding="zeros"):
    return ParallelWaveGANConfig(
        residual_channels=6,
        gate_channels=8,
        skip_channels=7,
        cycles=2,
        layers_per_cycle=3,
        condition_context=2,
        upsample_rates=(2, 3),
        causal=causal,
        padding=padding,
    )


def model(**kind):
    torch.manual_seed(0)
    made = ParallelWaveGAN(settings(**kind), BANDS)
    for parameter in made.parameters():  # so that biases and smoothings count, too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def inputs(frames=FRAMES):
    torch.manual_seed(1)
    return torch.randn(2, BANDS, frames), torch.randn(2, 1, frames * 6)


MODES = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}


def published(state, mel, noise, causal, padding):
    """The forward pass by keys of the state dict, each convolution padded by hand."""

    def conv(name, x, dilation=1, mode=padding):
        weight = state[f"{name}.weight"]
        context = (weight.shape[2] - 1) * dilation
        left = context if causal else context // 2
        if context:
            x = F.pad(x, (left, context - left), mode=MODES[mode])
        return F.conv1d(x, weight, state.get(f"{name}.bias"), dilation=dilation)

    c = conv("upsample_net.conv_in", mel, mode="replicate")
    for index, rate in ((1, 2), (3, 3)):
        c = F.interpolate(c, scale_factor=float(rate), mode="nearest")
        kernel = state[f"upsample_net.upsample.up_layers.{index}.weight"]
        assert kernel.shape == (1, 1, 1, 2 * rate + 1)
        pads = (2 * rate, 0) if causal else (rate, rate)
        c = F.conv2d(F.pad(c, pads, mode=MODES[padding])[:, None], kernel)[:, 0]
    x = conv("first_conv", noise)
    skips = 0
    for i in range(6):
        layer = f"conv_layers.{i}"
        a = conv(f"{layer}.conv", x, dilation=2 ** (i % 3)) + conv(f"{layer}.conv1x1_aux", c)
        z = torch.tanh(a[:, :4]) * torch.sigmoid(a[:, 4:])
        skips = skips + conv(f"{layer}.conv1x1_skip", z)
        if i < 5:
            x = (conv(f"{layer}.conv1x1_out", z) + x) * math.sqrt(0.5)
    x = skips * math.sqrt(1 / 6)
    x = conv("last_conv_layers.1", F.relu(x))
    return conv("last_conv_layers.3", F.relu(x))[:, 0]


@torch.no_grad()
@pytest.mark.parametrize(("causal", "padding"), KINDS)
def test_it_computes_what_is_published(causal, padding):
    made = model(causal=causal, padding=padding)
    mel, noise = inputs()

    audio = made(mel, noise)

    assert audio.shape == (2, FRAMES * 6)
    expected = published(made.state_dict(), mel, noise, causal, padding)
    assert_close(audio, expected, rtol=0, atol=ATOL)
    assert expected.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize(("causal", "padding"), KINDS)
@pytest.mark.parametrize("chunk", [1, 2, 4, 7])
def test_chunks_equal_the_whole(causal, padding, chunk):
    made = model(causal=causal, padding=padding)
    mel, noise = inputs()
    measured = measure(made.flow, BANDS, 6)
    memory = {name: torch.zeros(2, *shape) for name, shape in measured.shapes.items()}

    parts = []
    for start in range(0, FRAMES + chunk, chunk):  # the last chunk is empty, or nearly
        end = min(start + chunk, FRAMES)
        start, ended = min(start, FRAMES), start >= FRAMES
        frames = Rows.of(mel[:, :, start:end], start, ended)
        part = made.flow(
            Flow(memory), frames, Rows.of(noise[:, :, start * 6 : end * 6], start * 6, ended)
        )
        parts.append(part.whole[:, 0])

    assert_close(torch.cat(parts, 1), made(mel, noise), rtol=0, atol=ATOL)


def test_a_causal_model_lags_by_nothing_and_the_other_by_what_its_layers_see():
    assert measure(model(causal=True).flow, BANDS, 6).latency_samples == 0
    # Two frames, then 2 rows of 3 samples, 3 samples, and the dilations of all layers.
    assert measure(model().flow, BANDS, 6).latency_samples == 2 * 6 + 2 * 3 + 3 + 2 * (1 + 2 + 4)


def test_the_future_is_not_heard_by_a_causal_model():
    mel, noise = (x.requires_grad_() for x in inputs())

    model(causal=True)(mel, noise)[:, 23].sum().backward()

    assert mel.grad[:, :, 4:].abs().max() == noise.grad[:, :, 24:].abs().max() == 0
    assert mel.grad[:, :, 3].abs().max() > 0
    assert noise.grad[:, :, 23].abs().max() > 0


def test_every_parameter_learns():
    made = model()
    apply_weight_norm(made)

    made(*inputs()).square().sum().backward()

    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_weight_norm_folds_away():
    normed, plain = model(), ParallelWaveGAN(settings(), BANDS)
    expected = normed(*inputs())
    names = apply_weight_norm(normed)
    load_state(plain, folded_state_dict(normed))

    assert "upsample_net.upsample.up_layers.3" in names
    assert_close(normed(*inputs()), expected, rtol=0, atol=ATOL)
    assert_close(plain(*inputs()), expected, rtol=0, atol=ATOL)


def test_the_keys_are_the_published_ones_but_for_an_output_that_nobody_hears():
    # Written down from a checkpoint's definition: two rates, three layers, one cycle.
    layer = ("conv.weight", "conv.bias", "conv1x1_aux.weight", "conv1x1_out.weight")
    layer += ("conv1x1_out.bias", "conv1x1_skip.weight", "conv1x1_skip.bias")
    keys = {"first_conv.weight", "first_conv.bias", "upsample_net.conv_in.weight"}
    keys |= {f"upsample_net.upsample.up_layers.{i}.weight" for i in (1, 3)}
    keys |= {f"last_conv_layers.{i}.{end}" for i in (1, 3) for end in ("weight", "bias")}
    keys |= {f"conv_layers.{i}.{end}" for i in range(6) for end in layer}

    missing = keys ^ set(model().state_dict())

    assert missing == {"conv_layers.5.conv1x1_out.weight", "conv_layers.5.conv1x1_out.bias"}


def test_a_new_model_repeats_frames_and_smooths_them_by_their_mean():
    made = ParallelWaveGAN(settings(), BANDS)

    kernel = made.upsample_net.upsample.up_layers["3"].weight

    assert_close(kernel, torch.full((1, 1, 1, 7), 1 / 7))


@pytest.mark.parametrize("noise", [None, torch.zeros(2, 1, 6 * FRAMES - 1), torch.zeros(1, 54)])
def test_noise_of_another_length_is_refused(noise):
    with pytest.raises(ShapeError, match=r"noise must be \[2, 1, 54\]"):
        model()(inputs()[0], noise)


def test_a_mel_of_other_bands_is_refused():
    with pytest.raises(ShapeError, match="5 bands"):
        model()(torch.zeros(2, 4, FRAMES), torch.zeros(2, 1, 6 * FRAMES))
