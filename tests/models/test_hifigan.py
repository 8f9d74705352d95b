"""HiFi-GAN's generator against its published definition, written down a second time."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from wavewn.config import HiFiGANConfig
from wavewn.config.presets import PRESETS, preset_config
from wavewn.errors import ConfigError, ShapeError
from wavewn.models.hifigan import HiFiGAN
from wavewn.nn.latency import measure

ATOL = 1e-5  # float32; sums in another order
BANDS, FRAMES = 7, 11

SMALL = HiFiGANConfig(
    channels=16,
    upsample_rates=(4, 2),
    upsample_kernel_sizes=(8, 4),
    resblock_kernel_sizes=(3, 7),
    resblock_dilations=((1, 3), (1, 2)),
)
# Name: (settings, mode of the padding).
CASES = {
    "two convolutions a dilation": (SMALL, "constant"),
    "one convolution a dilation": (dataclasses.replace(SMALL, resblock="2"), "constant"),
    "reflected": (dataclasses.replace(SMALL, padding="reflect"), "reflect"),
    "replicated": (dataclasses.replace(SMALL, padding="replicate"), "replicate"),
    "causal": (dataclasses.replace(SMALL, causal=True), "constant"),
    "odd rates": (
        dataclasses.replace(SMALL, upsample_rates=(5, 3), upsample_kernel_sizes=(10, 6)),
        "constant",
    ),
    "a kernel longer by an even number": (
        dataclasses.replace(SMALL, upsample_rates=(5, 2), upsample_kernel_sizes=(11, 6)),
        "constant",
    ),
}


def model(settings, bands=BANDS):
    """Random weights large enough for every layer to count."""
    torch.manual_seed(0)
    made = HiFiGAN(settings, bands)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter) * 0.15
    return made


def published(state, settings, mode, mel):
    """The forward of the published code, with its own formulas for the padding."""

    def conv(name, x, dilation=1):
        weight = state[f"{name}.weight"]
        context = (weight.shape[2] - 1) * dilation
        left = context if settings.causal else context // 2
        x = F.pad(x, (left, context - left), mode=mode)
        return F.conv1d(x, weight, state[f"{name}.bias"], dilation=dilation)

    def up(name, x, rate):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        taps = weight.shape[2]
        if settings.causal:
            return F.conv_transpose1d(x, weight, bias, rate)[..., : x.shape[2] * rate]
        if (taps - rate) % 2 == 0:
            return F.conv_transpose1d(x, weight, bias, rate, padding=(taps - rate) // 2)
        assert taps == 2 * rate  # as the recipes for hops of 300 have it
        cut = {"padding": rate // 2 + rate % 2, "output_padding": rate % 2}
        return F.conv_transpose1d(x, weight, bias, rate, **cut)

    def block(name, x, dilations):
        for i, dilation in enumerate(dilations):
            y = F.leaky_relu(x, 0.1)
            if settings.resblock == "1":
                y = F.leaky_relu(conv(f"{name}.convs1.{i}", y, dilation), 0.1)
                x = conv(f"{name}.convs2.{i}", y) + x
            else:
                x = conv(f"{name}.convs.{i}", y, dilation) + x
        return x

    x = conv("conv_pre", mel)
    for i, rate in enumerate(settings.upsample_rates):
        x = up(f"ups.{i}", F.leaky_relu(x, 0.1), rate)
        chosen = settings.resblock_dilations
        blocks = [block(f"resblocks.{2 * i + j}", x, d) for j, d in enumerate(chosen)]
        x = sum(blocks) / 2
    return torch.tanh(conv("conv_post", F.leaky_relu(x)))[:, 0]


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_is_published(case, compare):
    settings, mode = CASES[case]

    compare(model(settings), published, mode, FRAMES, ATOL)


def test_its_keys_are_those_of_the_published_models():
    with torch.device("meta"):
        keys = list(HiFiGAN(HiFiGANConfig(), 80).state_dict())
        short = list(HiFiGAN(preset_config("hifigan-v3"), 80).state_dict())

    names = [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]
    assert [f"{name}.{end}" for name in names for end in ("weight", "bias")] == keys
    assert len(names) == 1 + 4 + 12 * 6 + 1
    assert names[:6] == ["conv_pre", "ups.0", "ups.1", "ups.2", "ups.3", "resblocks.0.convs1.0"]
    assert names[-2:] == ["resblocks.11.convs2.2", "conv_post"]
    assert "resblocks.8.convs.1.bias" in short


@pytest.mark.parametrize(
    ("name", "millions", "hop"),
    [("hifigan-v1", 13.92, 256), ("hifigan-v2", 0.92, 256), ("hifigan-v3", 1.46, 256)],
)
def test_the_presets_have_the_published_sizes(name, millions, hop):
    with torch.device("meta"):
        made = HiFiGAN(preset_config(name), 80)

    parameters = sum(parameter.numel() for parameter in made.parameters())
    assert int(parameters / 1e4) / 100 == millions  # table 1 of the paper leaves off digits
    assert made.hop_length == hop


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("hifigan")])
def test_every_preset_runs_without_numbers_and_causally_without_latency(name):
    settings = preset_config(name)
    with torch.device("meta"):
        made = HiFiGAN(settings, 80)
        causal = HiFiGAN(dataclasses.replace(settings, causal=True), 80)

    assert measure(causal.flow, 80, settings.hop_length).latency_samples == 0
    assert 2500 < measure(made.flow, 80, settings.hop_length).latency_samples < 7000


@pytest.mark.parametrize(
    ("end", "hop"),
    [("16k", 200), ("16k-hop256", 256), ("24k", 300), ("24k-hop256", 256), ("44k", 512)]
    + [("48k", 480), ("48k-hop512", 512)],
)
def test_presets_of_other_sample_rates_upsample_by_the_hops_in_use(end, hop):
    published = {f"v{i}": preset_config(f"hifigan-v{i}") for i in (1, 2, 3)}

    for version, original in published.items():
        settings = preset_config(f"hifigan-{version}-{end}")

        assert settings.hop_length == hop
        rates = settings.upsample_rates
        assert settings.upsample_kernel_sizes == tuple(2 * rate for rate in rates)
        same = {"upsample_rates": rates, "upsample_kernel_sizes": settings.upsample_kernel_sizes}
        assert dataclasses.replace(original, **same) == settings


def test_the_latency_of_v1_is_the_one_worked_out_by_hand():
    blocks = 5 * (1 + 3 + 5) + 5 * 3  # rows ahead in the longest branch: 11 taps
    rows = 3  # conv_pre
    for rate, crop in ((8, 4), (8, 4), (2, 1), (2, 1)):
        rows = rows * rate + crop + blocks
    with torch.device("meta"):
        made = HiFiGAN(HiFiGANConfig(), 80)

    assert measure(made.flow, 80, 256).latency_samples == rows + 3


def test_it_starts_out_as_torch_draws_its_layers():
    torch.manual_seed(0)
    made = HiFiGAN(dataclasses.replace(SMALL, channels=256), 80)

    for name, layer in made.named_modules():
        if isinstance(layer, torch.nn.Conv1d):
            bound = (layer.in_channels * layer.kernel_size[0]) ** -0.5
            assert abs(layer.weight.abs().max() / bound - 1) < 0.2, name


@pytest.mark.parametrize("shape", [(80, 5), (2, 5, 80), (1, 79, 5)])
def test_a_mel_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match=r"mel must be \[batch, 80 bands, frames\], got"):
        HiFiGAN(SMALL, 80)(torch.zeros(shape))


def test_too_few_frames_to_reflect_are_refused():
    made = HiFiGAN(dataclasses.replace(SMALL, padding="reflect"), BANDS)

    with pytest.raises(ShapeError, match="pads by reflect needs 4 rows and has 3"):
        made(torch.zeros(1, BANDS, 3))


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="'hifigan-v4'; there are hifigan-v1, hifigan-v2"):
        preset_config("hifigan-v4")
