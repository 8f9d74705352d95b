"""Steady chunks of a one-pass model, captured once for each size and replayed.

On a GPU a chunk of a few frames is hundreds of small kernels, and starting them one by one from
Python takes longer than running them. A CUDA graph starts all of them at once, but knows only the
memory and the numbers that it was captured with. So the captured flow works on buffers of its own,
into which state, mel and noise are copied and out of which state and audio come; and only steady
chunks are captured (`nn.latency.Measured.steady`), whose work does not depend on how long ago the
utterance began. Its beginning, its end, sizes met for the first time and large chunks, whose
kernels take longer than their start, run eagerly.

The same code runs uncaptured on the CPU: there too with the row numbers of the first time, so that
a flow whose work depended on them would be found by any test that streams.

No model is known that cannot be captured: none waits for the device once it is steady. Should torch
refuse one, its engine says so in the log and runs it eagerly.
"""

import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Of (buffer, mel, noise): updates the buffer in place and gives audio [batch, samples].
Run = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Size = tuple[int, int]  # rows, frames

MOST_SIZES = 16  # a caller that pushes chunks of all sizes shall not fill the memory
LARGEST = 32_768  # samples of all rows together; larger chunks keep a GPU busy by themselves
WARM = 3  # runs before a capture: libraries choose their algorithms, and allocate


class SteadyStep:
    """A steady chunk of one size, with memory of its own.

    Args:
        run: What is captured.
        buffer: Example of the state's rows, [batch, numbers].
        mel: Example of the chunk.
        noise: Example of its noise, where there is any.
        pool: Of graphs that never run at once and may share memory; None on the CPU.
    """

    def __init__(
        self, run: Run, buffer: Tensor, mel: Tensor, noise: Tensor | None, pool: object
    ) -> None:
        self._inputs = torch.zeros_like(buffer), torch.zeros_like(mel)
        self._noise = None if noise is None else torch.zeros_like(noise)
        self._run = run
        self._graph: torch.cuda.CUDAGraph | None = None
        if buffer.device.type == "cuda":
            self._capture(buffer.device, pool)

    def __call__(self, buffer: Tensor, mel: Tensor, noise: Tensor | None) -> Tensor:
        """Advance the buffer in place, and give the audio."""
        own_buffer, own_mel = self._inputs
        own_buffer.copy_(buffer)
        own_mel.copy_(mel)
        if self._noise is not None and noise is not None:
            self._noise.copy_(noise)
        if self._graph is None:
            self._audio = self._run(*self._inputs, self._noise)
        else:
            self._graph.replay()
        buffer.copy_(own_buffer)
        return self._audio.clone()

    def _capture(self, device: torch.device, pool: object) -> None:
        with torch.cuda.device(device):
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    self._run(*self._inputs, self._noise)
            torch.cuda.current_stream(device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may go on using the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                self._audio = self._run(*self._inputs, self._noise)
        self._graph = graph


class SteadySteps:
    """Steady chunks of one model, by size. Calls from several threads take turns.

    Args:
        run: The flow, at any steady row number.
        device: Where it runs.
        hop_length: Samples a frame.
    """

    def __init__(self, run: Run, device: torch.device, hop_length: int) -> None:
        self._run, self._device, self._hop_length = run, device, hop_length
        self._lock = threading.Lock()
        self._steps: dict[Size, SteadyStep | None] = {}  # None: met once
        self._refused = False
        cuda = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if cuda else None
        self._done = torch.cuda.Event() if cuda else None  # of the last replay, on any stream

    @property
    def sizes(self) -> list[Size]:
        """Of the chunks that are replayed by now: (rows, frames)."""
        return [size for size, step in self._steps.items() if step is not None]

    def __call__(self, buffer: Tensor, mel: Tensor, noise: Tensor | None) -> Tensor | None:
        """Advance the buffer of a steady chunk in place and give its audio.

        Returns:
            None where chunks of this size run eagerly.
        """
        with self._lock:
            step = self._find(buffer, mel, noise)
            if step is None:
                return None
            if self._done is None:
                return step(buffer, mel, noise)
            self._done.wait(torch.cuda.current_stream(self._device))
            audio = step(buffer, mel, noise)
            self._done.record(torch.cuda.current_stream(self._device))
            return audio

    def _find(self, buffer: Tensor, mel: Tensor, noise: Tensor | None) -> SteadyStep | None:
        size = (mel.shape[0], mel.shape[2])
        if size in self._steps:
            if self._steps[size] is None and not self._refused:
                try:
                    step = SteadyStep(self._run, buffer, mel, noise, self._pool)
                except RuntimeError as error:
                    self._refused = True
                    reason = str(error).splitlines()[0]
                    logger.warning("this model cannot be captured, and runs eagerly: %s", reason)
                    return None
                self._steps[size] = step
            return self._steps[size]
        small = 0 < size[0] * size[1] * self._hop_length <= LARGEST
        if small and len(self._steps) < MOST_SIZES:
            self._steps[size] = None
        return None
