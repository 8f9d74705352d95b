"""Weights of the ParallelWaveGAN toolkit: names of theirs beside ours, to read either way.

Its MelGAN is one sequence of numbered layers, of which those without weights count, too. Its
Parallel WaveGAN has the names that ours has taken over; the residual output of the last layer,
which nobody hears, is left out, and stands here with the empty name.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig
from wavewn.errors import FormatError

Upsampled = HiFiGANConfig | MelGANConfig | ParallelWaveGANConfig
UNHEARD = ""
BARE = ("conv_in", "up_layers", "conv1x1_aux")  # modules without a bias, by parts of their names


def names(settings: Upsampled) -> Iterator[tuple[str, str]]:
    """List the modules with weights, by our name and theirs."""
    if isinstance(settings, HiFiGANConfig):
        yield from _hifigan(settings)
    elif isinstance(settings, MelGANConfig):
        yield from _melgan(settings)
    else:
        yield from _parallel_wavegan(settings)


def rename(
    state: dict[str, Tensor], pairs: Iterable[tuple[str, str]], path: Path
) -> dict[str, Tensor]:
    """Give the weights of all modules by our names.

    Raises:
        FormatError: A module has none, or weights are left over.
    """
    rest, renamed = dict(state), {}
    for ours, theirs in pairs:
        if f"{theirs}.weight" not in rest:
            raise FormatError(f"{path}: has no weights of {theirs!r}, which its settings ask for")
        for end in ("weight", "bias"):
            value = rest.pop(f"{theirs}.{end}", None)
            if value is not None and ours != UNHEARD:
                renamed[f"{ours}.{end}"] = value
    if rest:
        raise FormatError(
            f"{path}: {next(iter(rest))!r} and {len(rest) - 1} other weights are none that its "
            "settings ask for; do the settings belong to it?"
        )
    return renamed


def add_zero_biases(state: dict[str, Tensor], settings: Upsampled) -> None:
    """Give a bias of zero to each layer of ours that has one, where theirs has none."""
    for ours, _ in names(settings):
        if ours == UNHEARD or any(part in ours for part in BARE):
            continue
        weight = state[f"{ours}.weight"]
        axis = 1 if ours.startswith("ups.") else 0  # that of the outputs
        state.setdefault(f"{ours}.bias", weight.new_zeros(weight.shape[axis]))


def _hifigan(settings: HiFiGANConfig) -> Iterator[tuple[str, str]]:
    parts = {"convs1": "convs1", "convs2": "convs2"}
    if settings.resblock == "2":
        parts = {"convs": "convs1"}
    branches = settings.resblock_dilations
    yield "conv_pre", "input_conv"
    for i in range(len(settings.upsample_rates)):
        yield f"ups.{i}", f"upsamples.{i}.1"
        for j, dilations in enumerate(branches):
            block = i * len(branches) + j
            for ours, theirs in parts.items():
                for k in range(len(dilations)):
                    yield f"resblocks.{block}.{ours}.{k}", f"blocks.{block}.{theirs}.{k}.1"
    yield "conv_post", "output_conv.1"


def _melgan(settings: MelGANConfig) -> Iterator[tuple[str, str]]:
    yield "conv_pre", "melgan.1"  # after its padding
    place = 2
    for i in range(len(settings.upsample_rates)):
        yield f"ups.{i}", f"melgan.{place + 1}"  # after its activation
        place += 2
        for j in range(settings.stacks):
            ours, theirs = f"stacks.{i * settings.stacks + j}", f"melgan.{place + j}"
            yield f"{ours}.dilated", f"{theirs}.stack.2"
            yield f"{ours}.mixed", f"{theirs}.stack.4"
            yield f"{ours}.skip", f"{theirs}.skip_layer"
        place += settings.stacks
    yield "conv_post", f"melgan.{place + 2}"


def _parallel_wavegan(settings: ParallelWaveGANConfig) -> Iterator[tuple[str, str]]:
    upsampling = "upsample_net.upsample.up_layers"
    single = ["first_conv", "upsample_net.conv_in"]
    single += [f"{upsampling}.{2 * i + 1}" for i in range(len(settings.upsample_rates))]
    single += ["last_conv_layers.1", "last_conv_layers.3"]
    yield from zip(single, single, strict=True)
    layers = settings.cycles * settings.layers_per_cycle
    for i in range(layers):
        for part in ("conv", "conv1x1_aux", "conv1x1_out", "conv1x1_skip"):
            name = f"conv_layers.{i}.{part}"
            unheard = i == layers - 1 and part == "conv1x1_out"
            yield UNHEARD if unheard else name, name
