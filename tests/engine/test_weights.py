"""What engines read: the order of matrices and the places of a state."""

import pytest
import torch

from wavewn.engine.weights import VERSION, pack_wavenet, tensors, wavenet_layout
from wavewn.errors import EngineError
from wavewn.nn.weight_norm import apply_weight_norm


def test_the_layout_of_a_small_wavenet(plain_model):
    """Other engines compute the same offsets; a changed number here breaks saved states."""
    layout = wavenet_layout(plain_model.settings, plain_model.n_mels)

    found = [(entry.name, entry.offset, entry.rows, entry.channels) for entry in layout.entries]

    assert found == [
        ("level", 0, 1, 1),
        ("emphasis", 16, 1, 1),
        ("ahead", 32, 1, 1),
        ("condition", 48, 1, 10),
        ("mel.0", 64, 2, 6),
        ("mel.1", 80, 2, 10),
        ("layers.0", 112, 1, 8),
        ("layers.1", 128, 2, 8),
        ("layers.2", 144, 4, 8),
        ("layers.3", 176, 1, 8),
        ("layers.4", 192, 2, 8),
        ("layers.5", 208, 4, 8),
    ]
    assert layout.size == 240


def test_matrices_stand_on_the_right_oldest_tap_first(plain_model):
    weights = pack_wavenet(plain_model)
    layer, packed = plain_model.stack.layers[2], weights.layers[2]
    R = plain_model.settings.residual_channels

    assert weights.version == VERSION == 1
    assert packed.dilation == 4
    assert torch.equal(packed.gate[:R], layer.gate.weight[:, :, 0].T)
    assert torch.equal(packed.gate[R:], layer.gate.weight[:, :, 1].T)
    assert packed.out.matrix.shape == (R, R + 12)
    assert weights.layers[-1].out.matrix.shape == (R, 12)
    own = slice(2 * 2 * R, 3 * 2 * R)
    bias = plain_model.stack.condition.bias[own] + layer.gate.bias
    assert torch.equal(weights.projection.bias[own], bias)


def test_packed_weights_are_copies(plain_model):
    weights = pack_wavenet(plain_model)
    kept = [value.clone() for value in tensors(weights)]

    with torch.no_grad():
        for parameter in plain_model.parameters():
            parameter.zero_()

    assert len(kept) == 30
    assert all(torch.equal(a, b) for a, b in zip(tensors(weights), kept, strict=True))


def test_nan_in_a_parameter_is_named(plain_model):
    with torch.no_grad():
        plain_model.hidden.bias[3] = float("nan")

    with pytest.raises(EngineError, match="parameter hidden.bias holds NaN"):
        pack_wavenet(plain_model)


def test_a_model_with_weight_norm_is_refused(plain_model):
    apply_weight_norm(plain_model)

    with pytest.raises(EngineError, match="condition.convs.0 has weight norm; load folded"):
        pack_wavenet(plain_model)
