"""The spectral model natively, a chunk in one call of the extension (csrc/spectral_chunk.hpp).

What reads F0 and what draws the envelopes are flows of convolutions (onepass_flow.py), the source
with its filters and the levellings are plans (spectrum_synthesis.py, spectrum.py). For each size of
chunk they are put together once; what a stream remembers is what they remember one by one.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from wavewn.engine import spectrum, spectrum_synthesis
from wavewn.engine.onepass_flow import Chunk, NativeFlow
from wavewn.engine.onepass_memory import Memory
from wavewn.engine.onepass_plans import Plans
from wavewn.models.generators import Generator
from wavewn.models.spectral import Spectral
from wavewn.models.wavenet import MEL_SCALE
from wavewn.nn.flow import Flow, Rows
from wavewn.nn.latency import measure

LANES = 16  # frames that are levelled at once


@dataclass(frozen=True)
class Plan:
    """A chunk of the extension, and the samples that it gives if it begins at `Chunk.start`."""

    run: Any
    start: int
    end: int
    calls: int


class NativeSpectral(nn.Module):
    """Runs a `Spectral` whose parts are native; a `Generator`.

    Args:
        model: Its parts stand where those in torch stood.
        network: Layers of the extension whose memory and threads it works with.
        most_frames: That are heard at a time.
    """

    noise_channels = 1

    def __init__(self, model: Spectral, network: Any, most_frames: int) -> None:
        super().__init__()
        self.settings, self.n_mels, self.hop_length = model.settings, model.n_mels, model.hop_length
        self._model, self._network = model, network
        self._most = max(most_frames // LANES * LANES, 1)
        self._steady = measure(model.flow, model.n_mels, model.hop_length).steady
        self._plans: Plans[Chunk, Plan] = Plans()

    def flow(self, run: Flow, mel: Rows, noise: Rows) -> Rows:
        """See `Generator.flow`."""
        if mel.data is None or not isinstance(run.memory, Memory):
            return self._model.flow(run, mel, noise)
        stated = mel.data.float().transpose(1, 2).contiguous()
        drive, frames = noise.whole[:, 0].contiguous(), mel.end - mel.start
        if frames <= self._most:
            return self._run(run, stated, drive, mel.start, mel.ended, run.memory)
        calls, given, hop = run.calls, [], self.hop_length
        for begin in range(0, frames, self._most):
            run.calls, end = calls, min(begin + self._most, frames)
            own = stated[:, begin:end].contiguous(), drive[:, begin * hop : end * hop].contiguous()
            start, ended = mel.start + begin, mel.ended and end == frames
            given.append(self._run(run, *own, start, ended, run.memory))
        audio = torch.cat([part.whole for part in given], dim=2)
        return Rows(audio, 1, given[0].start, given[-1].end, mel.ended)

    def _run(
        self, run: Flow, mel: Tensor, noise: Tensor, start: int, ended: bool, memory: Memory
    ) -> Rows:
        """Run frames [batch, frames, bands], the first of which has the number `start`."""
        own = min(start, self._steady)
        chunk = Chunk(own, mel.shape[1], ended, run.calls, memory.buffer.shape[1])
        plan = self._plans.get(chunk, lambda: self._put_together(chunk, memory))
        out = torch.empty(len(mel), plan.end - plan.start)
        plan.run.run(*(one.numpy() for one in (memory.buffer, mel, noise, out)))
        run.calls, moved = plan.calls, (start - own) * self.hop_length
        return Rows(out[:, None], 1, plan.start + moved, plan.end + moved, ended)

    def _put_together(self, chunk: Chunk, memory: Memory) -> Plan:
        """Work out the parts of a chunk, each from what those before it give."""
        from wavewn import _native

        model, hop, count = self._model, self.hop_length, self.settings.levellings
        begin, frames, ended, calls = chunk.start, chunk.rows, chunk.ended, chunk.calls
        mel = Rows(None, self.n_mels, begin, begin + frames, ended)
        pitch = cast("NativeFlow", model.pitch.convolved).program(mel, calls, memory)
        envelopes = cast("NativeFlow", model.envelopes).program(mel, pitch.calls, memory)
        logits, drawn = ((begin + one.shift, one.rows) for one in (pitch, envelopes))
        noise, calls = (begin * hop, frames * hop), envelopes.calls
        heard = spectrum_synthesis.Chunk((begin, frames), logits, drawn, noise, ended, calls)
        filters = cast("spectrum_synthesis.NativeFilters", model.filtered)
        filtered = filters.worked_out(heard, memory)
        samples, calls = (filtered.start, filtered.end - filtered.start), calls + 8
        audio = spectrum.Chunk(begin, frames, *samples, ended, count, calls)
        levelling = cast("spectrum.NativeLevelling", model.levelling)
        levelled = levelling.worked_out(audio, memory)
        run = _native.SpectralChunk(
            self._network,
            pitch.run,
            envelopes.run,
            filters.network,
            filtered.steps,
            levelling.network,
            levelled.steps,
            (model.silence, MEL_SCALE),
            chunk.state,
        )
        return Plan(run, levelled.start, levelled.end, calls + 4 * count)


def in_one_call(model: Spectral) -> Generator:
    """Let a `Spectral` run in one call, if all of its parts run natively."""
    flows = model.pitch.convolved, model.envelopes
    parts = isinstance(model.filtered, spectrum_synthesis.NativeFilters) and isinstance(
        model.levelling, spectrum.NativeLevelling
    )
    if not parts or not all(isinstance(flow, NativeFlow) for flow in flows):
        return model
    pitch, envelopes = (cast("NativeFlow", flow) for flow in flows)
    most = min(pitch.most_rows, envelopes.most_rows)
    return cast("Generator", NativeSpectral(model, envelopes.network, most))
