"""Linear prediction from the mel: the network models what a short filter cannot.

For each frame a projection of the condition gives `order` reflection coefficients and the scale
g of the residual. Sample by sample, with a_i the predictor's coefficients:

    p(t) = sum_i a_i x(t - i)          prediction, i = 1 .. order
    e(t) = (x(t) - p(t)) / g           residual, of the order of one whatever the loudness

The network hears e(t - 1) alone, and its distribution is one of e(t): the spectral envelope and
the loudness come from the mel at frame rate, and the samples' network is left with the excitation.
2026-11-22, festvox-ru, 1,000 steps: told x(t - 1) and p(t) as well it predicts a little better
(0.03 nats), and what it then generates is worse (STOI 0.555 against 0.610).

With lags, the residual is predicted in its turn from one pitch period before, as speech coders
do, and the network's distribution moves by g b r(t), too:

    r(t) = sum_l w_l e(t - l)          l = longest // 8 .. longest

The network hears r(t). The w_l are positive and sum to one at most, the gain b is below one, so
that 1 / (1 - b sum w_l z^-l) is stable and makes voice out of noise.

Pitch is most of what we hear and next to nothing of the likelihood, in which the lags do not move:
after 2,500 steps of it three voiced frames in ten had the right one within a semitone. So the loss
also asks that w predicts the samples themselves, in which low harmonics are loud (`aperiodicity`):
two in three after 1,000 steps more, and V/UV F1 of the generated voice went from 0 to 0.54
(2026-11-22). The correlation of a frame with its past will not do: it is as high for a broad choice
of lags.

Coefficients are learned by maximum likelihood; no analysis of the mel is made. Within a frame they
are constant. The likelihood of p(t) + g r(t) and g alone is part of the loss: the network could
else undo any scale (2026-11-22: residuals grew to 23) and any lag. Reflection coefficients within
(-1, 1) keep the filter 1 / (1 - sum a_i z^-i) stable.

Source: Song, Byun & Kang 2019, "ExcitNet", arXiv:1811.04769, for a WaveNet of the excitation;
Hwang et al. 2018, "LP-WaveNet", arXiv:1811.11913, for mixture means moved by the prediction;
Subramani et al. 2022, "End-to-end LPCNet", arXiv:2202.11301, for learned coefficients; Markel &
Gray 1976, "Linear Prediction of Speech", section 5.3, for the step-up recursion; Atal & Schroeder
1970, "Adaptive predictive coding of speech signals", for the long-term predictor.
"""

import torch
from torch import Tensor, nn

from wavewn.errors import ConfigError

LOG_SCALE = -5.0  # natural logarithm of a typical residual in speech: where training starts
FAINT = 1e-4  # energy of a frame below which nobody asks for its pitch
SMALLEST_SCALE = 2.0**-14  # two steps of 16-bit audio
SHARPNESS = 4.0  # of the choice among lags
BLUR = 7  # neighbouring lags that share a choice: mels do not tell a period to the sample
PLAIN_GAIN, LOG_GAIN = 0.25, 2.0  # bring both to the order of one
FEATURES = 2  # what the network hears of the residual


class LinearPredictor(nn.Module):
    """From a frame's condition to a predictor and the scale of its residual.

    Args:
        channels: Channels of the condition.
        order: Coefficients, at least 1.

    Raises:
        ConfigError: `order` is below 1.
    """

    def __init__(self, channels: int, order: int) -> None:
        super().__init__()
        if order < 1:
            raise ConfigError(f"a linear predictor's order must be at least 1, got {order}")
        self.projection = nn.Linear(channels, order + 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, frames, channels] to what `predictor_of` gives; float32 under autocast, too."""
        with torch.autocast(frames.device.type, enabled=False):
            return predictor_of(self.projection(frames.float()))


class PitchPredictor(nn.Module):
    """From a frame's condition to the weights of the long-term prediction.

    Args:
        channels: Channels of the condition.
        longest: Longest lag in samples, at least 8.
    """

    def __init__(self, channels: int, longest: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, longest - shortest_lag(longest) + 2)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, frames, channels] to what `lag_weights` gives; float32 under autocast, too."""
        with torch.autocast(frames.device.type, enabled=False):
            return lag_weights(self.projection(frames.float()))


def shortest_lag(longest: int) -> int:
    """Three octaves below `longest`."""
    return longest // 8


def lag_weights(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Read the projection of frames.

    Args:
        projected: [batch, frames, lags + 1].

    Returns:
        Weights of the lags [batch, frames, lags], the longest first, positive and together at most
        one; gains [batch, frames, 1] between 0 and 1.
    """
    choice = torch.softmax(SHARPNESS * projected[..., :-1], dim=-1)
    padded = nn.functional.pad(choice, (BLUR // 2, BLUR // 2))
    return padded.unfold(-1, BLUR, 1).mean(-1), 0.5 + 0.5 * torch.tanh(projected[..., -1:])


def predictor_of(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Read the projection of frames.

    Args:
        projected: [batch, frames, order + 1]: unbounded reflection coefficients, then the scale.

    Returns:
        Coefficients [batch, frames, order], that of the oldest sample first, and scales
        [batch, frames, 1].
    """
    reflection = torch.tanh(0.5 * projected[..., :-1])
    scale = SMALLEST_SCALE + torch.exp(projected[..., -1:] + LOG_SCALE)
    return step_up(reflection).flip(-1), scale


def step_up(reflection: Tensor) -> Tensor:
    """Reflection coefficients [..., order] to predictor coefficients, newest sample first."""
    coefficients = reflection[..., :1]
    for i in range(1, reflection.shape[-1]):
        new = reflection[..., i : i + 1]
        coefficients = torch.cat([coefficients - new * coefficients.flip(-1), new], dim=-1)
    return coefficients


def predict(signal: Tensor, coefficients: Tensor, lag: int = 1) -> Tensor:
    """Predict every sample from those at least `lag` before it; before the first they are 0.

    Args:
        signal: [batch, frames * hop_length].
        coefficients: [batch, frames, order], oldest first.
        lag: Of the newest.

    Returns:
        [batch, frames * hop_length].
    """
    order = coefficients.shape[-1]
    padded = nn.functional.pad(signal, (order + lag - 1, -lag))
    windows = padded.unfold(1, order, 1).unflatten(1, (coefficients.shape[1], -1))
    return (windows @ coefficients[..., None]).flatten(1)


def residual_features(residual: Tensor) -> Tensor:
    """What the network hears of e(t - 1) [...]: itself, and its logarithm; [..., FEATURES]."""
    logarithm = residual.sign() * torch.log1p(residual.abs())
    return torch.stack([PLAIN_GAIN * residual, LOG_GAIN * logarithm], dim=-1)


def damaged_residual(residual: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
    """Multiply the logarithm of a residual [...] by `keep` and add `noise` to it."""
    logarithm = keep * residual.sign() * torch.log1p(residual.abs()) + noise
    return logarithm.sign() * torch.expm1(logarithm.abs())


def predictor_log_prob(level: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Log density of levels under the logistic distribution that the predictors give, float32."""
    z = (level - location) / scale
    return -z - 2 * nn.functional.softplus(-z) - scale.log()


def aperiodicity(levels: Tensor, weights: Tensor, longest: int) -> Tensor:
    """Energy of a frame that is left when its own past, some lags before, is taken away.

    Args:
        levels: [batch, frames * hop_length].
        weights: [batch, frames, lags].
        longest: Longest lag.

    Returns:
        Share of the frame's energy, [batch, frames]: 0 in a steady tone, about 1 in noise. Of no
        meaning where the longest lag reaches beyond the beginning.
    """
    left = levels - predict(levels, weights, shortest_lag(longest))
    energy, rest = (x.unflatten(1, (weights.shape[1], -1)).square().sum(-1) for x in (levels, left))
    return rest / (energy + FAINT)
