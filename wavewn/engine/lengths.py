"""Rows of different lengths in one batch, where the engine hears the end of an utterance.

What follows a row's end must not be heard, so that row has to be finished there. A one-pass model
is run anew for each length: its audio depends, within rounding, on how a stream is cut. A WaveNet's
does not, and its rows are run together until each of them ends.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wavewn.engine.stream import Stream

Progress = Callable[[int], None]


def each_length(stream: Stream, mel: Tensor, ends: Tensor, progress: Progress) -> Tensor:
    """Synthesize rows of each length by themselves.

    Args:
        stream: Has heard nothing; its state stays so.
        mel: [batch, bands, frames].
        ends: int64 [batch], frames of each row.
        progress: Told frames; their sum is those of the mel.

    Returns:
        [batch, frames * hop_length], zero after a row's end.
    """
    engine, who, temperature, told = stream.engine, stream.speaker, stream.temperature, 0
    mel, ends = mel.to(engine.device), ends.to(engine.device)
    audio = torch.zeros(len(mel), mel.shape[2] * engine.hop_length, device=engine.device)
    for end in ends.unique().tolist():  # the shortest first
        rows = (ends == end).nonzero()[:, 0]
        state, own = stream.state.select(rows), None if who is None else who[rows]
        said = engine.generate(state, mel[rows, :, :end], speaker=own, temperature=temperature)
        rest = engine.finish(state, speaker=own, temperature=temperature)
        audio[rows, : end * engine.hop_length] = torch.cat([said, rest], dim=1)
        progress(end - told)
        told = end
    progress(mel.shape[2] - told)
    return audio


def until_each_ends(stream: Stream, mel: Tensor, ends: Tensor, progress: Progress) -> Tensor:
    """Synthesize rows together, and let each leave where it ends; see `each_length`."""
    engine, who, temperature = stream.engine, stream.speaker, stream.temperature
    mel, ends = mel.to(engine.device), ends.to(engine.device)
    audio = torch.zeros(len(mel), mel.shape[2] * engine.hop_length, device=engine.device)
    state, rows = stream.state, torch.arange(len(mel), device=engine.device)
    heard, told = 0, 0

    def tell(frames: int) -> None:
        nonlocal told
        told += frames
        progress(frames)

    for end in ends.unique().tolist():  # the shortest first
        begin, own = int(state.clock[0]), None if who is None else who[rows]
        piece = mel[rows, :, heard:end]
        said = engine.generate(state, piece, speaker=own, temperature=temperature, progress=tell)
        audio[rows, begin : begin + said.shape[1]] = said
        last, heard, place = ends[rows] == end, end, end * engine.hop_length
        ended = state.select(last.nonzero()[:, 0])
        own = None if own is None else own[last]
        rest = engine.finish(ended, speaker=own, temperature=temperature)
        audio[rows[last], place - rest.shape[1] : place] = rest
        if not bool(last.all()):
            state, rows = state.select((~last).nonzero()[:, 0]), rows[~last]
    progress(mel.shape[2] - told)
    return audio
