"""The way back to wavenet_vocoder, of today's layout: the inverse of wavenet_vocoder_weights.py.

Its layers hear the mel as it is, or through its own upsampling. Ours hear it through a network, so
that only models whose network passes the mel on as it is can go: those that came from there. Their
gain has gone into the weights, so that the files say a gain of 1.
"""

import math
from typing import Any

import torch
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import (
    Condition,
    Gaussian,
    LogisticMixture,
    ModelConfig,
    SmoothedWaveNetConfig,
    WaveNetConfig,
)
from wavewn.errors import FormatError
from wavewn.formats.wavenet_vocoder_weights import heard_as_it_is
from wavewn.models.heads import LINEAR_GAIN

CANNOT = "wavenet_vocoder cannot hold this model: "
TRAINING = {  # of its own recipe; needed to go on training there
    "quantize_channels": 65536, "silence_threshold": 2, "frame_shift_ms": None,
    "win_length_ms": -1.0, "dropout": 0.0, "gin_channels": -1, "n_speakers": 7,
}  # fmt: skip


def hparams(settings: ModelConfig, mel: MelSpec) -> dict[str, Any]:
    """Give the settings that its program reads.

    Raises:
        FormatError: It has no such model.
    """
    network = _network(settings)
    reason = _obstacle(network, mel)
    if reason:
        raise FormatError(f"{CANNOT}{reason}")
    head, upsampled = network.head, isinstance(settings, SmoothedWaveNetConfig)
    assert isinstance(head, LogisticMixture | Gaussian), "no other has passed"
    components = head.components if isinstance(head, LogisticMixture) else 0
    steps = ("preemphasis", "inv_preemphasis") if network.pre_emphasis else ("", "")
    values: dict[str, Any] = {
        "name": "wavenet_vocoder", "input_type": "raw", "preprocess": steps[0],
        "postprocess": steps[1], "global_gain_scale": 1.0, "sample_rate": mel.sample_rate,
        "num_mels": mel.n_mels, "fmin": int(mel.f_min), "fmax": int(mel.f_max),
        "fft_size": mel.n_fft, "hop_size": mel.hop_length, "win_length": mel.win_length,
        "window": "hann", "highpass_cutoff": float(mel.high_pass_hz or 0.0),
        "output_distribution": "Logistic" if components else "Normal",
        "log_scale_min": head.log_scale_min,
        "out_channels": 3 * components or 2,
        "layers": len(network.dilations), "stacks": network.cycles,
        "residual_channels": network.residual_channels,
        "gate_channels": 2 * network.residual_channels,
        "skip_out_channels": network.skip_channels, "kernel_size": network.kernel_size,
        "cin_channels": mel.n_mels, "cin_pad": 0, "upsample_conditional_features": upsampled,
    }  # fmt: skip
    if isinstance(settings, SmoothedWaveNetConfig):
        values["cin_pad"] = settings.condition_context
        values["upsample_net"] = "ConvInUpsampleNetwork"
        values["upsample_params"] = {"upsample_scales": list(settings.upsample_rates)}
    return values | TRAINING


def weights(settings: ModelConfig, mel: MelSpec, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give its state dict, with weight norm where it has one.

    Raises:
        FormatError: The layers do not hear the mel as it is.
    """
    network, upsampled = _network(settings), isinstance(settings, SmoothedWaveNetConfig)
    ours = {
        key.removeprefix("network."): value.double()
        for key, value in state.items()
        if not upsampled or key.startswith("network.")
    }
    projections = _projections(network, mel, ours, 0.0 if upsampled else mel.log_floor)
    R, layers = network.residual_channels, len(network.dilations)
    scale, part = 2 ** (layers / 4), math.sqrt(1 / layers)
    plain = {
        "first_conv.weight": ours["input.weight"] * (LINEAR_GAIN * scale),
        "first_conv.bias": ours["input.bias"] * scale,
        "last_conv_layers.1.weight": ours["hidden.weight"],
        "last_conv_layers.1.bias": ours["hidden.bias"],
        "last_conv_layers.3.weight": ours["output.weight"],
        "last_conv_layers.3.bias": ours["output.bias"],
    }
    for i in range(layers):
        name, theirs = f"stack.layers.{i}", f"conv_layers.{i}"
        plain[f"{theirs}.conv.weight"] = ours[f"{name}.gate.weight"] / scale
        plain[f"{theirs}.conv.bias"] = ours[f"{name}.gate.bias"]
        plain[f"{theirs}.conv1x1c.weight"] = projections[i]
        heard = R if i < layers - 1 else 0  # nobody hears the last one's residual
        for end in ("weight", "bias"):
            out = ours[f"{name}.out.{end}"]
            residual = out[:heard] * scale if heard else out.new_zeros(R, *out.shape[1:])
            plain[f"{theirs}.conv1x1_out.{end}"] = residual
            plain[f"{theirs}.conv1x1_skip.{end}"] = out[heard:] / part
        scale *= math.sqrt(0.5)
    plain = {key: v[..., None] if v.dim() == 2 else v for key, v in plain.items()}
    plain |= {key: value for key, value in state.items() if key.startswith("upsample_net.up")}
    normed = _normed(plain)
    if upsampled:  # the only one without weight norm
        normed["upsample_net.conv_in.weight"] = state["upsample_net.conv_in.weight"].clone()
    return normed


def _network(settings: ModelConfig) -> WaveNetConfig:
    if isinstance(settings, SmoothedWaveNetConfig) and settings.band_taps:
        raise FormatError(f"{CANNOT}its program of today does not stretch mels as in 2018")
    network = settings.network if isinstance(settings, SmoothedWaveNetConfig) else settings
    if not isinstance(network, WaveNetConfig):
        raise FormatError(f"{CANNOT}its kind is {settings.kind}")
    return network


def _obstacle(network: WaveNetConfig, mel: MelSpec) -> str:
    """Say what of a network stands in the way, before what the comparison finds."""
    if not isinstance(network.head, LogisticMixture | Gaussian):
        return f"its head is {network.head.kind}, whose classes go in there one-hot"
    if network.speakers:
        return "it knows speakers, and its program of today makes no embedding of any"
    if network.head_channels != network.skip_channels:
        return "its head has another width than its skips"
    if network.condition != Condition(2 * mel.n_mels, 1, 1, 0, "nearest"):
        return "it hears mels through a network, where theirs hears them as they are"
    if mel.f_min % 1 or mel.f_max % 1:
        return f"its bands lie from {mel.f_min} to {mel.f_max} Hz, its settings take whole numbers"
    return ""


def _projections(
    network: WaveNetConfig, mel: MelSpec, ours: dict[str, Tensor], floor: float
) -> tuple[Tensor, ...]:
    """Give what each layer's gate hears of the mel, which the network has to pass on as it is."""
    passed = heard_as_it_is(mel.n_mels, floor)
    projection, bias = ours["stack.condition.weight"], ours["stack.condition.bias"]
    of_mel, of_negative = projection.chunk(2, dim=1)
    as_it_is = all(torch.equal(ours[key], value.float().double()) for key, value in passed.items())
    if not as_it_is or not torch.equal(of_mel, -of_negative) or bool(bias.any()):
        raise FormatError(
            f"{CANNOT}its layers no longer hear the mel as it is; was it trained after it came "
            "from there? Keep it as a bundle"
        )
    return of_mel.split(2 * network.residual_channels)


def _normed(plain: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split each weight into gain and direction along its first axis; zeros have a gain of 0."""
    theirs = {}
    for key, value in plain.items():
        if not key.endswith(".weight"):
            theirs[key] = value.float()
            continue
        gain = value.double().flatten(1).norm(dim=1).view(-1, *[1] * (value.dim() - 1))
        direction = torch.where(gain > 0, value.double(), 1.0)
        theirs |= {f"{key}_g": gain.float(), f"{key}_v": direction.float()}
    return theirs
