"""What is measured of one-pass models: generators by name with random weights, or a user's own.

The bound is arithmetic: every sample needs so many multiplications, and the processor makes so many
a second in a product of matrices of the same precision, which is measured beside each run. Only
multiplications of convolutions count, so that everything else is what is missing from 1.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.audio.mel_presets import PRESETS as MELS
from wavewn.audio.mel_spec import MelSpec
from wavewn.config.presets import preset_config
from wavewn.errors import ConfigError
from wavewn.models.generators import Generator, make_generator
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d
from wavewn.vocoder import Vocoder

# Of the presets that are measured.
MEL_OF = {
    "hifigan-v1": "hifigan-22k",
    "hifigan-v2": "hifigan-22k",
    "hifigan-v3": "hifigan-22k",
    "melgan": "melgan-22k",
    "parallel-wavegan": "parallel-wavegan-22k",
    "spectral": "wavewn-16k",
}
LONGEST_S = 5.0  # of a run: a sentence, as vocoders are quoted
FEWEST_FRAMES = 32  # of a run, likewise: graphs have a shortest mel
RANGE = 8.0  # nats above silence that the mels reach
ROWS, WIDTH = 4096, 128  # of the product whose speed is the bound
SECONDS = 0.05  # of its measurement


@dataclass(frozen=True)
class GeneratorSubject:
    """A generator to be measured.

    Attributes:
        shape: The preset's name, or where the user's model lies.
        model: Plain.
        spec: Its mels.
        upsampling: See `race.Course`, as the following.
        fixed: Likewise.
        fewest_frames: Likewise.
    """

    shape: str
    model: Generator
    spec: MelSpec
    upsampling: str = "-"
    fixed: bool = False
    fewest_frames: int = FEWEST_FRAMES

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.spec.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.spec.hop_length

    @property
    def most_frames(self) -> int:
        """Of a run."""
        return max(round(LONGEST_S * self.sample_rate / self.hop_length), 1)

    def mel(self, streams: int, frames: int) -> Tensor:
        """Make up [streams, bands, frames], from silence to `RANGE` above it."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(streams, self.spec.n_mels, frames, generator=generator)
        return self.spec.log_floor + RANGE * noise

    def speaker(self, streams: int) -> None:
        """These models have one voice."""

    def bound(self, precision: str, threads: int, streams: int) -> float:
        """Measure how many samples a second the processor's multiplications allow."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return multiplications_per_s(getattr(torch, precision)) / self.multiplications
        finally:
            torch.set_num_threads(before)

    @functools.cached_property
    def multiplications(self) -> float:
        """Of convolutions, for a sample."""
        frames, total = 64, 0.0

        def count(layer: nn.Module, _: object, y: Tensor) -> None:
            nonlocal total
            rate = layer.rate if isinstance(layer, UpsamplingConv1d) else 1
            weight: Tensor = layer.weight  # type: ignore[assignment]
            total += weight.numel() * y.shape[2] / rate

        convolutions = (PaddedConv1d, UpsamplingConv1d)
        layers = [layer for layer in self.model.modules() if isinstance(layer, convolutions)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        try:
            with torch.no_grad():
                whole(self.model, self.mel(1, frames), Flow())
        finally:
            for hook in hooks:
                hook.remove()
        return total / (frames * self.hop_length)


def make_generator_subject(name: str) -> GeneratorSubject:
    """Make one of the presets with random weights.

    Raises:
        ConfigError: No such preset is measured.
    """
    if name not in MEL_OF:
        raise ConfigError(f"no model {name!r} to measure; choose from {', '.join(MEL_OF)}")
    spec = MELS[MEL_OF[name]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make_generator(preset_config(name), spec)
    return GeneratorSubject(name, model.eval().requires_grad_(False), spec)


def generator_subject_of(vocoder: Vocoder, name: str) -> GeneratorSubject:
    """Measure a user's own generator, with its own mels."""
    return GeneratorSubject(name, vocoder.model, vocoder.mel_spec)  # type: ignore[arg-type]


@torch.no_grad()
def multiplications_per_s(dtype: torch.dtype) -> float:
    """Measure a product of matrices that stays in the caches; the fastest of many."""
    left, right = torch.randn(ROWS, WIDTH).to(dtype), torch.randn(WIDTH, WIDTH).to(dtype)
    F.linear(left, right)
    began, best = time.perf_counter(), float("inf")
    while (now := time.perf_counter()) - began < SECONDS:
        F.linear(left, right)
        best = min(best, time.perf_counter() - now)
    return ROWS * WIDTH * WIDTH / best


def whole(model: Generator, mel: Tensor, flow: Flow) -> Tensor:
    """Run a generator over a whole mel, its noise drawn by torch; give [batch, samples]."""
    noise: Rows | None = None
    if channels := model.noise_channels:
        noise = Rows.of(torch.randn(len(mel), channels, mel.shape[2] * model.hop_length))
    return model.flow(flow, Rows.of(mel), noise).whole[:, 0]


class Published(Flow):
    """Runs layers as published networks do: torch's own convolutions with their own padding."""

    def conv(self, layer: nn.Module, x: Rows) -> Rows:
        """See `Flow.conv`."""
        assert isinstance(layer, PaddedConv1d), "another kind of layer"
        even = layer.left == layer.right and layer.padding_mode_name == "zeros"
        if type(layer) is not PaddedConv1d or not even:
            return super().conv(layer, x)
        y = F.conv1d(x.whole, layer.weight, layer.bias, 1, layer.left, layer.dilation)
        return Rows(y, layer.out_channels, x.start, x.end, x.ended)

    def upsample(self, layer: nn.Module, x: Rows) -> Rows:
        """See `Flow.upsample`."""
        assert isinstance(layer, UpsamplingConv1d), "another kind of layer"
        if layer.taps - layer.rate != 2 * layer.crop:
            return super().upsample(layer, x)
        y = F.conv_transpose1d(x.whole, layer.weight, layer.bias, layer.rate, layer.crop)
        return Rows(y, layer.out_channels, 0, x.end * layer.rate, x.ended)
