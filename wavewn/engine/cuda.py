"""The cuda engine: a whole chunk in one launch of a kernel that is compiled for the model.

This file checks what comes in, computes what is due once a frame in torch (cuda_frames.py), draws
the noise, and launches; the kernel is explained in csrc/cuda/samples.cu. Audio and state stay on
the device and all work is enqueued on torch's current stream. Beside the checks that begin every
call, the host waits once, at the end, to learn whether a sample came out as no number.

Streams that are equally far ahead share a launch. The kernel advances a copy of their states, which
is copied back when all of them are sound.
"""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from wavewn.engine.call import not_a_number
from wavewn.engine.cuda_frames import Frames
from wavewn.engine.cuda_packing import (
    PRECISIONS,
    STREAMS,
    kernel_source,
    pack_constants,
    pack_tiles,
)
from wavewn.engine.nvrtc import (
    KernelSource,
    Launcher,
    compile_kernel,
    multiprocessors,
    shared_limit,
)
from wavewn.engine.wavenet import WaveNetStreams
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError
from wavewn.noise import draw_noise
from wavewn.state import StreamState

# Of a launch. Samples do not depend on them.
CONDITION_BYTES = 1 << 26
SAMPLES_A_LAUNCH = 1 << 14  # within a second: a GPU that draws a screen kills what takes longer
FRAMES_A_CALL = 16  # where somebody wants to hear of progress
STREAMING_SHARE = 3  # one in so many multiprocessors is what L2 can feed with weights; an estimate
HOST_SHARED_BYTES = 99 * 1024  # as the smallest GPU has it
HOST_BLOCKS = 2


class CudaEngine(WaveNetStreams):
    """Runs streams of one WaveNet; see `wavewn.engine.call.WaveNetEngine`.

    Args:
        weights: From `pack_wavenet`.
        device: A GPU; another device only with a `launcher`.
        precision: "float32" or "float16".
        launcher: Makes kernels run where `device` is; None compiles them for the GPU.

    Raises:
        EngineError: The model does not fit into the kernel, or the kernel cannot run here.
    """

    name = "cuda"

    def __init__(
        self,
        weights: WaveNetWeights,
        device: torch.device | str = "cuda",
        precision: str = "float32",
        launcher: Callable[[KernelSource], Launcher] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
        super().__init__(weights, device)
        self.precision = precision
        if launcher is None and self.device.type != "cuda":
            raise EngineError(f"the cuda engine runs on a GPU, not on {self.device}")
        on_gpu = self.device.type == "cuda"
        self._shared_limit = shared_limit(self.device) if on_gpu else HOST_SHARED_BYTES
        self._blocks = multiprocessors(self.device) if on_gpu else HOST_BLOCKS
        if on_gpu and precision == "float16":  # more streams a block cost next to nothing
            self._blocks //= STREAMING_SHARE
        self._make = launcher or (lambda source: compile_kernel(source, self.device))
        self._sources = self._fitting()
        self._kernels: dict[int, Launcher] = {}
        self._lock = threading.Lock()
        with torch.inference_mode():
            self._frames = Frames(weights, self.device)
            self._tiles = pack_tiles(weights, precision).to(self.device)
            self._constants = pack_constants(weights).to(self.device)
        self._kernel(1)

    def _run(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        forced: Tensor | None,
        progress: Callable[[int], None] | None,
        names: list[int],
    ) -> Tensor:
        """Advance streams that are equally far ahead: a launch for so many frames at a time."""
        memory = CONDITION_BYTES // (self._frames.bytes_a_frame * state.batch)
        frames = max(min(memory, SAMPLES_A_LAUNCH // self.hop_length), 1)
        if progress is not None:
            frames = min(frames, FRAMES_A_CALL)
        results, broken, begin = [], [], 0
        for piece in mel.split(frames, dim=2):
            if not piece.shape[2]:
                continue
            heard = self._frames.hear(state, piece, speaker)
            if not heard.shape[1]:
                continue
            end = begin + heard.shape[1] * self.hop_length
            true = None if forced is None else forced[:, begin:end].contiguous()
            result, bad = self._launch(state, heard, temperature, true)
            results.append(result)
            broken.append(torch.where(bad < 0, bad, bad + state.clock))
            state.clock += end - begin
            begin = end
            if progress is not None:
                _check_sound(broken, names)
                for _ in range(heard.shape[1]):
                    progress(1)
        _check_sound(broken, names)
        shape = (state.batch, 0) if forced is None else (state.batch, 0, self.head.parameters)
        return torch.cat([torch.zeros(shape, device=self.device), *results], dim=1)

    def _launch(
        self, state: StreamState, heard: Tensor, temperature: float, forced: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the kernel over due frames; it advances `state.buffer`, not the clock.

        Returns:
            Audio [batch, samples], or, forced, parameters [batch, samples, parameters]; and for
            each row the first sample that is not finite, or -1.
        """
        conditions = self._frames.condition(state, heard)
        batch, samples = state.batch, heard.shape[1] * self.hop_length
        settings = self.weights.settings
        broken = torch.empty_like(state.clock)
        if forced is None:
            noise = draw_noise(self.head.noise, state.seed, state.stream, state.clock, samples)
            result = torch.empty(batch, samples, device=self.device)
            ways: tuple[Tensor | int, ...] = (noise, 0, result, 0)
        else:
            result = torch.empty(batch, samples, self.head.parameters, device=self.device)
            ways = (0, forced, 0, result)
        streams = self._streams(batch)
        self._kernel(streams)(
            -(-batch // streams),
            (
                self._tiles,
                self._constants,
                state.buffer,
                state.clock,
                conditions.gates,
                conditions.upsampled,
                conditions.predictors,
                *ways,
                broken,
                batch,
                samples,
                float(temperature),
                float(getattr(settings.head, "log_scale_min", 0.0)),
                float(settings.pre_emphasis),
            ),
        )
        return result, broken

    def _fitting(self) -> dict[int, KernelSource]:
        """Say what to compile, by streams a block, as far as they fit; one must."""
        sources: dict[int, KernelSource] = {}
        for streams in STREAMS:
            try:
                sources[streams] = kernel_source(
                    self.weights.settings,
                    self.n_mels,
                    self.hop_length,
                    self.precision,
                    streams,
                    self._shared_limit,
                )
            except EngineError:
                if not sources:
                    raise
                break
        return sources

    def _streams(self, batch: int) -> int:
        """Choose the streams of a block: as few as let all blocks run at once, and fed."""
        return next((n for n in self._sources if n * self._blocks >= batch), max(self._sources))

    def _kernel(self, streams: int) -> Launcher:
        """Return the kernel for so many streams a block, compiled when it is first asked for."""
        with self._lock:
            if streams not in self._kernels:
                self._kernels[streams] = self._make(self._sources[streams])
            return self._kernels[streams]


def _check_sound(broken: list[Tensor], names: list[int]) -> None:
    """Wait for the device; raise EngineError naming the first row that broke, and where."""
    if not broken:
        return
    for piece in torch.stack(broken).cpu():
        for row, sample in enumerate(piece.tolist()):
            if sample >= 0:
                raise not_a_number(names[row], sample)
