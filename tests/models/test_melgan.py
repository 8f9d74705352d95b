"""MelGAN's generator against its published definition, written down a second time."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from wavewn.config import MelGANConfig
from wavewn.config.presets import preset_config
from wavewn.errors import ShapeError
from wavewn.models.melgan import MelGAN
from wavewn.nn.latency import measure

ATOL = 1e-5  # float32; sums in another order
BANDS, FRAMES = 7, 11

SMALL = MelGANConfig(channels=16, upsample_rates=(4, 2), stacks=2)
# Name: (settings, mode of the padding).
CASES = {
    "as published": (SMALL, "reflect"),
    "five taps": (dataclasses.replace(SMALL, stack_kernel_size=5, kernel_size=5), "reflect"),
    "odd rates": (dataclasses.replace(SMALL, upsample_rates=(5, 3)), "reflect"),
    "zeros": (dataclasses.replace(SMALL, padding="zeros"), "constant"),
    "replicated": (dataclasses.replace(SMALL, padding="replicate"), "replicate"),
    "causal": (dataclasses.replace(SMALL, padding="zeros", causal=True), "constant"),
}


def model(settings):
    """Random weights large enough for every layer to count."""
    torch.manual_seed(0)
    made = MelGAN(settings, BANDS)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    return made


def published(state, settings, mode, mel):
    """The forward of the published code, with its own formulas for the padding."""

    def conv(name, x, dilation=1):
        weight = state[f"{name}.weight"]
        context = (weight.shape[2] - 1) * dilation
        left = context if settings.causal else context // 2
        if context:
            x = F.pad(x, (left, context - left), mode=mode)
        return F.conv1d(x, weight, state[f"{name}.bias"], dilation=dilation)

    def up(name, x, rate):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if settings.causal:
            return F.conv_transpose1d(x, weight, bias, rate)[..., : x.shape[2] * rate]
        cut = {"padding": rate // 2 + rate % 2, "output_padding": rate % 2}
        return F.conv_transpose1d(x, weight, bias, rate, **cut)

    x = conv("conv_pre", mel)
    for i, rate in enumerate(settings.upsample_rates):
        x = up(f"ups.{i}", F.leaky_relu(x, 0.2), rate)
        for j in range(settings.stacks):
            name, dilation = f"stacks.{settings.stacks * i + j}", settings.stack_kernel_size**j
            y = conv(f"{name}.dilated", F.leaky_relu(x, 0.2), dilation)
            x = conv(f"{name}.mixed", F.leaky_relu(y, 0.2)) + conv(f"{name}.skip", x)
    return torch.tanh(conv("conv_post", F.leaky_relu(x, 0.2)))[:, 0]


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_is_published(case, compare):
    settings, mode = CASES[case]

    compare(model(settings), published, mode, FRAMES, ATOL)


def test_the_preset_has_the_published_size():
    with torch.device("meta"):
        made = MelGAN(preset_config("melgan"), 80)

    assert made.hop_length == 256
    assert round(sum(parameter.numel() for parameter in made.parameters()) / 1e6, 2) == 4.26


def test_the_latency_is_the_one_worked_out_by_hand():
    rows = 3  # conv_pre
    for rate, crop in ((8, 4), (8, 4), (2, 1), (2, 1)):
        rows = rows * rate + crop + (1 + 3 + 9)
    with torch.device("meta"):
        made = MelGAN(dataclasses.replace(MelGANConfig(), padding="zeros"), 80)
        causal = MelGAN(dataclasses.replace(MelGANConfig(), padding="zeros", causal=True), 80)

    assert measure(made.flow, 80, 256).latency_samples == rows + 3
    assert measure(causal.flow, 80, 256).latency_samples == 0


def test_it_starts_out_with_small_weights():
    torch.manual_seed(0)

    for name, parameter in MelGAN(dataclasses.replace(SMALL, channels=128), 80).named_parameters():
        if name.endswith("weight"):
            assert abs(parameter.std().item() / 0.02 - 1) < 0.2, name


def test_a_mel_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"\[batch, 7 bands, frames\], got \[1, 8, 5\]"):
        MelGAN(SMALL, BANDS)(torch.zeros(1, 8, 5))


def test_too_few_frames_to_reflect_are_refused():
    with pytest.raises(ShapeError, match="pads by reflect needs 4 rows and has 3"):
        MelGAN(SMALL, BANDS)(torch.zeros(1, BANDS, 3))
