"""What checkpoints of wavenet_vocoder have in common, whatever their year.

Tests take it in with `runpy`, for they are no package.
"""

import torch

BANDS, FRAMES, HOP = 5, 6, 16
ATOL = 1e-5  # float32; sums in another order
SIZES = {
    "name": "wavenet_vocoder", "input_type": "raw", "quantize_channels": 65536,
    "sample_rate": 16000, "num_mels": BANDS, "fmin": 125, "fmax": 7600, "fft_size": 64,
    "hop_size": HOP, "frame_shift_ms": None, "out_channels": 6, "layers": 6, "stacks": 2,
    "residual_channels": 4, "gate_channels": 8, "skip_out_channels": 3, "kernel_size": 3,
    "cin_channels": BANDS, "gin_channels": -1,
}  # fmt: skip


class Weights:
    """A state dict of theirs in the making, with weight norm in torch's old spelling."""

    def __init__(self):
        self.random = torch.Generator().manual_seed(3)
        self.state = {}

    def __call__(self, name, *shape, bias=True):
        """Draw a layer; give its weight and its bias, [shape[0]] or, with `bias` off, None."""
        draw = lambda *sizes: torch.randn(sizes, generator=self.random)  # noqa: E731
        v = draw(*shape)
        g = draw(shape[0], *[1] * (len(shape) - 1)).abs() + 0.3
        self.state |= {f"{name}.weight_g": g, f"{name}.weight_v": v}
        if bias:
            self.state[f"{name}.bias"] = 0.3 * draw(shape[0])
        norm = v.flatten(1).norm(dim=1).view_as(g)
        return g * v / norm, self.state.get(f"{name}.bias")
