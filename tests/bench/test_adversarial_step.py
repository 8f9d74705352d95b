"""An adversarial step of HiFi-GAN V3 beside a plain float32 one, same sizes.

    pytest -m bench -s tests/bench/test_adversarial_step.py
    python tests/bench/test_adversarial_step.py

The plain side is how the published training does it: `nn.Conv1d` and `nn.Conv2d` as torch has them,
float32, torch's weight norm, every discriminator run on recordings and generated audio one after
the other, gradients into the discriminators in the generator's turn too. Ours are the losses and
networks of `training/adversarial.py`, in bfloat16 where the CPU has it. Both in one process on one
thread, taking turns; each keeps its best step, in CPU seconds, so that a busy machine disturbs the
ratio little. A step of the plain side takes ten seconds and more.

2026-11-22, one thread of a Zen 4 (AVX512-BF16, no AMX), torch 2.13: plain 13.4 s, ours 4.47 s: 3.0
times faster, where the aim is 3. bfloat16 multiplies twice as fast as float32 here, not sixteen
times as with AMX, so what is above 2 is fewer multiplications (a quarter) and less copying. Before
the gradients of grouped weights were products of matrices (nn/strided.py) 4.83 s. Tried without
gain: weight norm computed once for both sides of the generator's turn; weight norm in a native
kernel that gives bfloat16 at once (4.83 s, too: at full speed torch's two passes cost 0.05 s);
groups copied apart first. Fused AdamW 4.44 instead of 4.52 s, but Lightning does not clip gradients
with it; huge pages (glibc.malloc.hugetlb=1, THP_MEM_ALLOC_ENABLE=1) 4.84 and 4.78 instead of 4.83.
"""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from wavewn.audio.mel_presets import PRESETS as MELS
from wavewn.config.discriminators import DISCRIMINATORS
from wavewn.config.presets import PRESETS
from wavewn.losses import MelLoss, discriminator_loss, feature_matching_loss, generator_loss
from wavewn.models.discriminators import Discriminators
from wavewn.models.generators import make_generator
from wavewn.nn.layout import innermost
from wavewn.nn.weight_norm import apply_weight_norm, parameter_groups
from wavewn.training.run import keep_memory

BATCH, SAMPLES, SLOPE = 4, 8192, 0.1
SPEC = MELS["hifigan-22k"]
SETTINGS = PRESETS["hifigan-v3"]
ROUNDS = 2


class PlainBlock(nn.Module):
    def __init__(self, width, taps, dilations):
        super().__init__()
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv1d(width, width, taps, dilation=d, padding=d * (taps - 1) // 2))
            for d in dilations
        )

    def forward(self, x):
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, SLOPE))
        return x


class PlainGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        width = SETTINGS.channels
        self.pre = weight_norm(nn.Conv1d(SPEC.n_mels, width, 7, padding=3))
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for rate, taps in zip(SETTINGS.upsample_rates, SETTINGS.upsample_kernel_sizes, strict=True):
            crop = (taps - rate) // 2
            up = nn.ConvTranspose1d(width, width // 2, taps, rate, crop)
            self.ups.append(weight_norm(up))
            width //= 2
            kinds = zip(SETTINGS.resblock_kernel_sizes, SETTINGS.resblock_dilations, strict=True)
            self.blocks.append(nn.ModuleList(PlainBlock(width, *kind) for kind in kinds))
        self.post = weight_norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, mel):
        x = self.pre(mel)
        for up, blocks in zip(self.ups, self.blocks, strict=True):
            x = up(F.leaky_relu(x, SLOPE))
            x = sum(block(x) for block in blocks) / len(blocks)
        return torch.tanh(self.post(F.leaky_relu(x)))


class PlainPeriod(nn.Module):
    def __init__(self, period):
        super().__init__()
        self.period, widths = period, (1, 32, 128, 512, 1024)
        shape = dict(kernel_size=(5, 1), padding=(2, 0))
        layers = [nn.Conv2d(a, b, stride=(3, 1), **shape) for a, b in zip(widths, widths[1:])]  # noqa: B905
        layers += [nn.Conv2d(1024, 1024, **shape), nn.Conv2d(1024, 1, (3, 1), padding=(1, 0))]
        self.layers = nn.ModuleList(map(weight_norm, layers))

    def forward(self, audio):
        x = F.pad(audio, (0, -audio.shape[2] % self.period), "reflect")
        return maps(self.layers, x.unflatten(2, (-1, self.period)))


class PlainScale(nn.Module):
    def __init__(self, norm):
        super().__init__()
        sizes = [(1, 128, 15, 1, 1), (128, 128, 41, 2, 4), (128, 256, 41, 2, 16)]
        sizes += [(256, 512, 41, 4, 16), (512, 1024, 41, 4, 16), (1024, 1024, 41, 1, 16)]
        sizes += [(1024, 1024, 5, 1, 1), (1024, 1, 3, 1, 1)]
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(a, b, taps, stride, padding=taps // 2, groups=groups))
            for a, b, taps, stride, groups in sizes
        )

    def forward(self, audio):
        return maps(self.layers, audio)


def maps(layers, x):
    found = []
    for layer in layers[:-1]:
        x = F.leaky_relu(layer(x), SLOPE)
        found.append(x)
    return [*found, layers[-1](x)]


class PlainDiscriminators(nn.Module):
    def __init__(self):
        super().__init__()
        self.periods = nn.ModuleList(map(PlainPeriod, (2, 3, 5, 7, 11)))
        self.scales = nn.ModuleList([PlainScale(spectral_norm), PlainScale(weight_norm)])
        self.scales.append(PlainScale(weight_norm))

    def forward(self, audio):
        found = [one(audio) for one in self.periods]
        for i, one in enumerate(self.scales):
            audio = F.avg_pool1d(audio, 4, 2, padding=2) if i else audio
            found.append(one(audio))
        return found


def batch():
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(BATCH, SAMPLES)
    mel = torch.rand(BATCH, SPEC.n_mels, SAMPLES // SPEC.hop_length) * 8 + SPEC.log_floor
    return mel, audio


def plain_step():
    mel, audio = batch()
    audio = audio[:, None]
    generator, judges, distance = PlainGenerator(), PlainDiscriminators(), MelLoss(SPEC)
    optimisers = [
        torch.optim.AdamW(net.parameters(), 2e-4, (0.8, 0.99)) for net in (generator, judges)
    ]

    def step():
        generated = generator(mel)
        optimisers[1].zero_grad()
        real, fake = judges(audio), judges(generated.detach())
        pairs = zip(real, fake, strict=True)
        loss = sum((1 - r[-1]).square().mean() + f[-1].square().mean() for r, f in pairs)
        loss.backward()
        optimisers[1].step()
        optimisers[0].zero_grad()
        loss = 45 * distance(generated[:, 0], audio[:, 0])
        real, fake = judges(audio), judges(generated)
        for r, f in zip(real, fake, strict=True):
            loss = loss + (1 - f[-1]).square().mean()
            loss = loss + 2 * sum((a - b).abs().mean() for a, b in zip(r, f, strict=True))
        loss.backward()
        optimisers[0].step()

    return step


def our_step():
    mel, audio = batch()
    generator, judges = make_generator(SETTINGS, SPEC), Discriminators(DISCRIMINATORS["hifigan"])
    distance = MelLoss(SPEC)
    optimisers = []
    for net in (generator, judges):
        apply_weight_norm(net)
        groups = parameter_groups(net, decay=0.01)
        optimisers.append(torch.optim.AdamW(groups, 2e-4, (0.8, 0.99), foreach=True))

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())

    def turn(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def step():
        with autocast():
            generated = generator(innermost(mel)).float()
            judgements = judges(torch.cat([audio, generated.detach()]))
            sides = zip(*(one.scores.chunk(2) for one in judgements), strict=True)
            loss = discriminator_loss(*sides)
        turn(optimisers[1], loss)
        judges.requires_grad_(False)
        with autocast():
            fake = judges(generated)
            with torch.no_grad():
                real = judges(audio)
            features = ([one.features for one in side] for side in (real, fake))
            loss = 45 * distance(generated, audio) + 2 * feature_matching_loss(*features)
            loss = loss + generator_loss([one.scores for one in fake])
        turn(optimisers[0], loss)
        judges.requires_grad_(True)

    return step


def has_bfloat16():
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def race(steps, rounds=ROUNDS):
    """Return the best CPU seconds of each step; they take turns after one warm-up each."""
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn:
                best[name] = min(best[name], time.process_time() - began)
    return best


def table():
    keep_memory()
    best = race({"plain, float32": plain_step(), "ours": our_step()})
    plain, ours = best.values()
    print(f"\nbfloat16 in hardware: {has_bfloat16()}; batch {BATCH} x {SAMPLES}, one thread")
    for name, seconds in best.items():
        print(f"{name:16s} {seconds:7.3f} CPU s a step   {plain / seconds:5.2f} x")
    return plain / ours


@pytest.mark.bench
def test_our_adversarial_step_is_faster_than_a_plain_one():
    assert table() >= 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    table()
