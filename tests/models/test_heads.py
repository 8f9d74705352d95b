"""The heads against formulas written again in NumPy, and their samples against probabilities."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close

from wavewn.config import Gaussian, LogisticMixture, MuLaw
from wavewn.models.heads import make_head
from wavewn.noise import draw_noise

LOG_ATOL = 1e-4  # float32 against float64, log probabilities down to -30
MASS_ATOL = 1e-3  # a sum of 65,536 float32 masses
P_VALUE = 1e-3  # the noise is fixed, so a test that passes once passes always
DRAWS = 20_000
LEVELS = -1 + 2 * np.arange(65_536) / 65_535

HEADS = [MuLaw(classes=256), LogisticMixture(), Gaussian()]
all_heads = pytest.mark.parametrize("settings", HEADS, ids=lambda s: s.kind)


def noise_for(head, draws=DRAWS):
    zero = torch.zeros(1, dtype=torch.int64)
    return draw_noise(head.noise, zero + 5, zero, zero, draws)


def speech(samples=4000):
    t = torch.arange(samples) / 16_000
    return (0.6 * torch.sin(2 * math.pi * 180 * t) * torch.sin(2 * math.pi * 3 * t))[None]


def mixture_log_prob(parameters, x, log_scale_min=-12.0):
    """Log mass of the 16-bit step around x, in float64, as the papers write it."""
    logits, mean, log_scale = np.split(parameters.double().numpy(), 3, axis=-1)
    scale = np.exp(np.maximum(log_scale, log_scale_min))
    x = x[..., None]
    above = np.where(x >= 1, 1.0, special.expit((x + 1 / 65_535 - mean) / scale))
    below = np.where(x <= -1, 0.0, special.expit((x - 1 / 65_535 - mean) / scale))
    mass = (special.softmax(logits, axis=-1) * (above - below)).sum(-1)
    return np.log(np.maximum(mass, 1e-300))


@pytest.mark.parametrize("classes", [2, 64, 256, 1024])
def test_mu_law_probability_is_the_softmax_at_the_nearest_class(classes):
    torch.manual_seed(0)
    head = make_head(MuLaw(classes=classes))
    parameters = 3 * torch.randn(50, classes)
    audio = torch.rand(50) * 2 - 1
    mu = classes - 1
    x = audio.double().numpy()
    companded = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    index = np.rint((companded + 1) / 2 * mu).astype(int)
    wanted = special.log_softmax(parameters.double().numpy(), axis=-1)[np.arange(50), index]

    level = head.encode(audio)
    assert head.parameters == classes
    assert_close(head.log_prob(parameters, level).double().numpy(), wanted, rtol=0, atol=LOG_ATOL)
    every = head.levels_of(torch.arange(classes))
    total = head.log_prob(parameters[:, None].expand(-1, classes, -1), every.expand(50, -1))
    assert_close(total.exp().sum(-1), torch.ones(50), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 64, 256, 1024])
def test_every_mu_law_class_survives_the_way_through_audio(classes):
    head = make_head(MuLaw(classes=classes))
    index = torch.arange(classes)
    level = head.levels_of(index)
    assert torch.equal(head.classes_of(level), index)
    assert torch.equal(head.encode(head.decode(level)), level)
    assert level[0] == -1 and level[-1] == 1
    assert_close(head.decode(level), -head.decode(level).flip(0), rtol=0, atol=1e-6)


def test_mixture_probability_is_that_of_the_papers():
    torch.manual_seed(0)
    head = make_head(LogisticMixture(components=3))
    parameters = torch.randn(7, 400, 9) * torch.tensor([1.0] * 3 + [0.5] * 3 + [1.0] * 3)
    parameters[..., 6:] -= torch.arange(7.0)[:, None, None]  # scales from 1 to 0.002
    x = np.random.default_rng(0).choice(LEVELS, (7, 400))
    x[:, 0], x[:, 1] = -1, 1
    ours = head.log_prob(parameters, torch.from_numpy(x).float()).double().numpy()
    wanted = mixture_log_prob(parameters, x)
    trusted = wanted > -30  # beyond, the papers' difference cancels even in float64
    assert trusted.mean() > 0.5 and trusted[:, :2].any()
    # A level near 1 is known to 6e-8, which the narrowest scale turns into a relative 1e-3.
    assert_close(ours[trusted], wanted[trusted], rtol=1e-4, atol=2e-3)
    assert np.isfinite(ours).all()


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, -2), (0.999, -3), (-1.2, -1), (0.3, -8)])
def test_a_mixtures_masses_sum_to_one_over_all_steps(mean, log_scale):
    head = make_head(LogisticMixture(components=2))
    one = torch.tensor([0.0, 1.0, mean, mean / 2, log_scale, log_scale])
    mass = head.log_prob(one.expand(len(LEVELS), -1), torch.from_numpy(LEVELS).float()).exp()
    assert mass.double().sum().item() == pytest.approx(1, abs=MASS_ATOL)


def test_scales_are_bounded_below_and_far_tails_keep_a_gradient():
    head = make_head(LogisticMixture(components=1, log_scale_min=-5.0))
    low = torch.tensor([0.0, 0.1, -50.0])
    assert head.log_prob(low, torch.tensor(0.1)) == head.log_prob(
        torch.tensor([0.0, 0.1, -5.0]), torch.tensor(0.1)
    )
    for settings in (LogisticMixture(components=1), Gaussian()):
        head = make_head(settings)
        far = torch.tensor([0.0, -1.0, -7.0][-head.parameters :], requires_grad=True)
        head.log_prob(far, torch.tensor(0.9)).backward()
        assert far.grad.isfinite().all() and far.grad.abs().max() > 1


def test_gaussian_log_prob_is_scipys_density():
    torch.manual_seed(0)
    head = make_head(Gaussian(log_scale_min=-3.0))
    parameters = torch.randn(500, 2) * torch.tensor([0.3, 2.0])
    x = torch.rand(500) * 2 - 1
    mean, log_scale = parameters.double().numpy().T
    wanted = stats.norm.logpdf(x.double().numpy(), mean, np.exp(np.maximum(log_scale, -3.0)))
    assert_close(head.log_prob(parameters, x).double().numpy(), wanted, rtol=1e-5, atol=LOG_ATOL)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("classes", [2, 16, 256])
def test_mu_law_samples_come_as_often_as_their_probability_says(classes, temperature):
    torch.manual_seed(classes)
    head = make_head(MuLaw(classes=classes))
    logits = 2 * torch.randn(classes)
    samples = head.sample(logits.expand(1, DRAWS, -1), noise_for(head), temperature)
    counts = torch.bincount(head.classes_of(samples)[0], minlength=classes).numpy()
    p = special.softmax(logits.double().numpy() / temperature)
    expected = p * DRAWS
    common = expected > 5  # rare classes are counted as one
    if not common.all():
        counts = np.append(counts[common], counts[~common].sum())
        expected = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(counts, expected).pvalue > P_VALUE
    wrong = np.roll(expected, 1)
    assert stats.chisquare(counts, wrong).pvalue < P_VALUE  # so that the line above can fail


def test_mixture_samples_follow_the_distribution():
    head = make_head(LogisticMixture(components=2))
    parameters = torch.tensor([0.5, -0.5, -0.2, 0.3, -3.5, -3.0])
    samples = head.sample(parameters.expand(1, DRAWS, -1), noise_for(head))[0].double().numpy()
    weight = special.softmax([0.5, -0.5])

    def cdf(x):
        parts = [special.expit((x - m) / math.exp(s)) for m, s in ((-0.2, -3.5), (0.3, -3.0))]
        return weight @ np.stack(parts)

    assert stats.kstest(samples, cdf).pvalue > P_VALUE
    assert stats.kstest(samples + 0.02, cdf).pvalue < P_VALUE


def test_gaussian_samples_follow_the_distribution():
    head = make_head(Gaussian())
    parameters = torch.tensor([0.1, -2.0]).expand(1, DRAWS, -1)
    for temperature in (1.0, 0.5):
        samples = head.sample(parameters, noise_for(head), temperature)[0].double().numpy()
        wanted = stats.norm(0.1, temperature * math.exp(-2.0))
        assert stats.kstest(samples, wanted.cdf).pvalue > P_VALUE
        assert stats.kstest(samples, stats.norm(0.1, 0.1).cdf).pvalue < P_VALUE


def test_temperature_0_gives_the_mode():
    noise = torch.rand(3, 2)
    mu_law = make_head(MuLaw(classes=16))
    logits = torch.randn(3, 16)
    assert torch.equal(mu_law.sample(logits, noise, 0), mu_law.levels_of(logits.argmax(-1)))
    mixture = make_head(LogisticMixture(components=2))
    parameters = torch.tensor([0.1, 2.0, -0.5, 0.25, -2.0, -2.0]).expand(3, -1)
    assert mixture.sample(parameters, noise, 0).tolist() == [0.25] * 3
    gaussian = make_head(Gaussian())
    assert gaussian.sample(torch.tensor([[0.5, 0.0]]), noise[:1], 0).tolist() == [0.5]


@pytest.mark.parametrize("settings", [LogisticMixture(components=3), Gaussian()])
def test_a_relocated_distribution_is_the_same_one_moved_and_widened(settings):
    torch.manual_seed(0)
    head = make_head(settings)
    parameters = 0.1 * torch.randn(1, 400, head.parameters)
    parameters[..., -head.components :] -= 3
    location, scale = 0.1 * torch.randn(1, 400), 0.1 + torch.rand(1, 400)
    moved = head.relocate(parameters, location, scale)
    noise = 0.1 + 0.8 * torch.rand(1, 400, len(head.noise))
    residual = (head.sample(moved, noise) - location) / scale
    assert_close(residual, head.sample(parameters, noise), rtol=0, atol=1e-5)
    assert_close(head.relocate(parameters, 0 * location, 0 * scale + 1), parameters)
    assert moved.dtype == torch.float32


@all_heads
def test_a_lower_temperature_spreads_samples_less(settings):
    torch.manual_seed(0)
    head = make_head(settings)
    parameters = torch.randn(head.parameters)
    if settings.kind != "mu-law":
        parameters = 0.1 * parameters - torch.linspace(0, 3, head.parameters)  # narrow enough
    parameters = parameters.expand(1, DRAWS, -1)
    spread = [
        head.sample(parameters, noise_for(head), t).double().histc(64, -1, 1).div(DRAWS)
        for t in (0.25, 0.5, 1.0)
    ]
    entropy = [-torch.xlogy(p, p).sum().item() for p in spread]
    assert entropy[0] < entropy[1] < entropy[2]


@all_heads
def test_extreme_noise_and_parameters_stay_within_the_levels(settings):
    head = make_head(settings)
    edge = {"uniform": [2**-24, 1 - 2**-24], "logistic": [-22.0, 22.0], "normal": [-7.0, 7.0]}
    noise = torch.tensor([edge[kind] for kind in head.noise]).T
    for value in (-40.0, 0.0, 40.0):
        samples = head.sample(torch.full((2, head.parameters), value), noise)
        assert samples.abs().max() <= 1 and samples.shape == (2,)


@all_heads
def test_audio_survives_encoding_within_a_step(settings):
    head = make_head(settings)
    audio = speech()
    level = head.encode(audio)
    step = 0.6 * math.log(256) / 255 + 1e-3 if settings.kind == "mu-law" else 1e-7
    assert (head.decode(level) - audio).abs().max() <= step
    assert torch.equal(head.encode(head.decode(level)), level)
    assert head.encode(torch.tensor([3.0, -3.0])).tolist() == [1, -1]  # clamped, not wrapped


@all_heads
def test_silence_feeds_the_network_zeros_and_features_have_the_stated_width(settings):
    head = make_head(settings)
    assert torch.equal(head.features(torch.zeros(2, 3)), torch.zeros(2, 3, head.input_features))
    features = head.features(speech())
    assert features.shape == (1, 4000, head.input_features)
    assert (features[..., 0].diff() * speech().diff() >= 0).all()  # order is kept


@all_heads
def test_log_prob_is_float32_even_for_bfloat16_parameters(settings):
    head = make_head(settings)
    parameters = torch.randn(2, 5, head.parameters).bfloat16()
    result = head.log_prob(parameters, head.encode(torch.zeros(2, 5)))
    assert result.dtype == torch.float32 and result.shape == (2, 5)


@pytest.mark.parametrize("settings", [MuLaw(), LogisticMixture(), Gaussian()])
def test_damage_adds_noise_in_the_companded_domain(settings):
    head = make_head(settings)
    audio = torch.tensor([-0.9, -0.01, 0.0, 0.002, 0.5])
    levels = head.encode(audio)

    one, none = torch.ones(5), torch.zeros(5)

    assert_close(head.damaged(levels, one, none), levels, rtol=0, atol=1e-6)
    assert not head.damaged(levels, none, none).any()
    moved = head.decode(head.damaged(levels, one, 0.02 * one)) - head.decode(levels)
    assert bool((moved > 0).all())
    assert moved[0] > 20 * moved[2]  # loud samples move by more
    assert head.damaged(levels, one, 3 * one).abs().max() <= 1
