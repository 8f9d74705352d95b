"""What the native engine is compared with: the same network as a good user would write it.

A baseline computes what the engines compute, from silence, for one stream on one thread in
float32, by the same noise: tests/bench/test_baselines.py holds it to the reference engine. It
has what a user who knows the network gives it: the condition is projected once a frame, the input
layer is a table of the classes, the older taps lie in rings. What it lacks is generality: mu-law
heads, two taps, one voice, nearest or linear upsampling; `unfit` says why not where that is so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from wavewn.audio.companding import de_emphasis
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError
from wavewn.models.heads import MuLawHead, make_head
from wavewn.noise import draw_noise

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def unfit(weights: WaveNetWeights) -> str:
    """Say why the baselines do not run this network; empty if they do."""
    settings = weights.settings
    if settings.head.kind != "mu-law":
        return f"the baselines draw mu-law classes, this model has the {settings.head.kind} head"
    if settings.kernel_size != 2:
        return f"the baselines have two taps a layer, this model has {settings.kernel_size}"
    if settings.condition.upsampling == "transposed":
        return "the baselines know nearest and linear upsampling, this model learned its own"
    if settings.speakers:
        return f"the baselines have one voice, this model has {settings.speakers} speakers"
    return ""


class Baseline(ABC):
    """One network, ready to generate.

    Attributes:
        name: Of the tool that it is written with.

    Raises:
        EngineError: `unfit` names a reason.
    """

    name: str

    def __init__(self, weights: WaveNetWeights) -> None:
        if reason := unfit(weights):
            raise EngineError(reason)
        head = make_head(weights.settings.head)
        assert isinstance(head, MuLawHead), "unfit lets no other pass"
        self.weights, self.head = weights, head
        self.dilations = np.array(weights.settings.dilations)
        self.offsets = np.cumsum(self.dilations) - self.dilations  # of the rings, in rows
        classes = torch.cat([head.levels_of(torch.arange(head.classes)), torch.zeros(1)])
        inputs = head.features(classes) @ weights.input.matrix + weights.input.bias
        self.table = inputs.numpy()  # the last row is the silence before the first sample
        linear = weights.settings.condition.upsampling == "linear"
        steps = np.arange(1, weights.hop_length + 1, dtype=np.float32)
        self.ramp: Floats = steps / np.float32(steps.size) if linear else np.ones_like(steps)

    def generate(self, mel: Tensor, seed: int = 0) -> Tensor:
        """Turn [1, bands, frames] into [1, frames * hop_length] of audio."""
        samples = mel.shape[2] * self.weights.hop_length
        start = torch.zeros(1, dtype=torch.int64)
        noise = draw_noise(self.head.noise, start + seed, start, start, samples)
        classes = self.run(self.frames(mel), noise[0, :, 0].numpy())
        levels = self.head.levels_of(torch.from_numpy(classes)[None])
        audio = de_emphasis(self.head.decode(levels), self.weights.settings.pre_emphasis)
        return audio.clamp(-1, 1)

    def frames(self, mel: Tensor) -> Floats:
        """Give [1 + frames, layers, 2R]: condition and bias of each gate, one frame before."""
        weights, look_ahead = self.weights, self.weights.settings.condition.look_ahead
        x = ((mel[0].T - weights.mel_silence) / weights.mel_scale).float()
        x = F.pad(x, (0, 0, 0, look_ahead))
        taps = weights.settings.condition.kernel_size
        for conv in weights.mel:
            past = F.pad(x, (0, 0, taps - 1, 0))
            rows = torch.cat([past[i : i + len(x)] for i in range(taps)], dim=1)
            x = F.relu(rows @ conv.matrix + conv.bias)
        x = F.pad(x[look_ahead:], (0, 0, 1, 0))
        gates: Floats = (x @ weights.projection.matrix + weights.projection.bias).numpy()
        return gates.reshape(len(x), len(weights.layers), -1)

    @abstractmethod
    def run(self, frames: Floats, noise: Floats) -> Ints:
        """Draw the classes of all samples from silence.

        Args:
            frames: [1 + frames, layers, 2R], from `frames`.
            noise: [samples], uniform.

        Returns:
            [samples].
        """


def stacked(weights: WaveNetWeights) -> dict[str, Any]:
    """Give the matrices of all layers as arrays of one shape.

    Returns:
        old and now, [layers, R, 2R], the two taps; out, [layers, R, R + S], and bias,
        [layers, R + S]: nothing goes to the residual in the last layer.
    """
    settings = weights.settings
    old, now, out, bias = [], [], [], []
    for layer in weights.layers:
        first, second = layer.gate.chunk(2)
        missing = settings.residual_channels + settings.skip_channels - len(layer.out.bias)
        old.append(first)
        now.append(second)
        out.append(F.pad(layer.out.matrix, (missing, 0)))
        bias.append(F.pad(layer.out.bias, (missing, 0)))
    parts = {"old": old, "now": now, "out": out, "bias": bias}
    return {name: torch.stack(values).numpy() for name, values in parts.items()}
