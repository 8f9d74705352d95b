"""The steps by which a WaveNet's samples are made in caches (static.py), fit to be captured.

Every step reads and writes the same memory in the same order, whatever the time: where a stream
stands is a number on the device, from which the step computes its slots. Nothing here waits for
the device or asks it for a number, and nothing that is made on the way outlives the step. So a CUDA
graph can capture each of them; on the CPU they run as they are.

A sample is a chain of small calls, three a layer (folded.py). What concerns all layers at once is
one call: the condition, the older taps (gathered from the rings), the new layer inputs (scattered
into the oldest slot, which was read just before), the skips.

A product is `bmm` with one matrix per stream, so that on the CPU a stream's bits do not depend on
its neighbours; see workspace.py, whose twin this file is.
"""

import torch
from torch import Tensor

from wavewn.engine.folded import ONES
from wavewn.engine.static import NEVER, Caches
from wavewn.engine.workspace import affine
from wavewn.models.heads import LinearLevels
from wavewn.nn.linear_prediction import lag_weights, predictor_of, residual_features


def hear(caches: Caches) -> None:
    """Run the mel network for the frame in `mel`."""
    weights = caches.weights
    x = ((caches.mel - weights.mel_silence) / weights.mel_scale).unsqueeze(1)
    for ring, conv in zip(caches.mel_rings, weights.mel, strict=True):
        taps = torch.cat([ring, x], dim=1)
        ring.copy_(taps[:, 1:])
        x = affine(taps.flatten(1).unsqueeze(1), conv).relu_()
    if weights.speakers is not None:
        x += weights.speakers[caches.speaker].unsqueeze(1)
    caches.now.copy_(x)


def condition(caches: Caches) -> None:
    """Begin the frame heard last: its condition from the one before on, and its predictor."""
    weights, order = caches.weights, caches.order
    if weights.predictor is not None:
        projected = affine(caches.now, weights.predictor)[:, :, : order + 1]
        coefficients, scale = predictor_of(projected)
        caches.coefficients.copy_(coefficients.transpose(1, 2))
        caches.scale.copy_(scale[:, 0, 0])
    if weights.pitch is not None:
        lags, gain = lag_weights(affine(caches.now, weights.pitch)[:, :, : caches.lags + 1])
        caches.lag_weights.copy_(lags[:, 0])
        caches.gain.copy_(gain[:, 0, 0])
    both = torch.cat([caches.before, caches.now], dim=1)
    if weights.upsample is not None:
        smooth = affine(both.flatten(1).unsqueeze(1), weights.upsample)
        caches.smooth.copy_(smooth.view(caches.smooth.shape))
    else:
        own = affine(both, caches.folded.projection).unflatten(2, (len(caches.layers), -1))
        if weights.settings.condition.upsampling == "nearest":
            caches.base.copy_(own[:, 1])
        else:
            caches.base.copy_(own[:, 0])
            torch.sub(own[:, 1], own[:, 0], out=caches.slope)
    caches.before.copy_(caches.now)
    caches.sample.zero_()


def advance(caches: Caches, count: int, temperature: float | None) -> None:
    """Make so many samples more of the frame.

    Args:
        caches: Of a frame that began with `condition`.
        count: At most `most` of the caches.
        temperature: Of the head; None takes the forced levels instead of drawing them.
    """
    head, steps = caches.head, caches.steps[:count]
    at = caches.sample + steps
    noise, forced = caches.noise.index_select(1, at), caches.forced.index_select(1, at)
    conditions, slots = _conditions(caches, at), _slots(caches, steps)
    level = caches.level
    for n in range(count):
        if caches.order:
            features, location, short = _predict(caches, n)
        else:
            features = head.features(level)
        _run_layers(caches, features, conditions[:, n], slots[:, n])
        parameters = _ask_head(caches, n)
        if caches.order:
            assert isinstance(head, LinearLevels), "settings allow no other head"
            parameters.copy_(head.relocate(parameters, location, caches.scale))
        if temperature is None:
            level = forced[:, n]
        else:
            level = head.sample(parameters, noise[:, n], temperature)
        if caches.order:
            residual = caches.residuals[:, caches.longest + n]
            torch.div(level - short, caches.scale, out=residual)
        caches.levels[:, caches.past + n] = level
    caches.level.copy_(level)
    _close(caches, count, at)


def _conditions(caches: Caches, at: Tensor) -> Tensor:
    """Condition and bias of the gates at these samples of the frame: [batch, count, L, 3R]."""
    if caches.weights.upsample is None:
        ramp = caches.ramp.index_select(0, at)
        return (caches.slope[:, None] * ramp).add_(caches.base[:, None])
    smooth = caches.smooth.index_select(1, at)
    return affine(smooth, caches.folded.projection).unflatten(2, (len(caches.layers), -1))


def _slots(caches: Caches, steps: Tensor) -> Tensor:
    """Slots of the next samples' older taps, oldest first: [K - 1, count, batch, L, R]."""
    now = (caches.clock + steps[:, None])[:, :, None]
    slots = (now + caches.shifts) % caches.lengths + caches.begins
    return slots[..., None].expand(-1, -1, -1, -1, caches.width)


def _run_layers(caches: Caches, features: Tensor, condition: Tensor, slots: Tensor) -> None:
    """Go through all layers: from the input's features to the z of each, and to the rings."""
    caches.addends.copy_(condition)
    for old, slot in zip(caches.olds, slots, strict=True):
        torch.gather(caches.rings, 1, slot, out=old)
    caches.features[:, : features.shape[1]] = features
    for out, inputs, matrix, gates, filtered, opened, z in caches.layers:
        torch.baddbmm(out, inputs, matrix, out=out)
        torch.tanh(gates, out=gates)
        torch.addcmul(filtered, filtered, opened, out=z)
    if caches.olds:
        caches.rings.scatter_(1, slots[0], caches.inputs)


def _predict(caches: Caches, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the network hears of the residual, the prediction, and that without the lags."""
    features = residual_features(caches.residuals[:, n + caches.longest - 1])
    window = caches.levels[:, n : n + caches.past].unsqueeze(1)
    location = short = torch.bmm(window, caches.coefficients)[:, 0, 0]
    if caches.lags:
        window = caches.residuals[:, n : n + caches.lags]
        repeated = (window * caches.lag_weights).sum(1, keepdim=True)
        location = short + caches.scale * caches.gain * repeated[:, 0]
        features = torch.cat([features, repeated], dim=1)
    return features, location, short


def _ask_head(caches: Caches, n: int) -> Tensor:
    """From the z of all layers to the head's parameters [batch, parameters]."""
    skip, hidden = caches.skip[:, :, :-ONES], caches.hidden[:, :, :-ONES]
    to_skip, to_hidden, to_output = caches.head_matrices
    caches.joined_zs.copy_(caches.zs)
    torch.bmm(caches.joined, to_skip, out=skip)
    torch.bmm(caches.skip.relu_(), to_hidden, out=hidden)
    torch.bmm(caches.hidden.relu_(), to_output, out=caches.answers[n])
    return caches.answers[n, :, 0, : caches.head.parameters]


def _close(caches: Caches, count: int, at: Tensor) -> None:
    """Hand over what was made, look for NaN, and move on."""
    parameters = caches.answers[:count, :, 0, : caches.head.parameters]
    past, longest = caches.past, caches.longest
    caches.drawn.index_copy_(1, at, caches.levels[:, past : past + count])
    caches.parameters.index_copy_(0, at, parameters)
    sound = parameters.isfinite().all(2)
    numbers = (caches.count + caches.steps[:count])[:, None].expand_as(sound)
    torch.minimum(caches.broken, numbers.masked_fill(sound, NEVER).amin(0), out=caches.broken)
    caches.levels[:, :past] = caches.levels[:, count : count + past].clone()
    caches.residuals[:, :longest] = caches.residuals[:, count : count + longest].clone()
    for clock in (caches.clock, caches.sample, caches.count):
        clock += count
