"""The graphs' audio against the model's, before a file is kept."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from wavewn.audio.mel_spec import MelSpec
from wavewn.errors import EngineError
from wavewn.models.generators import Generator

RTOL = 1e-4  # of the audio's peak: float32 sums in another order, layer upon layer
RANGE = 8.0  # nats or so above silence that a mel for a check goes

Run = Callable[..., list[Tensor]]


def make_inputs(model: Generator, mel: MelSpec, frames: int) -> tuple[Tensor, ...]:
    """Make a mel above silence, and noise where the model hears it."""
    random = torch.Generator().manual_seed(frames)
    bands = torch.rand(1, model.n_mels, frames, generator=random) * RANGE + mel.log_floor
    if not model.noise_channels:
        return (bands,)
    samples = frames * model.hop_length
    return bands, torch.randn(1, model.noise_channels, samples, generator=random)


def compare_whole(run: Run, model: Generator, mel: MelSpec, frames: int) -> float:
    """Run an utterance; give the difference as a share of the peak.

    Raises:
        EngineError: It is more than `RTOL`.
    """
    inputs = make_inputs(model, mel, frames)
    return _difference(run(*inputs)[0], model, inputs, f"whole utterances of {frames} frames")


def compare_stream(
    runs: Mapping[str, Run],
    model: Generator,
    mel: MelSpec,
    sizes: Mapping[str, int],
    calls: Sequence[str],
) -> float:
    """Run a stream: the first frames, `calls` of the graphs between, and the rest.

    Args:
        runs: By graph.
        model: As it was before it became graphs.
        mel: The mels that it reads.
        sizes: Frames that a graph hears.
        calls: Graphs between the first and the last.

    Returns:
        The difference as a share of the peak.

    Raises:
        EngineError: It is more than `RTOL`.
    """
    frames = sum(sizes[name] for name in ("first", *calls))
    inputs = make_inputs(model, mel, frames)
    parts: list[Tensor] = []
    state: list[Tensor] = []
    start = 0
    for name in ("first", *calls):
        end = start + sizes[name]
        share = [x.shape[2] // frames for x in inputs]  # rows a frame
        piece = [x[:, :, start * n : end * n] for x, n in zip(inputs, share, strict=True)]
        audio, *state = runs[name](*state, *piece)
        parts.append(audio)
        start = end
    parts += runs["last"](*state)
    return _difference(torch.cat(parts, 1), model, inputs, f"a stream, {len(calls)} chunks,")


@torch.no_grad()
def _difference(audio: Tensor, model: Generator, inputs: tuple[Tensor, ...], what: str) -> float:
    """Compare a graph's audio with the model's; give the difference as a share of the peak."""
    assert callable(model), "generators are modules"
    expected: Tensor = model(*inputs)
    if audio.shape != expected.shape:
        raise EngineError(
            f"the graph of {what} gives {list(audio.shape)} samples, the model "
            f"{list(expected.shape)}; it is not kept"
        )
    share = float((audio - expected).abs().max() / expected.abs().max())
    if not share <= RTOL:
        raise EngineError(
            f"the graph of {what} gives audio that differs from the model's by {share:.1e} of its "
            f"peak, more than {RTOL}; it is not kept"
        )
    return share
