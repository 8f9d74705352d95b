"""Weights of wavenet_vocoder as weights of our WaveNet.

The network is ours but for factors, which go into the weights, in float64:

- a layer gives sqrt(1/2) (x + W_out z). With x = s_l y, where s falls by sqrt(1/2) a layer, y is a
  plain sum: gates hear s_l y, and what is added to y is W_out z / s_l. The s begin above 1 and end
  below it, so that no weight becomes tiny.
- skips are summed times sqrt(1/L); in 2018 the sum was halved in power at each layer but the first.
- they learn audio times a gain, in which means and scales of the head lie; ours lie beside it. A
  drawn sample is held to 1 before the gain is taken out there, and after it here.
- a network with stretched mels hears them sample by sample, as they are.
- what a speaker adds to each layer's gate goes through channels of the condition of their own.
- gates of another width than the residual: the narrower of them is filled up with copies of its
  first channel, which zeros keep from being heard. A row of zeros could not be trained on.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    """What its settings say of the network.

    `old` is the layout of 2018: conditions have biases, and mels are stretched by `band_taps`.
    """

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
    band_taps: int = 0
    old: bool = False
    skip_sum: Literal["mean", "halved", "plain"] = "mean"
    speakers: int = 0
    speaker_channels: int = 0

    def skip_factor(self, layer: int) -> float:
        """Give the factor of a layer's skips in their sum."""
        if self.skip_sum == "halved":
            return math.sqrt(0.5) ** (self.layers - max(layer, 1))
        return math.sqrt(1 / self.layers) if self.skip_sum == "mean" else 1.0


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
    source = _Source(state, path)
    R, S, width = network.residual, network.skips, max(network.residual, network.gates // 2)
    if network.layers > len(state):
        raise FormatError(f"{path}: has fewer weights than its settings ask for layers")
    scale = 2 ** (network.layers / 4)  # s of the first layer; that of the last is about 1 / scale
    ours = {
        "input.weight": network.gain / LINEAR_GAIN / scale * source.take("first_conv.weight", R, 1),
        "input.bias": source.take("first_conv.bias", R) / scale,
    }
    ours = {key: _copied(value, width) for key, value in ours.items()}
    conditions = []
    for i in range(network.layers):
        layer, condition = _layer(network, source, i, scale)
        ours |= {f"stack.layers.{i}.{key}": value for key, value in layer.items()}
        conditions.append(condition)
        scale *= math.sqrt(0.5)
    ours |= _heard(network, torch.cat(conditions), 0.0 if network.rates else mel.log_floor)
    if network.speakers:
        ours |= _speakers(network, source)
    for name, place, rows in (("hidden", 1, S), ("output", 3, network.outputs)):
        ours[f"{name}.weight"] = source.take(f"last_conv_layers.{place}.weight", rows, S)
        ours[f"{name}.bias"] = source.take(f"last_conv_layers.{place}.bias", rows)
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
        condition=Condition(2 * network.bands + network.speaker_channels, 1, 1, 0, "nearest"),
        pre_emphasis=network.pre_emphasis,
        speakers=network.speakers,
        speaker_channels=max(network.speaker_channels, 1),
    )
    if network.rates:
        ours = {f"network.{key}": value for key, value in ours.items()} | upsampling
    plain = {key: value.float().contiguous() for key, value in ours.items()}
    if not network.rates:
        return settings, plain
    return SmoothedWaveNetConfig(
        settings,
        condition_context=network.context,
        upsample_rates=network.rates,
        band_taps=network.band_taps,
    ), plain


def _layer(
    network: Network, source: _Source, i: int, scale: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Give our weights of a layer that hears `scale` times our input, and of its condition."""
    R, S, half, name = network.residual, network.skips, network.gates // 2, f"conv_layers.{i}"
    width, part = max(R, half), network.skip_factor(i)
    gate = source.take(f"{name}.conv.weight", 2 * half, R, network.kernel_size) * scale
    bias = source.take(f"{name}.conv.bias", 2 * half)
    condition, more = _condition(network, source, name)
    bias = bias + more
    out = source.take(f"{name}.conv1x1_out.weight", R, half) / scale
    out_bias = source.take(f"{name}.conv1x1_out.bias", R) / scale
    skip = source.take(f"{name}.conv1x1_skip.weight", S, half) * part
    skip_bias = source.take(f"{name}.conv1x1_skip.bias", S) * part
    if i < network.layers - 1:  # nobody would hear the last one's residual
        skip = torch.cat([_copied(out, width), skip])
        skip_bias = torch.cat([_copied(out_bias, width), skip_bias])
    gate, bias, condition = (
        torch.cat([_copied(one, width) for one in both.chunk(2)])
        for both in (gate, bias, condition)
    )
    layer = {
        "gate.weight": _filled(gate.transpose(0, 1), width).transpose(0, 1),
        "gate.bias": bias,
        "out.weight": _filled(skip.T, width).T,
        "out.bias": skip_bias,
    }
    return layer, condition


def _condition(network: Network, source: _Source, layer: str) -> tuple[Tensor, Tensor]:
    """Take what a layer's gate hears of mel and speaker, and what these add to its bias."""
    weights, biases = [], torch.zeros(network.gates, dtype=torch.float64)
    parts = {"conv1x1c": network.bands, "conv1x1g": network.speaker_channels}
    for name, channels in parts.items():
        if channels:
            weights.append(source.take(f"{layer}.{name}.weight", network.gates, channels))
            if network.old:
                biases = biases + source.take(f"{layer}.{name}.bias", network.gates)
    return torch.cat(weights, dim=1), biases


def _speakers(network: Network, source: _Source) -> dict[str, Tensor]:
    """Take the embedding; it goes as it is into the channels of the condition after the mel's."""
    channels = network.speaker_channels
    same = torch.eye(channels, dtype=torch.float64)
    return {
        "condition.embedding.weight": source.take(
            "embed_speakers.weight", network.speakers, channels
        ),
        "condition.speaker.weight": torch.cat([same.new_zeros(2 * network.bands, channels), same]),
        "condition.speaker.bias": same.new_zeros(2 * network.bands + channels),
    }


def _upsampling(network: Network, source: _Source) -> dict[str, Tensor]:
    """Take the network that upsamples mels; its names are ours, but for those of 2018."""
    if network.old:
        taken = {}
        for i, rate in enumerate(network.rates):
            parts = {"weight": (1, 1, network.band_taps, rate), "bias": (1,)}
            for end, shape in parts.items():
                name = f"upsample_conv.{2 * i}.{end}"  # between them their rectifiers count
                taken[f"upsample_net.steps.{i}.{end}"] = source.take(name, *shape)
        return taken
    bands, names = network.bands, "upsample_net.upsample.up_layers"
    shapes: dict[str, tuple[int, ...]] = {}
    if network.rates:
        shapes["upsample_net.conv_in.weight"] = (bands, bands, 2 * network.context + 1)
    for i, rate in enumerate(network.rates):
        shapes[f"{names}.{2 * i + 1}.weight"] = (1, 1, 1, 2 * rate + 1)
    return {name: source.take(name, *shape) for name, shape in shapes.items()}


def _heard(network: Network, projection: Tensor, floor: float) -> dict[str, Tensor]:
    """Let the layers hear the mel as it is: ours is shifted by a floor, scaled, and rectified.

    What is rectified is the mel and its negative; their difference is the mel again.
    """
    bands = network.bands
    of_mel, of_speaker = projection[:, :bands], projection[:, bands:]
    return heard_as_it_is(bands, floor, network.speaker_channels) | {
        "mel_silence": torch.tensor(floor),
        "stack.condition.weight": torch.cat([of_mel, -of_mel, of_speaker], dim=1),
        "stack.condition.bias": projection.new_zeros(len(projection)),
    }


def heard_as_it_is(bands: int, floor: float, others: int = 0) -> dict[str, Tensor]:
    """Give the condition network that passes on a mel, its negative, and `others` zeros."""
    silence = torch.full((bands,), floor, dtype=torch.float64)
    same = MEL_SCALE * torch.eye(bands, dtype=torch.float64)
    return {
        "condition.convs.0.weight": _filled(torch.cat([same, -same]), 2 * bands + others)[
            ..., None
        ],
        "condition.convs.0.bias": _filled(torch.cat([silence, -silence]), 2 * bands + others),
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


def _copied(value: Tensor, rows: int) -> Tensor:
    """Add copies of the first row."""
    return torch.cat([value, value[:1].expand(rows - len(value), *value.shape[1:])])


def _filled(value: Tensor, rows: int) -> Tensor:
    """Add rows of zeros."""
    return torch.cat([value, value.new_zeros(rows - len(value), *value.shape[1:])])
