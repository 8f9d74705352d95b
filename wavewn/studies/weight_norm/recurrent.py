"""E6: a recurrent network beyond the length that it was trained on.

A WaveRNN-like GRU hears the class of the last sample:

    a = W_x e(t)                               a: [3H], normalised for some variants
    b = W_h h + b_h                            b: [3H], likewise
    r, z = sigmoid(a_r + b_r), sigmoid(a_z + b_z)
    h = z h + (1 - z) tanh(a_n + r b_n)

    none          a and b as they are
    weight        W_x and W_h weight-normed; no initialisation from data, because W_h is used at
                  every sample (Salimans & Kingma 2016, section 3)
    layer         a and b by layer norm
    batch-input   a by batch norm over batch and time (Laurent et al. 2015, arXiv:1510.01378)
    batch-step    a and b by batch norm with statistics of each time step of its own, gain 0.1
                  (Cooijmans et al. 2016, arXiv:1603.09025); beyond the trained length there are
                  none, and those of the last step are used
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.nn.norms.activations import MOMENTUM, BatchNorm
from wavewn.nn.weight_norm import weight_norm
from wavewn.studies.weight_norm.settings import Cell, StudySettings
from wavewn.studies.weight_norm.speech import Speech, crops, encode
from wavewn.studies.weight_norm.stack_cell import HELD_OUT, number

LONGER = 4  # tests go on to so many times the trained length
BINS_A_LENGTH = 4
STEP_GAIN = 0.1
EPS = 1e-5


class StepBatchNorm(nn.Module):
    """Batch norm with running statistics for each time step; after the last, those of the last."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((channels,), STEP_GAIN))
        self.register_buffer("mean", torch.zeros(steps, channels))
        self.register_buffer("variance", torch.ones(steps, channels))

    def forward(self, x: Tensor, step: int) -> Tensor:
        """Normalise [batch, channels] of time step `step`, from 0."""
        step = min(step, len(self.mean) - 1)
        if not self.training:
            mean, variance = self.mean[step], self.variance[step]
        else:
            variance, mean = torch.var_mean(x, 0, correction=0)
            with torch.no_grad():
                self.mean[step].lerp_(mean, MOMENTUM)
                self.variance[step].lerp_(variance, MOMENTUM)
        return self.gain * (x - mean) * torch.rsqrt(variance + EPS)


class Recurrent(nn.Module):
    """The GRU above, with an embedding before it and logits behind.

    Args:
        variant: One of those above.
        classes: Of mu-law.
        hidden: H.
        steps: Trained length.
    """

    def __init__(self, variant: str, classes: int, hidden: int, steps: int) -> None:
        super().__init__()
        H = hidden
        self.embed = nn.Embedding(classes, H)
        self.input, self.hidden = nn.Linear(H, 3 * H, bias=False), nn.Linear(H, 3 * H)
        self.last = nn.Linear(H, classes)
        nn.init.orthogonal_(self.hidden.weight)
        self.norm_input: nn.Module = nn.Identity()
        self.norm_hidden: nn.Module = nn.Identity()
        self.norm_step: nn.ModuleList | None = None
        if variant == "weight":
            weight_norm(self.input)
            weight_norm(self.hidden)
        elif variant == "layer":
            self.norm_input, self.norm_hidden = nn.LayerNorm(3 * H), nn.LayerNorm(3 * H)
        elif variant == "batch-input":
            self.norm_input = BatchNorm(3 * H)
        elif variant == "batch-step":
            self.norm_step = nn.ModuleList(StepBatchNorm(3 * H, steps) for _ in range(2))

    def forward(self, classes: Tensor) -> Tensor:
        """Return logits [batch, time, classes] for classes [batch, time] of the samples before."""
        inputs = self.norm_input(self.input(self.embed(classes)))
        weight, bias = self.hidden.weight, self.hidden.bias  # a weight norm is computed once
        h = inputs.new_zeros(len(classes), weight.shape[1])
        outputs = []
        for step, a in enumerate(inputs.unbind(1)):
            if self.norm_step is None:
                b = self.norm_hidden(F.linear(h, weight, bias))
            else:
                a = self.norm_step[0](a, step)
                b = self.norm_step[1](F.linear(h, weight), step) + bias
            (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
            z = torch.sigmoid(az + bz)
            h = torch.lerp(torch.tanh(an + torch.sigmoid(ar + br) * bn), h, z)
            outputs.append(h)
        return self.last(torch.stack(outputs, 1))


def run_recurrent_cell(settings: StudySettings, speech: Speech, cell: Cell) -> dict[str, Any]:
    """Train one recurrent network and follow its loss beyond the trained length.

    Returns:
        Loss in nats a sample by time, and its means within the trained length and beyond.
    """
    s, length = settings, settings.recurrent_length
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        model = Recurrent(cell.norm, s.classes, s.hidden, length).train()
    optimiser = torch.optim.Adam(model.parameters(), cell.rate)
    for step in range(1, s.recurrent_steps + 1):
        optimiser.param_groups[0]["lr"] = s.rate_of(step, cell.rate)
        audio = crops(speech.train, cell.batch, length + 1, (cell.seed, step))
        loss = _losses(model, encode(audio, s.classes)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    audio = crops(speech.held_out, s.held_out, LONGER * length + 1, (HELD_OUT,))
    with torch.no_grad():
        rows = _losses(model.eval(), encode(audio, s.classes))
    edges = np.linspace(0, LONGER * length, LONGER * BINS_A_LENGTH + 1).astype(int)
    return {
        "samples": [int(a + b) // 2 for a, b in pairwise(edges)],
        "loss": [number(rows[:, a:b].mean().item()) for a, b in pairwise(edges)],
        "within": number(rows[:, :length].mean().item()),
        "beyond": number(rows[:, length:].mean().item()),
    }


def _losses(model: Recurrent, classes: Tensor) -> Tensor:
    logits, target = model(classes[:, :-1]), classes[:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return losses.view_as(target)
