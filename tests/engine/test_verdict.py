"""Verdicts are measured: what is close enough is usable, what is not says why."""

import dataclasses

import pytest
import torch

from wavewn.engine.verdict import TOLERANCE, Piece, calibrate, judge, measure
from wavewn.errors import EngineError


def pieces_of(model, count=4, frames=6):
    """Random audio with random mels."""
    pieces = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        audio = 0.2 * torch.randn(1, frames * model.hop_length, generator=generator)
        ahead = model.settings.condition.look_ahead
        mel = torch.randn(1, model.n_mels, frames + ahead, generator=generator) * 2 - 6
        speaker = torch.tensor([seed % 3]) if model.settings.speakers else None
        pieces.append(Piece(audio.clamp(-1, 1), mel, speaker))
    return pieces


def test_the_calibration_is_the_largest_input_with_headroom(model):
    pieces = pieces_of(model, 2)
    found = calibrate(model, pieces)
    single = [calibrate(model, [piece]) for piece in pieces]

    assert len(found.inputs) == len(model.settings.dilations)
    assert {len(layer) for layer in found.inputs} == {model.settings.residual_channels}
    assert found.skip == max(one.skip for one in single)
    assert found.hidden == max(one.hidden for one in single)
    assert found.inputs[0] == tuple(map(max, *(one.inputs[0] for one in single)))
    with torch.no_grad():
        inputs = [
            model.input(model.hear(model.levels(p.audio), p.mel, p.speaker).features)
            for p in pieces
        ]
    largest = torch.cat(inputs, dim=1).abs().amax((0, 1))
    torch.testing.assert_close(torch.tensor(found.inputs[0]), (1.5 * largest), rtol=1e-3, atol=0.0)


def test_a_channel_that_never_spoke_gets_a_range(plain_model):
    with torch.no_grad():
        plain_model.input.weight[3] = 0
        plain_model.input.bias[3] = 0
    found = calibrate(plain_model, pieces_of(plain_model, 1))

    assert found.inputs[0][3] > 0
    assert found.inputs[0][3] < 0.01 * max(found.inputs[0])


def test_every_precision_gets_a_verdict(model):
    verdict, calibration = measure(model, pieces_of(model))

    assert list(verdict) == ["float32", "float16", "int8"]
    assert verdict["float32"]["usable"] is True
    excess = {name: abs(verdict[name]["excess_nats"]) for name in ("float16", "int8")}
    assert 0 < excess["float16"] < 0.01 * abs(verdict["float32"]["nats"])
    assert excess["int8"] < 0.05 * abs(verdict["float32"]["nats"])
    assert len(calibration.inputs) == len(model.settings.dilations)
    seen = calibrate(model, pieces_of(model)[::2])  # the others judge
    assert dataclasses.replace(calibration, fine=0) == seen


def test_the_likelihood_is_that_of_the_model(model):
    pieces = pieces_of(model)
    verdict, _ = measure(model, pieces)

    with torch.no_grad():
        nats = [
            -model.head.log_prob(model(levels, p.mel, p.speaker), levels).mean()
            for p in pieces[1::2]
            for levels in [model.levels(p.audio)]
        ]
    assert verdict["float32"]["nats"] == pytest.approx(float(sum(nats) / len(nats)), abs=2e-4)


def test_a_model_that_needs_more_bits_is_refused_them(plain_model):
    """Sharp answers: the last matrix magnifies what rounding left of a small hidden layer."""
    with torch.no_grad():
        plain_model.output.weight *= 1000
    verdict, _ = measure(plain_model, pieces_of(plain_model))

    assert verdict["int8"]["usable"] is False
    assert "nats a sample from float32" in verdict["int8"]["reason"]


def test_layers_are_made_finer_only_where_it_helps(plain_model):
    pieces = pieces_of(plain_model)
    verdict, calibration = measure(plain_model, pieces)
    assert (verdict["int8"]["usable"], calibration.fine) == (True, 0)

    with torch.no_grad():  # a loud channel that says nothing hides the others
        plain_model.input.weight *= 40
        plain_model.stack.layers[0].gate.weight /= 40
    verdict, calibration = measure(plain_model, pieces)
    assert calibration.fine == 0  # what a factor does is in the weights

    with torch.no_grad():
        plain_model.output.weight *= 30
    verdict, calibration = measure(plain_model, pieces)
    assert calibration.fine > 0


def test_weights_that_int8_cannot_hold_leave_the_others(plain_model):
    with torch.no_grad():
        plain_model.stack.layers[0].gate.weight *= 1e38
        plain_model.input.weight *= 1e3
    verdict, _ = measure(plain_model, pieces_of(plain_model))

    assert verdict["int8"] == {
        "usable": False,
        "reason": "layers.0.gate holds weights that are too large for int8; use float32",
    }


@pytest.mark.parametrize(
    ("excess", "usable"),
    [(0.0, True), (TOLERANCE, True), (-TOLERANCE, True), (0.0051, False), (-0.0051, False)],
)
def test_the_tolerance_is_five_thousandths(excess, usable):
    verdict = judge(excess)

    assert verdict["usable"] is usable
    assert verdict["excess_nats"] == excess
    assert ("reason" in verdict) is not usable


@pytest.mark.parametrize("excess", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_usable(excess):
    assert judge(excess) == {"usable": False, "reason": "its likelihood is not a finite number"}


def test_one_recording_is_not_enough(plain_model):
    with pytest.raises(EngineError, match="at least 2 recordings, got 1"):
        measure(plain_model, pieces_of(plain_model, 1))


def test_a_model_that_gives_no_numbers_cannot_be_calibrated(plain_model):
    with torch.no_grad():
        plain_model.input.weight *= 1e30
        plain_model.stack.layers[0].out.weight *= 1e30
    with pytest.raises(EngineError, match="no finite activations"):
        calibrate(
            plain_model, [Piece(piece.audio * 1e10, piece.mel) for piece in pieces_of(plain_model)]
        )
