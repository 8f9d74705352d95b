"""One-pass models: each kind, causal or not, and each padding."""

from dataclasses import replace

import torch

from wavewn.audio.mel_spec import MelSpec
from wavewn.config import HiFiGANConfig, MelGANConfig, ParallelWaveGANConfig, SpectralConfig
from wavewn.models.generators import make_generator
from wavewn.models.levelled import Levelled, Levels
from wavewn.nn.padded import PaddedConv1d

BANDS, HOP = 6, 20
SPEC = MelSpec(n_mels=BANDS, hop_length=HOP, win_length=80, n_fft=128)

HIFIGAN = HiFiGANConfig(16, (5, 4), (11, 8), "1", (3, 5), ((1, 3), (1, 2)))
WAVEGAN = ParallelWaveGANConfig(6, 8, 5, cycles=2, layers_per_cycle=3, upsample_rates=(5, 4))
ONE_PASS = {
    "hifigan": HIFIGAN,
    "hifigan-causal": replace(HIFIGAN, causal=True, resblock="2"),
    "hifigan-reflect": replace(HIFIGAN, padding="reflect"),
    "hifigan-replicate": replace(HIFIGAN, padding="replicate", causal=True),
    "melgan": MelGANConfig(channels=16, upsample_rates=(5, 4), stacks=2),
    "wavegan": WAVEGAN,
    "wavegan-causal": replace(WAVEGAN, causal=True),
    "spectral": SpectralConfig(
        channels=8, hidden_channels=8, dilations=(1, 2), look_ahead=3, n_fft=40, levellings=1
    ),
    "hifigan-levelled": HIFIGAN,
}


def make_one_pass(name):
    """Make a model whose audio is to be heard, and not clipped."""
    torch.manual_seed(1)
    loud = 0.2 if name == "melgan" else 0.1
    model = make_generator(ONE_PASS[name], SPEC)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(loud * torch.randn_like(parameter))
        if name.startswith("wavegan"):  # the only one without a tanh at its end
            mel = torch.randn(1, BANDS, 26, generator=torch.Generator().manual_seed(0)) * 2 - 6
            sound = model(mel, torch.randn(1, 1, 26 * HOP))
            last = [part for part in model.modules() if isinstance(part, PaddedConv1d)][-1]
            last.bias.sub_(sound.mean()).div_(5 * sound.std())
            last.weight.div_(5 * sound.std())
    if name.endswith("levelled"):
        model = Levelled(model, Levels(SPEC, 1))
    return model.eval().requires_grad_(False)
