"""The source and filters of the spectral model by the native kernel, a chunk in one call.

What models/spectral.py does in `Spectral.filtered`: F0 and its phase, harmonics and noise, their
spectra, the filters, and the overlap of sub-frames. As engine/spectrum.py does for levelling, what
is to be done is worked out once for each size of chunk, and streams remember what they do in torch.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_plans import Plans
from wavewn.engine.spectrum import Plan, place, usable_set
from wavewn.models.spectral import LOUD, OVERLAP, VOICE, Spectral
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.harmonics import NEAR, STEP

logger = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """What a plan is for: (first row, rows) of each input; see `spectrum.Chunk`."""

    mel: tuple[int, int]
    logits: tuple[int, int]
    envelopes: tuple[int, int]
    noise: tuple[int, int]
    ended: bool
    calls: int


def why_not_native(model: Spectral) -> str:
    """Say why its filters cannot run natively; an empty string if they can."""
    from wavewn.engine.native import available

    if reason := available():
        return reason
    from wavewn import _native

    length = model.settings.n_fft
    if not _native.can_transform(length):
        return f"its transforms are of {length} samples, no even product of 2, 3 and 5"
    return ""


def filter_natively(model: nn.Module, instruction_set: str = "auto") -> bool:
    """Let the native kernel run the filters of a `Spectral`, if it can; say so if it cannot."""
    if not isinstance(model, Spectral):
        return False
    if reason := why_not_native(model):
        logger.info("the spectral filters run in torch, not natively: %s", reason)
        return False
    model.filtered = NativeFilters(model, instruction_set)  # type: ignore[method-assign,assignment]
    return True


class NativeFilters:
    """Runs `Spectral.filtered`; see the module.

    Args:
        model: On the CPU. Its tables are copied.
        instruction_set: As `NativeLevelling` takes it.
    """

    def __init__(self, model: Spectral, instruction_set: str = "auto") -> None:
        from wavewn import _native

        self.instruction_set = usable_set(instruction_set)
        self._filtered: Callable[[Flow, Rows, Rows, Rows, Rows], Rows] = model.filtered
        self._length, self._step = model.settings.n_fft, model.step
        self._subframes, self._hop_length = model.settings.subframes, model.hop_length
        pitch, bands = model.pitch, model.n_mels
        units = model.levelling.mean, model.levelling.scale
        numbers = self._step, self._subframes, NEAR, VOICE, LOUD, float(pitch.steps_a_hertz), STEP
        self.network = _native.Synthesis(
            self.instruction_set,
            numbers,
            model.window.numpy(),
            (model.window / OVERLAP).numpy(),
            model.envelope.T.contiguous().numpy(),
            model.envelope_level[:, 0].contiguous().numpy(),
            *(x.expand(bands, 1).reshape(-1).numpy() for x in units),
            pitch.scale[:, 0].contiguous().numpy(),
        )
        self._plans: Plans[Chunk, Plan] = Plans()

    def __call__(self, run: Flow, mel: Rows, logits: Rows, envelopes: Rows, noise: Rows) -> Rows:
        """See `Spectral.filtered`."""
        memory = run.memory
        if mel.data is None or not isinstance(memory, Memory):
            return self._filtered(run, mel, logits, envelopes, noise)
        frames, far = (mel, logits, envelopes), 2 * self._length // self._step
        newest = noise.start // self._hop_length
        shift = max(min(newest, *(x.start for x in frames)) - far, 0)
        moved = shift * self._hop_length
        chunk = Chunk(
            (mel.start - shift, mel.end - mel.start),
            (logits.start - shift, logits.end - logits.start),
            (envelopes.start - shift, envelopes.end - envelopes.start),
            (noise.start - moved, noise.end - noise.start),
            mel.ended,
            run.calls,
        )
        plan = self._plans.get(chunk, lambda: self.worked_out(chunk, memory))
        run.calls += 8
        heard = (
            x.whole.float().transpose(1, 2).contiguous().numpy() for x in (logits, envelopes, mel)
        )
        drive = noise.whole[:, 0].contiguous()
        out = torch.empty(drive.shape[0], plan.end - plan.start)
        self.network.run(plan.steps, memory.buffer.numpy(), *heard, drive.numpy(), out.numpy())
        return Rows(out[:, None], 1, plan.start + moved, plan.end + moved, mel.ended)

    def worked_out(self, chunk: Chunk, memory: Memory) -> Plan:
        """Run the flow on numbers of rows."""
        bins, count, hop = self._length // 2 + 1, self._subframes, self._step
        names = [f"flow.{chunk.calls + i}" for i in range(8)]
        flow = Flow(calls=chunk.calls)
        inputs = [
            Rows(None, channels, start, start + rows, chunk.ended)
            for channels, (start, rows) in (
                (1, chunk.mel),
                (count, chunk.logits),
                (3 * bins * count, chunk.envelopes),
                (1, chunk.noise),
            )
        ]
        given = self._filtered(flow, *inputs)
        assert flow.calls == chunk.calls + 8, "the flow names other entries"
        entries = [memory.entries.get(name) for name in names]
        kept = [(flow.taken[name][0], *place(e)) for name, e in zip(names, entries, strict=True)]
        *ahead, noise = inputs
        first = min(noise.start // hop, *(x.start * count for x in ahead))
        last = min(noise.end // hop, *(x.end * count for x in ahead))
        step = [
            *(chunk.logits[1], chunk.envelopes[1], chunk.mel[1], chunk.noise[1]),
            kept[0][2],
            *(number for numbers in kept[1:7] for number in numbers),
            *(last - first, kept[7][2]),
            *(given.start + (self._length - hop) // 2 - first * hop, given.end - given.start),
        ]
        return Plan(np.array(step, dtype=np.int64), given.start, given.end)
