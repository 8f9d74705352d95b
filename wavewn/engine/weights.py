"""What engines read: a WaveNet's parameters as matrices in the order of execution.

`pack_wavenet` turns a plain model into frozen records whose matrices stand on the right of a row
vector: y = x @ matrix + bias. `wavenet_layout` says what a stream of that model remembers.

A stream lives from frame to frame: `push` hears a mel frame and generates the hop of samples that
it determines. Between two frames the state holds

    level       P x 1   the last levels: of a linear prediction as many as its order, else the
                        one that the network is fed next
    residual    L x 1   with linear prediction: in units of its scale, the last one, which is fed
                        next, or as many as the longest lag
    emphasis    1 x 1   the last output of the de-emphasis filter
    ahead       1 x 1   mel frames heard whose audio is still to come: 0 to look_ahead
    condition   1 x C   output of the mel network for the frame before; zeros before the first
    mel.I       K' - 1 rows    inputs of convolution I of the mel network
    layers.L    (K - 1) * dilation rows x R    inputs of layer L

so the number of the next mel frame is clock / hop + ahead. The first `look_ahead` frames run
through the mel network, give no audio and raise `ahead`, which then stays; a fresh or reset state
has it at 0, as everything else. The overlap of learned upsampling needs no entry: it is computed
from `condition`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from wavewn.config import WaveNetConfig
from wavewn.errors import EngineError
from wavewn.models.wavenet import MEL_SCALE, WaveNet
from wavewn.nn.conv import CausalConv1d
from wavewn.nn.weight_norm import normed_modules
from wavewn.nn.wn import ResidualLayer
from wavewn.state import StateLayout

VERSION = 1  # of the records below; raised when an engine would read them differently


@dataclass(frozen=True)
class Affine:
    """y = x @ matrix + bias.

    Attributes:
        matrix: [inputs, outputs]; for a convolution the inputs are taps x channels, oldest first.
        bias: [outputs].
    """

    matrix: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LayerWeights:
    """One gated layer; its gate's bias lies in `WaveNetWeights.projection`.

    Attributes:
        dilation: Distance between taps.
        gate: [K * R, 2R], oldest tap first; the first R outputs go through tanh.
        out: From z [R] to the residual [R], then the skip [S]; to the skip alone in the last layer.
    """

    dilation: int
    gate: Tensor
    out: Affine


@dataclass(frozen=True)
class WaveNetWeights:
    """A WaveNet in float32.

    Attributes:
        version: `VERSION`.
        settings: Sizes and head.
        n_mels: Mel bands.
        hop_length: Samples a frame.
        mel_silence: The network hears (mel - mel_silence) / mel_scale.
        mel_scale: Likewise.
        mel: The convolutions of the mel network, a ReLU after each.
        speakers: [speakers, C] is added to the mel network's output, or None.
        predictor: From the condition [C] to order + 1, or None without linear prediction.
        pitch: From the condition [C] to the lags, or None without long-term prediction.
        upsample: Learned upsampling: from the frames (before, now), 2C, to hop x C; or None.
        projection: From the condition [C] to layers x 2R, with the bias of the gates.
        input: From the head's features, or those of the residual, to R.
        layers: In order of execution.
        hidden: From the rectified skips [S] to [A].
        output: From the rectified [A] to the head's parameters.
    """

    version: int
    settings: WaveNetConfig
    n_mels: int
    hop_length: int
    mel_silence: float
    mel_scale: float
    mel: tuple[Affine, ...]
    speakers: Tensor | None
    predictor: Affine | None
    pitch: Affine | None
    upsample: Affine | None
    projection: Affine
    input: Affine
    layers: tuple[LayerWeights, ...]
    hidden: Affine
    output: Affine


@torch.no_grad()
def pack_wavenet(model: WaveNet) -> WaveNetWeights:
    """Copy the parameters of a plain model into records.

    Raises:
        EngineError: The model still has weight norm, or a parameter is NaN or infinite.
    """
    check_plain(model)
    network, stack = model.condition, model.stack
    speakers = upsample = predictor = pitch = None
    if network.embedding is not None and network.speaker is not None:
        speakers = _copy(network.speaker(network.embedding.weight))
    if network.upsample is not None:
        upsample = _upsample(network.upsample.conv.weight, _bias(network.upsample.conv))
    if model.predictor is not None:
        linear = model.predictor.projection
        predictor = _affine(linear.weight, linear.bias)
    if model.pitch is not None:
        pitch = _affine(model.pitch.projection.weight, model.pitch.projection.bias)
    convs = cast("list[CausalConv1d]", list(network.convs))
    layers = cast("list[ResidualLayer]", list(stack.layers))
    gate_bias = torch.cat([_bias(layer.gate) for layer in layers])
    return WaveNetWeights(
        version=VERSION,
        settings=model.settings,
        n_mels=model.n_mels,
        hop_length=model.hop_length,
        mel_silence=float(model.mel_silence),
        mel_scale=MEL_SCALE,
        mel=tuple(_affine(conv.matrix(), _bias(conv)) for conv in convs),
        speakers=speakers,
        predictor=predictor,
        pitch=pitch,
        upsample=upsample,
        projection=_affine(stack.condition.weight, stack.condition.bias + gate_bias),
        input=_affine(model.input.weight, model.input.bias),
        layers=tuple(
            LayerWeights(
                layer.gate.spacing,
                _copy(layer.gate.matrix().T),
                _affine(layer.out.weight, layer.out.bias),
            )
            for layer in layers
        ),
        hidden=_affine(model.hidden.weight, model.hidden.bias),
        output=_affine(model.output.weight, model.output.bias),
    )


def check_plain(model: nn.Module) -> None:
    """Raise EngineError unless a model is without weight norm and all its parameters are finite."""
    if named := normed_modules(model):
        raise EngineError(
            f"an engine runs plain weights, but {next(iter(named))} has weight norm; "
            "load folded_state_dict(model) into a fresh model"
        )
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise EngineError(f"parameter {name} holds NaN or infinite values; the model is broken")


def wavenet_layout(settings: WaveNetConfig, n_mels: int) -> StateLayout:
    """Say where a stream of such a WaveNet keeps what it remembers; see the module."""
    condition = settings.condition
    widths = [n_mels] + [condition.channels] * (condition.layers - 1)
    order = settings.prediction_order
    shapes = [("level", max(order, 1), 1), ("emphasis", 1, 1), ("ahead", 1, 1)]
    shapes += [("residual", max(settings.longest_lag, 1), 1)] if order else []
    shapes += [("condition", 1, condition.channels)]
    shapes += [(f"mel.{i}", condition.kernel_size - 1, width) for i, width in enumerate(widths)]
    shapes += [
        (f"layers.{i}", (settings.kernel_size - 1) * dilation, settings.residual_channels)
        for i, dilation in enumerate(settings.dilations)
    ]
    return StateLayout.of(shapes)


def tensors(record: Any) -> Iterator[Tensor]:
    """Yield every tensor of a record, in order."""
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, tuple):
        for item in record:
            yield from tensors(item)
    elif dataclasses.is_dataclass(record):
        for entry in dataclasses.fields(record):
            yield from tensors(getattr(record, entry.name))


def _bias(module: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    assert module.bias is not None, "every convolution of a WaveNet has a bias"
    return module.bias


def _affine(weight: Tensor, bias: Tensor) -> Affine:
    """Turn torch's [outputs, inputs] into a right-hand matrix."""
    return Affine(_copy(weight.T), _copy(bias))


def _upsample(weight: Tensor, bias: Tensor) -> Affine:
    """Turn a transposed convolution [C, C, 2 * hop] into one product of two frames.

    Sample i of a hop hears the frame before through tap hop + i and the current one through i.
    """
    hop = weight.shape[2] // 2
    before, now = weight[:, :, hop:], weight[:, :, :hop]
    matrix = torch.cat([before, now]).transpose(1, 2).flatten(1)  # [2C, hop * C]
    return Affine(_copy(matrix), _copy(bias.repeat(hop)))


def _copy(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32, copy=True).contiguous()
