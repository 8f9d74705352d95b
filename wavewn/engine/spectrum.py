"""Levelling by the native kernel: what nn/levelling.py does in torch, in one call for all times.

A `NativeLevelling` stands where its `Levelling` stood in the model that an engine runs on a CPU,
and gives the same rows. What is to be done follows from the numbers of the rows alone: it is worked
out once for each size of chunk, and a chunk is then one call of the extension, however often it is
levelled. What a stream remembers is what the flow in torch remembers, entry by entry. Audio depends
neither on the chunks nor on the batch, to the last bit.
"""

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_plans import Plans
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.levelling import Levelling
from wavewn.state import Entry

logger = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """What a plan is for; numbers of the first rows are small where an utterance is long.

    Attributes:
        mel: Number of the first frame.
        frames: Mel frames.
        audio: Number of the first sample.
        samples: Of audio.
        ended: Whether the utterance ends with them.
        levellings: How often.
        calls: Entries of the state that the flow around has named before.
    """

    mel: int
    frames: int
    audio: int
    samples: int
    ended: bool
    levellings: int
    calls: int


@dataclass(frozen=True)
class Plan:
    """Steps of the extension (`LevellingStep`, one a row), and the rows that they give."""

    steps: Any
    start: int
    end: int


def instruction_sets() -> dict[str, str]:
    """Give the sets with kernels for spectra, best first, and why one cannot run here."""
    from wavewn import _native

    return dict(_native.spectrum_sets())


def why_not_native(levelling: Levelling) -> str:
    """Say why a levelling cannot run natively; an empty string if it can."""
    from wavewn.engine.native import available

    if reason := available():
        return reason
    from wavewn import _native

    if not _native.can_transform(levelling.n_fft):
        return f"its transforms are of {levelling.n_fft} samples, no even product of 2, 3 and 5"
    return ""


def usable_set(instruction_set: str) -> str:
    """Give the instruction set that is asked for, or the best that can run here."""
    sets = instruction_sets()
    if instruction_set in sets:
        return instruction_set
    return next(name for name, why in sets.items() if not why)


def level_natively(model: nn.Module, instruction_set: str = "auto") -> bool:
    """Let the native kernel level what a model levels in torch, if it can; say so if it cannot."""
    native = False
    for module in list(model.modules()):
        levelling = getattr(module, "levelling", None)
        if not isinstance(levelling, Levelling):
            continue
        if reason := why_not_native(levelling):
            logger.info("levelling runs in torch, not natively: %s", reason)
        else:
            module.levelling = NativeLevelling(levelling, instruction_set)
            native = True
    return native


class NativeLevelling(nn.Module):
    """Runs one levelling; see the module.

    Args:
        levelling: On the CPU. Its tables are copied.
        instruction_set: One of `instruction_sets`; "auto" takes the best that can run.
    """

    def __init__(self, levelling: Levelling, instruction_set: str = "auto") -> None:
        super().__init__()
        from wavewn import _native

        self.instruction_set = instruction_set = usable_set(instruction_set)
        self._inner = levelling
        bands = levelling.heard.matrix.shape[1]
        self.network = _native.Levelling(
            instruction_set,
            levelling.n_fft,
            levelling.hop_length,
            levelling.power,
            levelling.floor,
            levelling.window.numpy(),
            levelling.synthesis.numpy(),
            levelling.heard.matrix.contiguous().numpy(),
            levelling.between.matrix.contiguous().numpy(),
            levelling.mean.expand(bands, 1).reshape(-1).contiguous().numpy(),
            levelling.scale.expand(bands, 1).reshape(-1).contiguous().numpy(),
        )
        self._plans: Plans[Chunk, Plan] = Plans()

    def often(self, run: Flow, mel: Rows, audio: Rows, count: int) -> Rows:
        """Level audio to a mel so often; see `Levelling.often`."""
        memory = run.memory
        if mel.data is None or not isinstance(memory, Memory) or not count:
            return self._inner.often(run, mel, audio, count)
        hop = self._inner.hop_length
        far = 2 * (count + 1) * (self._inner.win_length // hop)  # beyond it all is alike
        shift = max(min(mel.start - far, audio.start // hop - far), 0)
        chunk = Chunk(
            mel.start - shift,
            mel.end - mel.start,
            audio.start - shift * hop,
            audio.end - audio.start,
            mel.ended,
            count,
            run.calls,
        )
        plan = self._plans.get(chunk, lambda: self.worked_out(chunk, memory))
        run.calls += 4 * count
        stated = mel.data.float().transpose(1, 2).contiguous()
        heard = audio.whole[:, 0].contiguous()
        out = torch.empty(heard.shape[0], plan.end - plan.start)
        self.network.run(
            plan.steps, memory.buffer.numpy(), stated.numpy(), heard.numpy(), out.numpy()
        )
        start, end = plan.start + shift * hop, plan.end + shift * hop
        return Rows(out[:, None], 1, start, end, audio.ended)

    def log_magnitudes(self, mel: Tensor) -> Tensor:
        """See `Levelling.log_magnitudes`."""
        return self._inner.log_magnitudes(mel)

    def worked_out(self, chunk: Chunk, memory: Memory) -> Plan:
        """Run the flow on numbers of rows."""
        own, flow = self._inner, Flow(calls=chunk.calls)
        mel = Rows(None, 1, chunk.mel, chunk.mel + chunk.frames, chunk.ended)
        audio = Rows(None, 1, chunk.audio, chunk.audio + chunk.samples, chunk.ended)
        steps = []
        for _ in range(chunk.levellings):
            names = [f"flow.{flow.calls + i}" for i in range(4)]
            framed = flow.windows(audio, own.win_length, own.hop_length, own.left)
            _, framed = flow.align(mel, framed)
            given = flow.overlap_add(framed, own.hop_length, own.left)
            kept, stated, ahead, _ = (flow.taken[name][0] for name in names)
            assert not ahead, "audio is ahead of its mel"
            audio_entry, mel_entry, _, overlap = (memory.entries.get(name) for name in names)
            first = framed.start * own.hop_length
            steps.append(
                [
                    *(audio.end - audio.start, kept, *place(audio_entry)),
                    *(audio.start - kept, first - own.left, audio.end, int(audio.ended)),
                    framed.end - framed.start,
                    *(stated, *place(mel_entry), place(overlap)[1]),
                    *(given.start + own.left - first, given.end - given.start),
                ]
            )
            audio = given
        table = np.array(steps, dtype=np.int64).reshape(len(steps), -1 if steps else 0)
        return Plan(table, audio.start, audio.end)


def place(entry: Entry | None) -> tuple[int, int]:
    """Rows that an entry holds, and where it begins in a state."""
    return (0, 0) if entry is None else (entry.rows, entry.offset)
