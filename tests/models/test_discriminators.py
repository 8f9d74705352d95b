"""The discriminators against the published ones, and what a training asks of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from wavewn.audio.companding import pre_emphasis
from wavewn.config import DISCRIMINATORS, DiscriminatorsConfig
from wavewn.errors import ConfigError, ShapeError
from wavewn.models.discriminators import Discriminators
from wavewn.nn.weight_norm import apply_weight_norm, is_weight_normed

MPD_PARAMETERS, MSD_PARAMETERS = 41.1e6, 29.6e6  # published; 70.7 million together
ROUNDING = 0.05e6
ATOL = 1e-6  # float32; 1-D and 2-D convolutions differ in the order of a few sums

SMALL = DiscriminatorsConfig((2, 3, 5), 2, ((64, 16, 64), (32, 10, 20)), 4, 16)


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return Discriminators(DISCRIMINATORS["hifigan"])


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Discriminators(SMALL)


@pytest.fixture
def audio():
    return 0.3 * torch.randn(2, 401, generator=torch.Generator().manual_seed(1))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_published_preset_has_the_published_sizes(published):
    assert parameters(published.mpd) == pytest.approx(MPD_PARAMETERS, abs=ROUNDING)
    assert parameters(published.msd) == pytest.approx(MSD_PARAMETERS, abs=ROUNDING)
    assert parameters(published) == pytest.approx(MPD_PARAMETERS + MSD_PARAMETERS, abs=ROUNDING)


def test_keys_and_shapes_are_the_published_ones(published):
    layers = [*(f"convs.{j}" for j in range(5)), "conv_post"]
    names = [f"discriminators.{i}.{layer}" for i in range(5) for layer in layers]
    assert list(published.mpd.state_dict()) == [
        f"{name}.{end}" for name in names for end in ("weight", "bias")
    ]
    shapes = [tuple(conv.weight.shape) for conv in published.mpd.discriminators[0].convs]
    assert shapes == [
        (32, 1, 5, 1),
        (128, 32, 5, 1),
        (512, 128, 5, 1),
        (1024, 512, 5, 1),
        (1024, 1024, 5, 1),
    ]
    keys = published.msd.state_dict()
    assert keys["discriminators.1.convs.6.weight"].shape == (1024, 1024, 5)
    assert keys["discriminators.2.conv_post.weight"].shape == (1, 1024, 3)
    assert "discriminators.0.convs.0.weight" not in keys  # spectral norm


def test_the_light_preset_is_light():
    settings = DISCRIMINATORS["light"]

    assert parameters(Discriminators(settings)) < 0.5e6
    assert settings.scales == 0 and settings.resolutions and len(settings.periods) >= 4


def test_a_period_is_judged_as_by_the_published_two_dimensional_layers(small, audio):
    for period, one in zip(SMALL.periods, small.mpd.discriminators, strict=True):
        x = F.pad(audio[:, None], (0, -audio.shape[1] % period), "reflect")
        x = x.view(2, 1, -1, period)
        maps = []
        for i, conv in enumerate([*one.convs, one.conv_post]):
            x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
            x = x if i == len(one.convs) else F.leaky_relu(x, 0.1)
            maps.append(x.permute(0, 3, 1, 2).flatten(0, 1))

        judgement = one(audio)

        for ours, theirs in zip(judgement.features, maps, strict=True):
            assert_close(ours, theirs, rtol=0, atol=ATOL)
        assert_close(judgement.scores, maps[-1].reshape(2, -1), rtol=0, atol=ATOL)


def test_the_second_scale_hears_half_the_rate(small, audio):
    halved = F.avg_pool1d(audio[:, None], 4, 2, padding=2)

    second = small.msd.eval()(audio)[1]

    assert torch.equal(second.scores, small.msd.discriminators[1](halved).scores)


def test_a_spectrogram_comes_eight_bins_at_a_time(small, audio):
    one = small.mrd.discriminators[1]
    theirs = torch.stft(
        pre_emphasis(audio, 0.97), 32, 10, 20, torch.hann_window(20), return_complex=True
    )
    theirs = theirs * (20 / torch.hann_window(20).norm())

    folded = one.folded(audio)

    assert folded.shape == (2, 16, 41, 2)
    assert folded.stride(1) == 1  # channels last in memory
    for bin_ in range(16):
        channel, group = 2 * (bin_ % 8), bin_ // 8
        ours = torch.complex(folded[:, channel, :, group], folded[:, channel + 1, :, group])
        assert_close(ours, theirs[:, bin_], rtol=1e-4, atol=1e-5)


def test_judgements_keep_their_order_and_end_in_scores(small, audio):
    judgements = small(audio)

    assert len(judgements) == 3 + 2 + 2
    for one in judgements:
        assert one.scores.shape[0] == 2
        assert torch.equal(one.scores.flatten(), one.features[-1].flatten())
        assert len(one.features) in (5, 6, 8)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        DiscriminatorsConfig(periods=(), scales=0, resolutions=((32, 8, 32),), channels=2),
        DiscriminatorsConfig(periods=(7,), scales=0, channels=2, max_channels=3),
        DiscriminatorsConfig(periods=(), scales=2, channels=4, max_channels=16),
    ],
)
def test_gradients_reach_every_parameter_and_the_audio(settings, audio):
    discriminators = Discriminators(settings)
    apply_weight_norm(discriminators)
    audio = audio.requires_grad_()

    sum(one.scores.square().sum() for one in discriminators(audio)).backward()

    assert audio.grad.abs().sum(dim=1).min() > 0
    for name, parameter in discriminators.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_weight_norm_changes_no_judgement_and_leaves_the_spectral_norm_alone(small, audio):
    small.eval()  # in training spectral norm refines its estimate at every call
    before = [one.scores for one in small(audio)]

    names = apply_weight_norm(small)

    convs = {n for n, m in small.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d)}
    first = {name for name in convs if name.startswith("msd.discriminators.0.")}
    assert set(names) == convs - first and len(first) == 8
    assert not any(is_weight_normed(small.get_submodule(name)) for name in first)
    for ours, theirs in zip(small(audio), before, strict=True):
        assert_close(ours.scores, theirs, rtol=1e-5, atol=1e-6)


def test_the_first_scale_has_the_norm_of_one(small, audio):
    for _ in range(100):
        small.msd(audio)

    norms = [
        torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
        for conv in small.msd.discriminators[0].convs
    ]
    assert_close(torch.stack(norms), torch.ones(len(norms)), rtol=0, atol=0.02)


def test_under_autocast_the_layers_are_bfloat16_and_train(small, audio):
    apply_weight_norm(small)

    with torch.autocast("cpu", torch.bfloat16):
        judgements = small(audio)
    sum(one.scores.float().sum() for one in judgements).backward()

    assert {map_.dtype for one in judgements for map_ in one.features} == {torch.bfloat16}
    assert {p.grad.dtype for p in small.parameters()} == {torch.float32}
    with torch.no_grad():
        exact = small(audio)
    for one, other in zip(judgements, exact, strict=True):
        assert_close(one.scores.float(), other.scores, rtol=0.1, atol=0.02)  # 8 bits


def test_audio_of_another_shape_is_refused(small):
    with pytest.raises(ShapeError, match=r"\[batch, samples\], got \[1, 1, 400\]"):
        small(torch.zeros(1, 1, 400))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"periods": (), "scales": 0}, "names no discriminator"),
        ({"periods": (2, 0)}, "from 1 on"),
        ({"scales": -1}, "scales must be at least 0"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"channels": 6}, "channels that 4 divides"),
        ({"max_channels": 24}, "max_channels that 16 divides"),
        ({"resolutions": ((1000, 100, 400),)}, "multiple of 16"),
        ({"resolutions": ((512, 500, 400),)}, "1 <= hop_length <= win_length <= n_fft"),
        ({"resolutions": ((512, 128),)}, "n_fft, hop_length, win_length"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DiscriminatorsConfig(**settings)
