"""A sample of a WaveNet in plain torch, as one would write it to have it compiled.

Static caches, the position a number on the device: nothing waits for the host, so that
torch.compile can put a whole step into one CUDA graph. The condition is left out, which flatters
it. It is a measure for the engines, not one of them.
"""

import torch
from torch import Tensor, nn

from wavewn.config import WaveNetConfig

CLASSES = 256


class PlainStep(nn.Module):
    """One sample of each stream, drawn from the one before.

    Args:
        settings: Sizes; kernel size 2 and mu-law are assumed.
        streams: Rows.
    """

    clock: Tensor
    level: Tensor

    def __init__(self, settings: WaveNetConfig, streams: int) -> None:
        super().__init__()
        R, S, A = settings.residual_channels, settings.skip_channels, settings.head_channels
        self.skip_channels, self.dilations = S, settings.dilations
        self.embedding = nn.Embedding(CLASSES, R)
        self.gates = nn.ModuleList(nn.Linear(2 * R, 2 * R) for _ in self.dilations)
        self.outs = nn.ModuleList(nn.Linear(R, R + S) for _ in self.dilations)
        self.hidden, self.output = nn.Linear(S, A), nn.Linear(A, CLASSES)
        self.register_buffer("clock", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("level", torch.zeros(streams, dtype=torch.int64))
        for i, dilation in enumerate(self.dilations):
            self.register_buffer(f"ring_{i}", torch.zeros(dilation, streams, R))

    def forward(self) -> Tensor:
        """Draw [streams] classes."""
        x, skip = self.embedding(self.level), 0
        for i, dilation in enumerate(self.dilations):
            ring, slot = self.get_buffer(f"ring_{i}"), self.clock % dilation
            old = ring.index_select(0, slot)[0]
            ring.index_copy_(0, slot, x[None])
            filtered, gate = self.gates[i](torch.cat([old, x], dim=1)).chunk(2, dim=1)
            both = self.outs[i](torch.tanh(filtered) * torch.sigmoid(gate))
            skip = skip + both[:, : self.skip_channels]
            x = x + both[:, self.skip_channels :]
        logits = self.output(torch.relu(self.hidden(torch.relu(skip))))
        odds = torch.softmax(logits, dim=1) / torch.empty_like(logits).exponential_()
        self.level.copy_(odds.argmax(dim=1))
        self.clock.add_(1)
        return self.level.clone()
