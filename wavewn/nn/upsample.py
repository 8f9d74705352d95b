"""From frames to samples.

Nearest and linear upsampling commute with a 1x1 projection: projecting frames and then
upsampling equals upsampling and then projecting. So the stack projects once a frame, and no
tensor of layers x samples is ever made. A learned transposed convolution does not commute with
what follows it; it runs first, and the projection then runs once a sample.

All are causal: a sample of frame f reads frames f - 1 and f only. Frame -1, the row before the
first, is always passed in; it is zero at the start of an utterance.
"""

import torch
from torch import Tensor, nn


def linear_ramp(hop_length: int, device: torch.device | None = None) -> Tensor:
    """Weight of the current frame at each sample of a hop: (i + 1) / hop_length, float32."""
    return torch.arange(1, hop_length + 1, device=device, dtype=torch.float32) / hop_length


def upsample_linear(frames: Tensor, hop_length: int) -> Tensor:
    """Go from the previous frame to the current one along `linear_ramp`.

    Args:
        frames: [batch, 1 + F, channels], the frame before the first included.
        hop_length: Samples a frame.

    Returns:
        [batch, F * hop_length, channels].
    """
    ramp = linear_ramp(hop_length, frames.device).to(frames.dtype)[:, None]
    before, now = frames[:, :-1, None], frames[:, 1:, None]
    return (before + (now - before) * ramp).flatten(1, 2)


class TransposedUpsample(nn.Module):
    """Learned upsampling: each frame spreads over its own hop and the next.

    The kernel is two hops long and the output is cut to the left part, so sample t reads frames
    f - 1 and f, like `upsample_linear`, which it equals when freshly made.

    Args:
        channels: Channels of frames and samples.
        hop_length: Samples a frame.
    """

    def __init__(self, channels: int, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.conv = nn.ConvTranspose1d(channels, channels, 2 * hop_length, stride=hop_length)
        ramp = linear_ramp(hop_length)
        kernel = torch.cat([ramp, 1 - ramp])
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[range(channels), range(channels)] = kernel
            self.conv.bias.zero_()  # type: ignore[union-attr]

    def forward(self, frames: Tensor) -> Tensor:
        """[batch, 1 + F, channels] to [batch, F * hop_length, channels]."""
        spread = self.conv(frames.transpose(1, 2))
        count = frames.shape[1] - 1
        return spread[..., self.hop_length : (count + 1) * self.hop_length].transpose(1, 2)


def add_upsampled(x: Tensor, frames: Tensor, kind: str) -> Tensor:
    """Return `x` plus the upsampled frames; repeated ones are broadcast and never made.

    Args:
        x: [batch, F * hop_length, channels].
        frames: [batch, 1 + F, channels] for "nearest" and "linear"; for "transposed" already at
            sample rate, [batch, F * hop_length, channels].
        kind: As in `Condition.upsampling`.
    """
    if kind == "transposed":
        return x + frames
    hop_length = x.shape[1] // (frames.shape[1] - 1)
    if kind == "linear":
        return x + upsample_linear(frames, hop_length)
    return (x.unflatten(1, (-1, hop_length)) + frames[:, 1:, None]).flatten(1, 2)
