"""The source of a voice: F0 read off a mel, and harmonics of equal height that keep in step.

    mel -> a few convolutions -> bins of F0 -> periods a sub-frame -> (summed: phase) -> harmonics

The phase of a voice is the running sum of its F0. Sums over time keep every error that goes into
them, so the network that reads F0 computes alike however its input is cut (`PreciseConv1d`), and
its steps of phase are multiples of 2**-20 of a period, whose sums are exact. In a sub-frame F0
stands still, and its harmonics are one closed formula.

Source: Wang et al. 2019, arXiv:1904.12088.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.nn.flow import Flow, Rows
from wavewn.nn.padded import PreciseConv1d
from wavewn.nn.pitch import F_MAX, F_MIN, fundamental_frequency

CHANNELS = 64
TAPS = (5, 5, 3)
BINS = 120  # on a logarithmic scale from F_MIN to F_MAX
NEAR = 3  # bins on either side of the likeliest that the estimate averages over
STEP = 2.0**-20  # of a period


class PitchNetwork(nn.ModuleList):
    """Layers that read F0 off a mel, learned from recordings (nn/pitch.py).

    Args:
        n_mels: Bands of the mel.
        subframes: Estimates of a frame.
        look_ahead: Frames that the first layers may see.
        sample_rate: In Hz.
        hop_length: Samples of a sub-frame.
    """

    scale: Tensor
    steps_a_hertz: Tensor

    def __init__(
        self, n_mels: int, subframes: int, look_ahead: int, sample_rate: int, hop_length: int
    ) -> None:
        widths = (n_mels, *[CHANNELS] * (len(TAPS) - 1), subframes * BINS)
        layers = []
        for i, taps in enumerate(TAPS):
            right = min(look_ahead, taps // 2)
            look_ahead -= right
            layers.append(PreciseConv1d(widths[i], widths[i + 1], taps, right=right))
        super().__init__(layers)
        self.subframes, self.sample_rate, self.hop_length = subframes, sample_rate, hop_length
        with torch.device("cpu"):  # they are computed, whatever the parameters are made on
            scale = torch.linspace(math.log(F_MIN), math.log(F_MAX), BINS).double()
            # A tensor, because a number in an ONNX graph has the precision of float32.
            steps = torch.tensor(hop_length / sample_rate / STEP, dtype=torch.float64)
        self.register_buffer("scale", scale[:, None], persistent=False)
        self.register_buffer("steps_a_hertz", steps, persistent=False)

    def flow(self, run: Flow, mel: Rows) -> Rows:
        """Give F0's logits, [batch, BINS, sub-frames]."""
        return self.convolved(run, mel).interleave(self.subframes)

    def convolved(self, run: Flow, mel: Rows) -> Rows:
        """Give the logits of a frame's sub-frames, one after another."""
        x = mel
        for i, layer in enumerate(self):
            x = run.conv(layer, x if i == 0 else x.map(F.relu))
        return x

    @torch.no_grad()
    def cycles(self, logits: Tensor) -> Tensor:
        """Periods that go by in a sub-frame, float64 and multiples of STEP."""
        logits = logits.double()
        bins = torch.arange(BINS, device=logits.device)[:, None]
        far = (bins - logits.argmax(dim=1, keepdim=True)).abs() > NEAR
        share = logits.masked_fill(far, -math.inf).softmax(dim=1)
        f0 = (share * self.scale).sum(1, keepdim=True).exp()
        return (f0 * self.steps_a_hertz).round() * STEP

    def loss(self, mel: Tensor, audio: Tensor) -> Tensor:
        """Cross-entropy of F0, where a recording is voiced; float32.

        Args:
            mel: [batch, bands, frames], as the layers read it.
            audio: [batch, frames * subframes * hop_length], what the mel was taken from.
        """
        known = fundamental_frequency(audio, self.sample_rate, self.hop_length)
        logits = self.flow(Flow(), Rows.of(mel)).whole
        voiced = known > 0
        place = (known.clamp_min(F_MIN) / F_MIN).log() / math.log(F_MAX / F_MIN)
        place = place.clamp(0, 1) * (BINS - 1)
        bins = torch.arange(BINS, device=mel.device)[:, None]
        wanted = torch.softmax(-0.5 * (bins - place[:, None]).square(), dim=1)
        entropy = -(wanted * logits.log_softmax(dim=1)).sum(1)
        return (entropy * voiced).sum() / voiced.sum().clamp_min(1)


@torch.no_grad()
def harmonics(cycles: Tensor, phase: Tensor, length: int, hop_length: int) -> Tensor:
    """Twice the sum of the cosines of all harmonics below half the sample rate.

    In closed form: sin((2K + 1) pi t) / sin(pi t) - 1, with t in periods and K harmonics.

    Args:
        cycles: [batch, sub-frames, 1], periods that go by in a sub-frame, float64.
        phase: [batch, sub-frames, 1], periods at the middle of each.
        length: Samples wanted around the middle.
        hop_length: Samples of a sub-frame.

    Returns:
        [batch, sub-frames, length], float32.
    """
    place = torch.arange(length, device=cycles.device) - (length - 1) / 2
    f0 = cycles / hop_length  # periods a sample
    periods = phase + f0 * place.double()
    t = (periods - periods.round()).float()
    count = (0.5 / f0).floor().float()
    low = torch.sin(math.pi * t)
    near = low.abs() < 1e-4
    ratio = torch.sin((2 * count + 1) * math.pi * t) / torch.where(near, 1.0, low)
    return torch.where(near, 2 * count + 1, ratio) - 1
