"""The graphs before they are traced: their audio put together is the model's."""

import pytest
import torch
from torch.testing import assert_close

from wavewn.export.graphs import First, Last, Next, find_steady, shortest

ATOL = 1e-5  # float32; what DESIGN.md promises of streams
BANDS, HOP = 10, 32
EDGES = [
    ("hifigan", False, "zeros"),
    ("hifigan", True, "zeros"),
    ("hifigan", False, "replicate"),
    ("melgan", False, "reflect"),
    ("melgan", True, "replicate"),
    ("parallel-wavegan", False, "zeros"),
    ("parallel-wavegan", True, "zeros"),
    ("parallel-wavegan", False, "reflect"),
    ("spectral", False, "zeros"),
]


def cut(model, frames, sizes):
    """Random inputs, whole and in pieces."""
    torch.manual_seed(1)
    inputs = [torch.rand(1, BANDS, frames) * 8 - 11]  # nats, from silence on
    if model.noise_channels:
        inputs.append(torch.randn(1, 1, frames * HOP))
    pieces = zip(
        inputs[0].split(sizes, 2),
        *(x.split([n * HOP for n in sizes], 2) for x in inputs[1:]),
        strict=True,
    )
    return inputs, list(pieces)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "causal", "padding"), EDGES)
@pytest.mark.parametrize("chunks", [(), (1,), (4, 4, 1, 1), (3, 9)])
def test_audio_of_a_stream_is_that_of_the_whole(make, kind, causal, padding, chunks):
    model = make(kind, causal=causal, padding=padding)
    steady = find_steady(model)
    sizes = [steady.first_frames, *chunks]
    inputs, pieces = cut(model, sum(sizes), sizes)

    audio, state = First(model, steady)(*pieces[0])
    parts = [audio]
    for piece in pieces[1:]:
        assert state.shape == (1, steady.size)
        audio, state = Next(model, steady)(state, *piece)
        assert audio.shape == (1, piece[0].shape[2] * HOP)
        parts.append(audio)
    parts.append(Last(model, steady)(state))

    assert parts[0].shape == (1, steady.first_frames * HOP - steady.lag_samples)
    assert parts[-1].shape == (1, steady.lag_samples)
    expected = model(*inputs)
    assert_close(torch.cat(parts, 1), expected, rtol=0, atol=ATOL)
    assert expected.std() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hifigan", "spectral"])
def test_a_stream_cannot_begin_with_fewer_frames(make, kind):
    model = make(kind)
    steady = find_steady(model)
    fewer = type(steady)(steady.first_frames - 1, steady.entries, steady.lag_samples)
    sizes = [fewer.first_frames, 4]
    inputs, pieces = cut(model, sum(sizes), sizes)

    with pytest.raises((RuntimeError, AssertionError, KeyError)):
        audio, state = First(model, fewer)(*pieces[0])
        more, state = Next(model, fewer)(state, *pieces[1])
        audio = torch.cat([audio, more, Last(model, fewer)(state)], 1)
        assert_close(audio, model(*inputs), rtol=0, atol=ATOL)


def test_a_causal_model_lags_by_nothing(make):
    assert find_steady(make("hifigan", causal=True)).lag_samples == 0
    assert find_steady(make("hifigan")).lag_samples > 0


def test_the_state_of_graphs_holds_no_more_than_that_of_the_engine(make):
    from wavewn.engine.onepass import OnePassEngine

    model = make("hifigan")

    assert 0 < find_steady(model).size <= OnePassEngine(model).layout.size


def test_the_shortest_utterance_is_what_reflection_asks(make):
    assert shortest(make("hifigan")) == 1
    assert shortest(make("melgan", padding="reflect")) == 4  # three of seven taps, and one
