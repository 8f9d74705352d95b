"""Steady chunks of a one-pass model, captured once for each size and replayed.

On a GPU a chunk of a few frames is hundreds of small kernels, and starting them one by one from
Python takes longer than running them. A CUDA graph starts all of them at once, but knows only the
memory and the numbers that it was captured with. So the captured flow works on buffers of its own,
into which state, mel and noise are copied and out of which state and audio come; and only steady
chunks are captured (`nn.latency.Measured.steady`), whose work does not depend on how long ago the
utterance began. Its beginning, its end, sizes met for the first time and large chunks, whose
kernels take longer than their start, run eagerly.

A capture takes as long as many chunks: whoever streams live lets a stream of the same chunks run
through the engine first.

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

from wavewn.engine.capture import Capturer

logger = logging.getLogger(__name__)

# Of (buffer, mel, noise): updates the buffer in place and gives audio [batch, samples].
Run = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Size = tuple[int, int]  # rows, frames

MOST_SIZES = 16  # a caller that pushes chunks of all sizes shall not fill the memory
LARGEST = 32_768  # samples of all rows together; larger chunks keep a GPU busy by themselves


class SteadyStep:
    """A steady chunk of one size, with memory of its own.

    Args:
        run: What is captured.
        buffer: Example of the state's rows, [batch, numbers].
        mel: Example of the chunk.
        noise: Example of its noise, where there is any.
        samples: That a row gives.
        capturer: Captures it.
    """

    def __init__(
        self,
        run: Run,
        buffer: Tensor,
        mel: Tensor,
        noise: Tensor | None,
        samples: int,
        capturer: Capturer,
    ) -> None:
        self._buffer, self._mel = torch.zeros_like(buffer), torch.zeros_like(mel)
        self._noise = None if noise is None else torch.zeros_like(noise)
        self._audio = buffer.new_zeros(len(buffer), samples)
        self._run = run
        self._step = capturer.capture(self._work)

    def __call__(self, buffer: Tensor, mel: Tensor, noise: Tensor | None) -> Tensor:
        """Advance the buffer in place, and give the audio."""
        self._buffer.copy_(buffer)
        self._mel.copy_(mel)
        if self._noise is not None and noise is not None:
            self._noise.copy_(noise)
        self._step()
        buffer.copy_(self._buffer)
        return self._audio.clone()

    def _work(self) -> None:
        self._audio.copy_(self._run(self._buffer, self._mel, self._noise))


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
        self._capturer = Capturer(device)
        self._done: torch.cuda.Event | None = None  # of the last replay, on any stream
        if device.type == "cuda":
            self._done = torch.cuda.Event()

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
                    samples = size[1] * self._hop_length
                    step = SteadyStep(self._run, buffer, mel, noise, samples, self._capturer)
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
