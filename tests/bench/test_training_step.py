"""A training step of our WaveNet beside one of a plain float32 `nn.Conv1d` stack, same sizes.

    pytest -m bench -s tests/bench/test_training_step.py
    python tests/bench/test_training_step.py [--compile]

Both sides run in one process on one thread, taking turns, and each keeps its best step, in CPU
seconds, so that a busy machine disturbs the ratio little. Compiling takes a minute or more and
needs a C++ compiler.

2026-11-21, one thread of a Zen 4 (AVX512-BF16, no AMX) that a training kept busy, torch 2.13:
plain 2.09 s, ours 0.84 s, compiled 0.84 s: 2.5 times faster (other runs 2.3 to 2.6), where the
aim was 8. Matrix products are half of our step, so a CPU with AMX should gain more; that was not
measured. Tried and left out for gaining less than a tenth: the whole stack in tiles that fit the
cache (0.96 to 0.89 s), the taps as two products, cross entropy with one pass less, a hand-written
gradient of the gate.

2026-11-22, same machine, kept busy: "recipe" (those sizes) plain 2.54 s, ours 0.95 s, 2.7 times;
"M", the shape of nv-wavenet at 2 x 8000, plain 1.83 s, ours 0.83 s, 2.2 times, where the aim is 4.

2026-11-22, with the gated stack native (nn/gated_training.py), a quiet core, in turns with torch's
path: "M" plain 1.56 s, torch's 0.70 s, native 0.47 s: 3.3 times faster than plain; "recipe" 2.00,
0.80 and 0.51 s: 3.9 times. Of the 0.47 s the gated layers take 0.075 s forward and 0.15 s backward,
the three products of all skips 0.15 s, those of the head 0.08 s.

The multiplications of a step of M, 42 billion, alone take 0.37 s in bfloat16 here, those of
"recipe", 38 billion, 0.33 s at the 115 billion a second that csrc/onepass_kernel.hpp reaches, so
that for M the aim of 4 would leave 0.03 s for everything else.

The time of a step depends on the memory allocator: glibc gives large blocks back to the system
after each use and the kernel clears them anew. `keep_memory` asks it to keep them, as in a
training, for both sides alike.
"""

import shutil
import sys
import time
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wavewn.config import Condition, MuLaw, WaveNetConfig
from wavewn.models.wavenet import WaveNet
from wavewn.nn.weight_norm import apply_weight_norm
from wavewn.training.run import keep_memory

HOP, BANDS, CLASSES = 200, 80, 256
ROUNDS = 4


@dataclass(frozen=True)
class Size:
    batch: int
    samples: int
    settings: WaveNetConfig


def sized(residual, skip, layers, batch, samples):
    settings = WaveNetConfig(
        residual_channels=residual,
        skip_channels=skip,
        head_channels=256,
        cycles=2,
        layers_per_cycle=layers // 2,
        head=MuLaw(CLASSES),
        condition=Condition(upsampling="nearest"),
    )
    return Size(batch, samples, settings)


SIZES = {"recipe": sized(32, 64, 16, 4, 16_000), "M": sized(64, 256, 20, 2, 8000)}


class PlainWaveNet(nn.Module):
    """The same network the usual way: [batch, channels, time], one convolution each."""

    def __init__(self, settings):
        super().__init__()
        r, s, a = settings.residual_channels, settings.skip_channels, settings.head_channels
        c = settings.condition.channels
        self.frames = nn.Sequential(
            nn.Conv1d(BANDS, c, 3, padding=1), nn.ReLU(), nn.Conv1d(c, c, 3, padding=1), nn.ReLU()
        )
        self.input = nn.Conv1d(2, r, 1)
        dilations = settings.dilations
        self.gates = nn.ModuleList(nn.Conv1d(r, 2 * r, 2, dilation=d) for d in dilations)
        self.conditions = nn.ModuleList(nn.Conv1d(c, 2 * r, 1) for _ in dilations)
        self.outs = nn.ModuleList(nn.Conv1d(r, r + s, 1) for _ in dilations)
        self.hidden, self.output = nn.Conv1d(s, a, 1), nn.Conv1d(a, CLASSES, 1)

    def forward(self, features, mel):
        local = self.frames(mel).repeat_interleave(HOP, dim=-1)
        x, skip = self.input(features), 0
        for gate, condition, out in zip(self.gates, self.conditions, self.outs, strict=True):
            a = gate(F.pad(x, (gate.dilation[0], 0))) + condition(local)
            filtered, opened = a.chunk(2, dim=1)
            both = out(torch.tanh(filtered) * torch.sigmoid(opened))
            x = x + both[:, : x.shape[1]]
            skip = skip + both[:, x.shape[1] :]
        return self.output(F.relu(self.hidden(F.relu(skip))))


def has_bfloat16():
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def plain_step(size):
    torch.manual_seed(0)
    model = PlainWaveNet(size.settings)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    features = torch.randn(size.batch, 2, size.samples)
    mel = torch.randn(size.batch, BANDS, size.samples // HOP)
    target = torch.randint(0, CLASSES, (size.batch, size.samples))

    def step():
        loss = F.cross_entropy(model(features, mel), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def our_step(size, compiled=False):
    torch.manual_seed(0)
    model = WaveNet(size.settings, BANDS, HOP, -11.5)
    apply_weight_norm(model)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    levels = model.levels(torch.rand(size.batch, size.samples) - 0.5)
    frames = size.samples // HOP + size.settings.condition.look_ahead
    mel = torch.randn(size.batch, BANDS, frames)

    def loss_of(levels, mel):
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            parameters = model(levels, mel)
        return -model.head.log_prob(parameters, levels).mean()

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def step():
        loss = loss_of(levels, mel)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


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


def table(name, compiled=False):
    keep_memory()
    size = SIZES[name]
    steps = {"plain nn.Conv1d, float32": plain_step(size), "ours": our_step(size)}
    if compiled:
        steps["ours, compiled"] = our_step(size, compiled=True)
    best = race(steps)
    plain = best["plain nn.Conv1d, float32"]
    print(f"\n{name}, batch {size.batch} x {size.samples}, one thread; {hardware()}")
    for name, seconds in best.items():
        print(f"{name:26s} {seconds:7.3f} CPU s a step   {plain / seconds:5.2f} x")
    return best


def hardware():
    return f"bfloat16 in hardware: {has_bfloat16()}"


@pytest.mark.bench
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", SIZES)
def test_our_training_step_is_faster_than_a_plain_conv1d_stack(name, compiled):
    if compiled and not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler, g++ was not found")
    best = table(name, compiled)
    plain = best.pop("plain nn.Conv1d, float32")
    assert plain / min(best.values()) >= 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    for known in SIZES:
        table(known, "--compile" in sys.argv[1:])
