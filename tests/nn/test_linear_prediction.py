"""Linear prediction: the step-up recursion, stability, the past alone, scales."""

import pytest
import torch
from torch.testing import assert_close

from wavewn.errors import ConfigError
from wavewn.nn.linear_prediction import (
    BLUR,
    FEATURES,
    SMALLEST_SCALE,
    LinearPredictor,
    PitchPredictor,
    aperiodicity,
    damaged_residual,
    lag_weights,
    predict,
    predictor_log_prob,
    predictor_of,
    residual_features,
    shortest_lag,
    step_up,
)


def test_step_up_gives_the_predictor_of_a_known_process():
    # k_1 = a_1 / (1 - a_2), k_2 = a_2 for x(t) = a_1 x(t-1) + a_2 x(t-2) + e(t)
    a = torch.tensor([1.6, -0.8])
    reflection = torch.stack([a[0] / (1 - a[1]), a[1]])
    assert_close(step_up(reflection), a)


def test_autocorrelation_and_reflection_agree():
    """Levinson's recursion on the autocorrelation of an AR process finds what was stepped up."""
    import scipy.linalg
    import scipy.signal

    torch.manual_seed(0)
    reflection = 0.9 * (2 * torch.rand(8, dtype=torch.float64) - 1)
    a = step_up(reflection).numpy()
    impulse = scipy.signal.lfilter([1.0], [1.0, *(-a)], [1.0] + [0.0] * 4000)
    r = [float(impulse[: len(impulse) - k] @ impulse[k:]) for k in range(9)]
    found = scipy.linalg.solve_toeplitz(r[:8], r[1:])
    assert_close(torch.from_numpy(found), torch.from_numpy(a), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 8, 16])
def test_every_predictor_is_stable(order):
    import numpy as np

    torch.manual_seed(order)
    projected = 3 * torch.randn(20, 4, order + 1, dtype=torch.float64)
    coefficients, scale = predictor_of(projected)
    assert coefficients.shape == (20, 4, order) and scale.shape == (20, 4, 1)
    for a in coefficients.flatten(0, 1).flip(-1):
        assert abs(np.roots([1.0, *(-a.numpy())])).max() < 1 + 1e-6  # of a polynomial this long
    unstable = np.roots([1.0, *(-1.5 * np.ones(order))])
    assert abs(unstable).max() > 1  # the check can fail


def test_the_scale_is_positive_and_bounded_below():
    scale = predictor_of(torch.tensor([[[0.0, -1e4]]]))[1]
    assert scale.item() == SMALLEST_SCALE


def test_prediction_is_the_sum_over_the_past_of_the_samples_own_frame():
    torch.manual_seed(0)
    hop, frames, order = 5, 3, 7
    levels, coefficients = torch.randn(2, hop * frames), torch.randn(2, frames, order)
    expected = torch.zeros_like(levels)
    for t in range(hop * frames):
        for i in range(1, order + 1):
            if t - i >= 0:
                expected[:, t] += coefficients[:, t // hop, order - i] * levels[:, t - i]
    assert_close(predict(levels, coefficients), expected)


def test_autocast_leaves_the_predictor_in_float32():
    predictor = LinearPredictor(4, 3)
    frames = torch.randn(1, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        coefficients, scale = predictor(frames)
    assert coefficients.dtype == scale.dtype == torch.float32
    assert_close(coefficients, predictor(frames)[0], atol=0, rtol=0)


def test_an_order_below_one_is_refused():
    with pytest.raises(ConfigError, match="order must be at least 1, got 0"):
        LinearPredictor(4, 0)


def test_silence_feeds_the_network_zeros_and_loud_residuals_stay_moderate():
    assert residual_features(torch.zeros(2, 3)).shape == (2, 3, FEATURES)
    assert not residual_features(torch.zeros(2, 3)).any()
    features = residual_features(torch.tensor([-20.0, 0.5, 20.0]))
    assert (features.diff(dim=0) > 0).all() and features.abs().max() < 7


def test_damage_works_on_the_logarithm_of_the_residual():
    residual = torch.tensor([-6.0, -0.1, 0.0, 0.3, 12.0])
    one, none = torch.ones(5), torch.zeros(5)
    assert_close(damaged_residual(residual, one, none), residual)
    assert not damaged_residual(residual, none, none).any()
    replaced = damaged_residual(residual, none, 0.5 * one)
    assert_close(replaced, torch.full((5,), 0.5).expm1())


def test_long_term_prediction_hears_lags_from_the_shortest_to_the_longest_alone():
    longest, frames, hop = 32, 6, 10
    predictor = PitchPredictor(3, longest)
    weights, gain = predictor(torch.randn(1, frames, 3))
    assert weights.shape == (1, frames, 32 - 4 + 1) and gain.shape == (1, frames, 1)
    impulse = torch.zeros(1, frames * hop)
    impulse[0, 5] = 1
    answer = predict(impulse, weights, shortest_lag(longest))[0]
    for t in range(frames * hop):
        lag = t - 5
        expected = weights[0, t // hop, longest - lag] if 4 <= lag <= 32 else torch.tensor(0.0)
        assert_close(answer[t], expected)


def test_the_long_term_predictor_is_stable_however_sure_it_is():
    projected = torch.zeros(1, 1, 30)
    projected[..., 13], projected[..., -1] = 1e3, 1e3
    weights, gain = lag_weights(projected)
    assert gain == 1
    assert weights[0, 0, 13] == weights.max() and 0.99 < weights.sum() <= 1 + 1e-6
    assert (weights > 0).sum() == BLUR  # the chosen lag and its neighbours
    projected[..., -1] = -1e3
    assert lag_weights(projected)[1] == 0
    weights, gain = lag_weights(5 * torch.randn(50, 1, 200))
    assert (weights >= 0).all() and (gain * weights.sum(-1, keepdim=True)).max() < 1


def test_a_tone_has_no_aperiodicity_at_its_period_and_much_elsewhere():
    longest, hop = 64, 20
    tone = torch.sin(torch.arange(200) * 2 * torch.pi / 40)[None]

    def at(*lags):
        weights = torch.zeros(1, 10, 64 - 8 + 1)
        for lag in lags:
            weights[..., longest - lag] = 1 / len(lags)
        return aperiodicity(tone, weights, longest)[0, 64 // hop + 1 :]

    assert at(40).max() < 1e-4
    assert_close(at(20), torch.full((6,), 4.0), rtol=1e-3, atol=0)
    assert at(36, 40, 44).min() > 0.01  # a broad choice is worse than the right one
    assert aperiodicity(0 * tone, torch.ones(1, 10, 57), longest).max() == 0


def test_the_predictors_own_density_is_scipys_logistic():
    from scipy import stats

    torch.manual_seed(0)
    level, location, scale = 0.1 * torch.randn(50), 0.1 * torch.randn(50), 0.01 + torch.rand(50)
    wanted = stats.logistic.logpdf(level.numpy(), location.numpy(), scale.numpy())
    found = predictor_log_prob(level, location, scale)
    assert_close(found, torch.from_numpy(wanted).float(), rtol=1e-4, atol=1e-4)
