"""The graph engine: the reference's WaveNet from static caches, captured as CUDA graphs.

What a GPU does for a sample are a few dozen small kernels, and Python cannot launch them as fast as
they run. So the steps of steps.py are captured once, each as a graph: hearing a frame, beginning
it, BLOCK of its samples, and one sample for the tail of a hop that has no good divisor. Then one
launch makes up to BLOCK samples. The device keeps the time, and the host neither waits nor asks
before the call ends; noise is drawn on the CPU, some frames ahead, and sent behind the kernels.

Any CUDA device, any WaveNet. Anywhere else the same steps run one by one, for the tests' sake.

What is promised: on the CPU what the reference promises, to the last bit. On a GPU every sample of
a stream is made by the same kernels in the same order wherever a call begins, so audio does not
depend on chunking to the last bit as long as the batch is the same; with another batch cuBLAS may
choose other kernels, and audio is that of another order of summation.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from wavewn.audio.companding import de_emphasis
from wavewn.engine.call import not_a_number
from wavewn.engine.capture import Capturer, Step
from wavewn.engine.folded import folded
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.static import NEVER, Caches
from wavewn.engine.steps import advance, condition, hear
from wavewn.engine.weights import WaveNetWeights
from wavewn.errors import EngineError
from wavewn.noise import draw_noise
from wavewn.state import StreamState

BLOCK = 32  # samples in one graph at most
IDLE = 4  # caches kept for the next calls
NOISE_FRAMES = 16  # whose noise is drawn at once
GRAPHS = 8  # that caches keep; each temperature has its own

Key = tuple[str, float | None]  # which step, and for which temperature


class CapturedSteps:
    """Caches and their steps, ready to run.

    Args:
        caches: What the steps work on.
        count: Samples of a block.
    """

    def __init__(self, caches: Caches, count: int) -> None:
        self.caches, self._count = caches, count
        self._tail = caches.weights.hop_length % count
        self._forget()

    def prepare(self, temperature: float | None) -> None:
        """Capture what a call will run; spoils what the caches hold."""
        steps = self._steps(temperature)
        if len(self._captured.keys() | steps.keys()) > GRAPHS:
            self._forget()
        for key, step in steps.items():
            if key not in self._captured:
                self.caches.sample.zero_()  # the step is run: let it lie within the frame
                self._captured[key] = self._capturer.capture(step)

    def hear(self) -> None:
        """Run the mel network for the frame in the caches."""
        self._captured["hear", None]()

    def generate(self, temperature: float | None) -> None:
        """Begin the frame that was heard and make its samples."""
        self._captured["condition", None]()
        for _ in range(self.caches.weights.hop_length // self._count):
            self._captured["block", temperature]()
        for _ in range(self._tail):
            self._captured["sample", temperature]()

    def _forget(self) -> None:
        self._captured: dict[Key, Step] = {}
        self._capturer = Capturer(self.caches.clock.device)

    def _steps(self, temperature: float | None) -> dict[Key, Step]:
        caches = self.caches
        steps: dict[Key, Step] = {
            ("hear", None): partial(hear, caches),
            ("condition", None): partial(condition, caches),
            ("block", temperature): partial(advance, caches, self._count, temperature),
        }
        if self._tail:
            steps["sample", temperature] = partial(advance, caches, 1, temperature)
        return steps


def block_of(hop: int) -> int:
    """Samples of a block: a divisor of the hop, unless all that fit are small."""
    divisor = max(count for count in range(1, min(hop, BLOCK) + 1) if hop % count == 0)
    return divisor if divisor == hop or 2 * divisor >= BLOCK else min(hop, BLOCK)


class Noise:
    """Noise of a call's frames, drawn on the CPU some frames ahead of the device.

    Args:
        kinds: As in `draw_noise`.
        state: As the call begins.
        hop: Samples a frame.
        frames: Of the call.
    """

    def __init__(self, kinds: tuple[str, ...], state: StreamState, hop: int, frames: int) -> None:
        self._kinds, self._hop, self._frames, self._device = kinds, hop, frames, state.device
        self._seed, self._stream, self._clock = (
            x.to("cpu", copy=True) for x in (state.seed, state.stream, state.clock)
        )
        self._drawn = state.buffer[:, :0]

    def of_frame(self, number: int) -> Tensor:
        """[batch, hop, draws]; frames are asked for in their order."""
        place = number % NOISE_FRAMES
        if not place:
            count = min(NOISE_FRAMES, self._frames - number) * self._hop
            clock = self._clock + number * self._hop
            noise = draw_noise(self._kinds, self._seed, self._stream, clock, count)
            if self._device.type == "cuda":
                noise = noise.pin_memory()  # so that the host need not wait for the copy
            self._drawn = noise.to(self._device, non_blocking=True)
        return self._drawn[:, place * self._hop : (place + 1) * self._hop]


class GraphEngine(ReferenceEngine):
    """Runs streams of one WaveNet; see `wavewn.engine.call.WaveNetEngine`.

    Several threads may call one engine at once, each with a state of its own. The first call with a
    batch size or a temperature has graphs to capture. `progress` is told when a frame was sent to
    the device, which may be well before it is done.

    Args:
        weights: From `pack_wavenet`.
        device: Where states, mels and audio live.
        precision: "float32" alone.

    Raises:
        EngineError: Another precision.
    """

    name = "graph"

    def __init__(
        self,
        weights: WaveNetWeights,
        device: torch.device | str = "cuda",
        precision: str = "float32",
    ) -> None:
        if precision != "float32":
            raise EngineError(f"the graph engine runs float32 alone, not {precision}")
        super().__init__(weights, device)
        with torch.inference_mode():
            self._folded = folded(self._ready)
        self._rested: list[CapturedSteps] = []

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
        """Advance streams that are equally far ahead."""
        hop, kind = self.hop_length, temperature if forced is None else None
        ahead, begun = int(state.view("ahead")[0, 0, 0]), state.clock.tolist()
        skipped = min(self.look_ahead - ahead, mel.shape[2])
        due = mel.shape[2] - skipped
        noise = Noise(self.head.noise, state, hop, due)
        levels = torch.zeros(state.batch, due * hop, device=self.device)
        parameters = levels.new_zeros(*levels.shape, 0 if forced is None else self.head.parameters)
        steps = self._take(state.batch)
        caches = steps.caches
        steps.prepare(kind)
        caches.load(state, speaker)
        for i, frame in enumerate(mel.unbind(2)):
            caches.mel.copy_(frame)
            steps.hear()
            if i < skipped:
                continue
            samples = slice((i - skipped) * hop, (i - skipped + 1) * hop)
            if forced is None:
                caches.noise.copy_(noise.of_frame(i - skipped))
            else:
                caches.forced.copy_(forced[:, samples])
            steps.generate(kind)
            levels[:, samples] = caches.drawn
            if forced is not None:
                parameters[:, samples] = caches.parameters.transpose(0, 1)
            if progress is not None:
                progress(1)
        state.clock += due * hop
        state.view("ahead").fill_(ahead + skipped)
        caches.store(state)
        check_sound(caches.broken.tolist(), begun, names)  # waits for all of it
        self._lay_back(steps)
        audio = self._audio(levels, state.view("emphasis")[:, 0, 0])
        return audio if forced is None else parameters

    def _audio(self, levels: Tensor, emphasis: Tensor) -> Tensor:
        """Levels [batch, samples] to audio; the filter's memory [batch] is updated in place."""
        decoded = self.head.decode(levels)
        audio = de_emphasis(decoded, self.weights.settings.pre_emphasis, emphasis.clone())
        if audio.shape[1]:
            emphasis.copy_(audio[:, -1])
        return audio.clamp(-1, 1)

    def _take(self, batch: int) -> CapturedSteps:
        """Take caches that no other call holds."""
        with self._lock:
            for steps in self._rested:
                if steps.caches.batch == batch:
                    self._rested.remove(steps)
                    return steps
        count = block_of(self.hop_length)
        return CapturedSteps(Caches(self._ready, self._folded, self.head, batch, count), count)

    def _lay_back(self, steps: CapturedSteps) -> None:
        """Keep caches for the next call; nothing on the device reads or writes them any more."""
        with self._lock:
            self._rested = [*self._rested, steps][-IDLE:]


def check_sound(broken: list[int], begun: list[int], names: list[int]) -> None:
    """Raise EngineError naming the first sample that is not a number.

    Args:
        broken: Of each row, the first such sample of the call, or NEVER.
        begun: Of each row, the clock before the call.
        names: Of each row, its number in the caller's batch.
    """
    row = min(range(len(broken)), key=broken.__getitem__)
    if broken[row] != NEVER:
        raise not_a_number(names[row], begun[row] + broken[row])
