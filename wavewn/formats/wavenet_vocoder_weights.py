"""Weights of wavenet_vocoder as weights of our WaveNet.

The network is ours but for factors, which go into the weights, in float64:

- a layer gives sqrt(1/2) (x + W_out z). With x = s_l y, where s falls by sqrt(1/2) a layer, y is a
  plain sum: gates hear s_l y, and what is added to y is W_out z / s_l. The s begin above 1 and end
  below it, so that no weight becomes tiny.
- skips are summed times sqrt(1/L).
- they learn audio times a gain, in which means and scales of the head lie; ours lie beside it. A
  drawn sample is held to 1 before the gain is taken out there, and after it here.
- a network with stretched and smoothed mels hears them sample by sample, as they are.
- gates of another width than the residual: the narrower of them is filled up with zeros.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import (
    Condition,
    Gaussian,
    LogisticMixture,
    SmoothedWaveNetConfig,
    WaveNetConfig,
)
from wavewn.errors import FormatError
from wavewn.models.heads import LINEAR_GAIN
from wavewn.models.wavenet import MEL_SCALE


@dataclass(frozen=True)
class Network:
    """What its settings say of the network."""

    layers: int
    stacks: int
    residual: int
    gates: int
    skips: int
    kernel_size: int
    bands: int
    outputs: int
    distribution: str
    log_scale_min: float
    gain: float
    pre_emphasis: float
    context: int = 0
    rates: tuple[int, ...] = ()


class _Source:
    """Weights of theirs in float64; those of a convolution of one tap are matrices."""

    def __init__(self, state: dict[str, Tensor], path: Path) -> None:
        self._state, self._path = dict(state), path

    def take(self, name: str, *shape: int) -> Tensor:
        """Give a tensor of this shape."""
        value = self._state.pop(name, None)
        if value is not None and value.dim() == 3 and len(shape) == 2:
            value = value[..., 0] if value.shape[2] == 1 else None
        if value is None or value.shape != shape:
            raise FormatError(f"{self._path}: {name!r} is not there, or not {list(shape)}")
        return value.double()

    def close(self) -> None:
        """Refuse what is left."""
        if self._state:
            left = ", ".join(list(self._state)[:3])
            raise FormatError(f"{self._path}: its settings ask for no weights {left}")


def translate(
    network: Network, state: dict[str, Tensor], mel: MelSpec, path: Path
) -> tuple[WaveNetConfig | SmoothedWaveNetConfig, dict[str, Tensor]]:
    """Give our settings, and our weights."""
    source, half = _Source(state, path), network.gates // 2
    R, S, width = network.residual, network.skips, max(network.residual, half)
    if network.layers > len(state):
        raise FormatError(f"{path}: has fewer weights than its settings ask for layers")
    scale = 2 ** (network.layers / 4)  # s of the first layer; that of the last is about 1 / scale
    ours = {
        "input.weight": network.gain / LINEAR_GAIN / scale * source.take("first_conv.weight", R, 1),
        "input.bias": source.take("first_conv.bias", R) / scale,
    }
    ours = {key: _filled(value, width) for key, value in ours.items()}
    conditions = []
    for i in range(network.layers):
        theirs, last = f"conv_layers.{i}", i == network.layers - 1
        gate = source.take(f"{theirs}.conv.weight", 2 * half, R, network.kernel_size) * scale
        bias = source.take(f"{theirs}.conv.bias", 2 * half)
        condition = source.take(f"{theirs}.conv1x1c.weight", 2 * half, network.bands)
        out = source.take(f"{theirs}.conv1x1_out.weight", R, half) / scale
        out_bias = source.take(f"{theirs}.conv1x1_out.bias", R) / scale
        part = math.sqrt(1 / network.layers)
        skip = source.take(f"{theirs}.conv1x1_skip.weight", S, half) * part
        skip_bias = source.take(f"{theirs}.conv1x1_skip.bias", S) * part
        residual = [] if last else [_filled(out, width)]
        residual_bias = [] if last else [_filled(out_bias, width)]
        name = f"stack.layers.{i}"
        gate = torch.cat([_filled(one, width) for one in gate.chunk(2)])
        ours[f"{name}.gate.weight"] = _filled(gate.transpose(0, 1), width).transpose(0, 1)
        ours[f"{name}.gate.bias"] = torch.cat([_filled(one, width) for one in bias.chunk(2)])
        out = torch.cat([*residual, skip])
        ours[f"{name}.out.weight"] = _filled(out.T, width).T
        ours[f"{name}.out.bias"] = torch.cat([*residual_bias, skip_bias])
        conditions += [_filled(one, width) for one in condition.chunk(2)]
        scale *= math.sqrt(0.5)
    ours |= _heard(torch.cat(conditions), 0.0 if network.rates else mel.log_floor)
    for name, layer, rows in (("hidden", 1, S), ("output", 3, network.outputs)):
        ours[f"{name}.weight"] = source.take(f"last_conv_layers.{layer}.weight", rows, S)
        ours[f"{name}.bias"] = source.take(f"last_conv_layers.{layer}.bias", rows)
    head = _head(network, ours)
    upsampling = _upsampling(network, source)
    source.close()
    settings = WaveNetConfig(
        residual_channels=width,
        skip_channels=S,
        head_channels=S,
        kernel_size=network.kernel_size,
        cycles=network.stacks,
        layers_per_cycle=network.layers // network.stacks,
        head=head,
        condition=Condition(2 * network.bands, 1, 1, 0, "nearest"),
        pre_emphasis=network.pre_emphasis,
    )
    if network.rates:
        ours = {f"network.{key}": value for key, value in ours.items()} | upsampling
    plain = {key: value.float().contiguous() for key, value in ours.items()}
    if not network.rates:
        return settings, plain
    return SmoothedWaveNetConfig(
        settings, condition_context=network.context, upsample_rates=network.rates
    ), plain


def _upsampling(network: Network, source: _Source) -> dict[str, Tensor]:
    """Take the network that upsamples mels; its names are ours."""
    bands, names = network.bands, "upsample_net.upsample.up_layers"
    shapes: dict[str, tuple[int, ...]] = {}
    if network.rates:
        shapes["upsample_net.conv_in.weight"] = (bands, bands, 2 * network.context + 1)
    for i, rate in enumerate(network.rates):
        shapes[f"{names}.{2 * i + 1}.weight"] = (1, 1, 1, 2 * rate + 1)
    return {name: source.take(name, *shape) for name, shape in shapes.items()}


def _heard(projection: Tensor, floor: float) -> dict[str, Tensor]:
    """Let the layers hear the mel as it is: ours is shifted by a floor, scaled, and rectified.

    What is rectified is the mel and its negative; their difference is the mel again.
    """
    bands = projection.shape[1]
    silence = torch.full((bands,), floor, dtype=torch.float64)
    same = MEL_SCALE * torch.eye(bands, dtype=torch.float64)
    return {
        "mel_silence": torch.tensor(floor),
        "condition.convs.0.weight": torch.cat([same, -same])[..., None],
        "condition.convs.0.bias": torch.cat([silence, -silence]),
        "stack.condition.weight": torch.cat([projection, -projection], dim=1),
        "stack.condition.bias": projection.new_zeros(len(projection)),
    }


def _head(network: Network, ours: dict[str, Tensor]) -> LogisticMixture | Gaussian:
    """Bring the head's parameters beside the gain."""
    least = network.log_scale_min - math.log(network.gain)
    if network.outputs == 3 and network.distribution == "Normal":  # the weight of one is one
        for key in ("output.weight", "output.bias"):
            ours[key] = ours[key][1:]
    components = 1 if network.distribution == "Normal" else network.outputs // 3
    weight, bias = ours["output.weight"].clone(), ours["output.bias"].clone()
    means = slice(-2 * components, len(bias) - components)
    weight[means] /= network.gain
    bias[means] /= network.gain
    bias[-components:] -= math.log(network.gain)
    ours |= {"output.weight": weight, "output.bias": bias}
    if network.distribution == "Normal":
        return Gaussian(log_scale_min=least)
    return LogisticMixture(components, log_scale_min=least)


def _filled(value: Tensor, rows: int) -> Tensor:
    """Add rows of zeros."""
    return torch.cat([value, value.new_zeros(rows - len(value), *value.shape[1:])])
