"""The native engine: the whole network in C++, many times faster than real time on one CPU core.

This file checks what comes in, draws the noise, and lets the kernel advance the state; the kernel
is explained in csrc/network.hpp. Everything that WaveNet can be configured to runs in it.
"""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from wavewn.bundle.precisions import Calibration
from wavewn.engine.call import not_a_number
from wavewn.engine.packing import PRECISIONS, pack_network
from wavewn.engine.wavenet import WaveNetStreams
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError
from wavewn.noise import draw_noise
from wavewn.state import StreamState

BY_NAME = ("amx",)  # never taken by "auto": has run in imitation alone (tests/csrc)
FRAMES_A_CALL = 16  # where somebody wants to hear of progress


def available() -> str:
    """Say why the engine cannot run here; an empty string if it can."""
    if importlib.util.find_spec("wavewn._native") is None:
        return "wavewn was installed without its compiled part; pip install it with a C++ compiler"
    return ""


def instruction_sets() -> dict[str, str]:
    """Name every instruction set, best first, with the reason why it cannot run, "" if it can."""
    from wavewn import _native

    return dict(_native.instruction_sets())


class NativeEngine(WaveNetStreams):
    """Runs streams of one WaveNet; see `wavewn.engine.call.WaveNetEngine`.

    Args:
        weights: From `pack_wavenet`.
        precision: "float32", "float16" or "int8".
        instruction_set: One of `instruction_sets()`; "auto" takes the best that can run.
        threads: That share the rows of a batch. A lonely stream has two where its weights are
            more than a core's second cache holds.
        calibration: Of this model, for int8.

    Raises:
        EngineError: The extension is missing, or the precision or the set cannot run here.
    """

    name = "native"

    def __init__(
        self,
        weights: WaveNetWeights,
        precision: str = "float32",
        instruction_set: str = "auto",
        threads: int = 1,
        calibration: Calibration | None = None,
    ) -> None:
        if reason := available():
            raise EngineError(f"the native engine is not here: {reason}")
        if precision not in PRECISIONS:
            raise EngineError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
        if threads < 1:
            raise EngineError(f"threads must be at least 1, got {threads}")
        if precision == "int8" and calibration is None:
            raise EngineError(
                "int8 needs a calibration, which this model lacks: make a bundle that has one with "
                "wavewn export MODEL --calibrate RECORDINGS -o NEW"
            )
        self.instruction_set = _choose_set(instruction_set)
        self.precision = precision
        self.threads = threads
        super().__init__(weights, "cpu")
        self._network = pack_network(weights, precision, self.instruction_set, threads, calibration)

    @property
    def arena_bytes(self) -> int:
        """Size of the packed weights."""
        return int(self._network.arena_bytes)

    @property
    def kernel_seconds(self) -> float:
        """What the last call took inside the kernel."""
        return float(self._network.kernel_seconds)

    def _serve(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        forced: Tensor | None,
        progress: Callable[[int], None] | None,
        result: Tensor,
    ) -> None:
        """Let the kernel run all rows at once, however far ahead each is."""
        if forced is not None:
            self._advance(state, mel, speaker, temperature, forced, None, result)
        elif progress is None:
            self._advance(state, mel, speaker, temperature, None, result, None)
        else:
            self._in_pieces(state, mel, speaker, temperature, result, progress)

    def _in_pieces(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        out: Tensor,
        progress: Callable[[int], None],
    ) -> None:
        """Generate some frames at a time and tell; the state moves when all of it is done."""
        trial, begin = state.clone(), 0
        for piece in mel.split(FRAMES_A_CALL, dim=2):
            frames = self.due_frames(trial, piece.shape[2])
            end = begin + frames * self.weights.hop_length
            part = torch.zeros(state.batch, end - begin)
            self._advance(trial, piece, speaker, temperature, None, part, None)
            out[:, begin:end] = part
            begin = end
            for _ in range(frames):
                progress(1)
        state.buffer.copy_(trial.buffer)
        state.clock.copy_(trial.clock)

    def _advance(
        self,
        state: StreamState,
        mel: Tensor,
        speaker: Tensor | None,
        temperature: float,
        forced: Tensor | None,
        audio: Tensor | None,
        parameters: Tensor | None,
    ) -> None:
        """Let the kernel advance all rows; what it gives lies at the end of each row."""
        samples = self.due_samples(state, mel.shape[2])
        noise = None
        if forced is None:
            noise = draw_noise(self.head.noise, state.seed, state.stream, state.clock, samples)
        row, sample = self._network.advance(
            state.buffer.numpy(),
            state.clock.numpy(),
            mel.detach().contiguous().numpy(),
            None if noise is None else noise.numpy(),
            None if forced is None else forced.detach().contiguous().numpy(),
            None if speaker is None else speaker.contiguous().numpy(),
            temperature,
            None if audio is None else audio.numpy(),
            None if parameters is None else parameters.numpy(),
            samples,
        )
        if row >= 0:
            raise not_a_number(row, sample)


def _choose_set(wanted: str) -> str:
    sets = instruction_sets()
    if wanted == "auto":
        return next(name for name, reason in sets.items() if not reason and name not in BY_NAME)
    if wanted not in sets:
        raise EngineError(f"instruction_set must be auto or one of {', '.join(sets)}, got {wanted}")
    if sets[wanted]:
        raise EngineError(f"instruction set {wanted} cannot run here: {sets[wanted]}")
    if wanted == "amx":
        from wavewn import _native

        if refusal := _native.request_amx():
            raise EngineError(f"{refusal}; take avx512 or auto")
    return wanted
