"""Each operation of a flow: whole against chunks, what is remembered, how far a stream lags."""

import pytest
import torch
from torch.testing import assert_close

from wavewn.errors import EngineError, ShapeError
from wavewn.nn.flow import Flow, Rows, mel_rows
from wavewn.nn.latency import measure
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

ATOL = 1e-6  # float32, values of the order of one; sums of few terms in another order
BANDS, FRAMES, BATCH = 3, 13, 2
PADDINGS = ("zeros", "reflect", "replicate")
CUTS = [
    (1,) * FRAMES,
    (2, 1, 4, 1, 5),
    (0, 3, 0, 0, 7, 3, 0),
    (7, 6),
    (12, 1),
    (FRAMES,),
]


def conv(*sizes, **settings):
    layer = PaddedConv1d(*sizes, **settings)
    return lambda run, mel, noise: run.conv(layer, mel)


def upsample(*sizes, **settings):
    layer = UpsamplingConv1d(*sizes, **settings)
    return lambda run, mel, noise: run.upsample(layer, mel)


def branches(padding, right=None):
    """Three kernels side by side, added up, and a residual around them."""
    layers = [
        PaddedConv1d(BANDS, BANDS, k, d, right=right, padding=padding)
        for k, d in ((3, 1), (5, 2), (1, 1))
    ]

    def flow(run, mel, noise):
        y = run.add(*(run.conv(layer, mel) for layer in layers))
        return run.add(mel, run.conv(layers[0], y.map(torch.tanh)))

    return flow


def synthesis(length, hop, crop):
    """Newest samples of the noise, coloured by the mel, overlapped."""
    taps = PaddedConv1d(BANDS, length, 3)

    def flow(run, mel, noise):
        newest, colour = run.align(run.frames(noise, length, hop), run.conv(taps, mel))
        data = None if newest.data is None else newest.data * colour.data
        frames = Rows(data, length, newest.start, newest.end, newest.ended)
        return run.overlap_add(frames, hop, crop)

    return flow


def phases(run, mel, noise):
    steps = mel.map(lambda x: (x[:, :1].double() * 2**20).round() / 2**20, 1)
    return run.accumulate(steps).repeat(4).map(lambda x: x.float())


def split(run, mel, noise):
    return mel.interleave(3)


# Name: (samples a frame, the flow).
OPERATIONS = {
    **{f"conv, {padding}": (1, conv(BANDS, 4, 5, 2, padding=padding)) for padding in PADDINGS},
    "conv, one tap": (1, conv(BANDS, 4, 1)),
    "conv, looking back": (1, conv(BANDS, 4, 3, 3, right=0)),
    "conv, looking back, replicate": (1, conv(BANDS, 4, 3, 2, right=0, padding="replicate")),
    "conv, looking back, reflect": (1, conv(BANDS, 4, 3, 2, right=0, padding="reflect")),
    "conv, looking ahead": (1, conv(BANDS, 4, 4, 1, right=3)),
    "conv, more ahead than back": (1, conv(BANDS, 4, 5, 1, right=3, padding="reflect")),
    "upsample": (4, upsample(BANDS, 2, 8, 4)),
    "upsample, odd surplus": (5, upsample(BANDS, 2, 10, 5)),
    "upsample, no surplus": (3, upsample(BANDS, 2, 3, 3)),
    "upsample, looking back": (4, upsample(BANDS, 2, 8, 4, crop=0)),
    "upsample, long kernel": (2, upsample(BANDS, 2, 11, 2)),
    "upsample, all cropped before": (2, upsample(BANDS, 2, 7, 2, crop=5)),
    **{f"branches, {padding}": (1, branches(padding)) for padding in PADDINGS},
    "branches, looking back": (1, branches("zeros", 0)),
    "overlap-add": (4, synthesis(12, 4, 4)),
    "overlap-add, nothing cropped": (4, synthesis(12, 4, 0)),
    "overlap-add, all cropped": (4, synthesis(12, 4, 8)),
    "overlap-add, odd crop": (4, synthesis(16, 4, 7)),
    "overlap-add, no overlap": (4, synthesis(4, 4, 0)),
    "phases": (4, phases),
    "split": (3, split),
}


@pytest.fixture(params=OPERATIONS)
def operation(request):
    return OPERATIONS[request.param]


def inputs(hop, frames=FRAMES):
    return torch.randn(BATCH, BANDS, frames), torch.randn(BATCH, 1, frames * hop)


def empty(flow, hop):
    shapes = measure(flow, BANDS, hop).shapes
    return {name: torch.zeros(BATCH, *shape) for name, shape in shapes.items()}


def pieces(flow, hop, mel, noise, cut, memory):
    """Give what each chunk gives, and last what `ended` adds; the end comes with no frame."""
    first, given = 0, []
    for count, ended in [*((count, False) for count in cut), (0, True)]:
        last = first + count
        rows = Rows.of(mel[:, :, first:last], first, ended)
        drive = Rows.of(noise[:, :, first * hop : last * hop], first * hop, ended)
        given.append(flow(Flow(memory), rows, drive))
        first = last
    return given


def joined(given):
    assert given[0].start == 0
    assert all(a.end == b.start for a, b in zip(given[:-1], given[1:], strict=True))
    assert all(rows.whole.shape[2] == rows.end - rows.start for rows in given)
    return torch.cat([rows.whole for rows in given], dim=2)


@torch.no_grad()
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_chunks_equal_the_whole(operation, cut):
    hop, flow = operation
    mel, noise = inputs(hop)

    whole = flow(Flow(), Rows.of(mel), Rows.of(noise))
    streamed = joined(pieces(flow, hop, mel, noise, cut, empty(flow, hop)))

    assert (whole.start, whole.end, whole.ended) == (0, FRAMES * hop, True)
    assert whole.channels == whole.whole.shape[1]
    assert_close(streamed, whole.whole, rtol=0, atol=ATOL)


@torch.no_grad()
def test_the_end_may_come_with_the_last_frames(operation):
    hop, flow = operation
    mel, noise = inputs(hop)
    memory = empty(flow, hop)

    first = flow(
        Flow(memory), Rows.of(mel[:, :, :9], 0, False), Rows.of(noise[:, :, : 9 * hop], 0, False)
    )
    rest = flow(Flow(memory), Rows.of(mel[:, :, 9:], 9), Rows.of(noise[:, :, 9 * hop :], 9 * hop))

    whole = flow(Flow(), Rows.of(mel), Rows.of(noise)).whole
    assert_close(joined([first, rest]), whole, rtol=0, atol=ATOL)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_a_short_utterance_has_its_edges_or_is_refused(operation, frames):
    hop, flow = operation
    mel, noise = inputs(hop, frames)
    for cut in ((1,) * frames, (frames,), (frames - 1, 1)):
        try:
            whole = flow(Flow(), Rows.of(mel), Rows.of(noise)).whole
        except ShapeError as refusal:
            assert "the utterance is too short" in str(refusal)
            with pytest.raises(ShapeError, match=f"has {frames}; give more mel frames"):
                pieces(flow, hop, mel, noise, cut, empty(flow, hop))
        else:
            streamed = joined(pieces(flow, hop, mel, noise, cut, empty(flow, hop)))
            assert_close(streamed, whole, rtol=0, atol=ATOL)


@torch.no_grad()
def test_a_stream_that_forgets_gives_something_else():
    hop, flow = OPERATIONS["conv, zeros"]
    mel, noise = inputs(hop)
    memory = empty(flow, hop)
    rows = Rows.of(mel[:, :, :8], 0, False)
    flow(Flow(memory), rows, rows)
    forgotten = {name: torch.zeros_like(entry) for name, entry in memory.items()}
    rows = Rows.of(mel[:, :, 8:], 8)

    remembered = flow(Flow(memory), rows, rows).whole

    assert not torch.allclose(flow(Flow(forgotten), rows, rows).whole, remembered, atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_measured_latency_is_the_largest_that_is_seen(operation, step):
    hop, flow = operation
    mel, noise = inputs(hop, 30)

    given = pieces(flow, hop, mel, noise, (step,) * (30 // step), empty(flow, hop))
    behind = [(i + 1) * step * hop - rows.end for i, rows in enumerate(given[:-1])]

    latency = measure(flow, BANDS, hop).latency_samples
    assert max(behind) <= latency
    assert step > 1 or max(behind) == latency


@torch.no_grad()
def test_nothing_less_could_be_remembered(operation):
    """The oldest row of each entry counts at some moment, so a change of it is heard."""
    hop, flow = operation
    mel, noise = inputs(hop)
    whole = flow(Flow(), Rows.of(mel), Rows.of(noise)).whole
    for name in empty(flow, hop):
        heard = False
        for moment in range(1, FRAMES + 1):
            memory = empty(flow, hop)
            head, tail = mel[:, :, :moment], mel[:, :, moment:]
            at = moment * hop
            first = flow(Flow(memory), Rows.of(head, 0, False), Rows.of(noise[:, :, :at], 0, False))
            memory[name][:, 0] += 0.25
            rest = flow(Flow(memory), Rows.of(tail, moment), Rows.of(noise[:, :, at:], at))
            heard |= not torch.allclose(joined([first, rest]), whole, rtol=0, atol=ATOL)
        assert heard, f"the oldest row of {name} is never used"


@torch.no_grad()
def test_an_entry_is_as_long_as_the_layer_looks_back_and_as_wide_as_it_hears():
    shapes = measure(branches("zeros"), BANDS, 1).shapes

    # Three layers; what is added, held back for the slowest, 4 rows ahead of it; the residual
    # layer; the sum and the mel, which waits for 4 rows and for the layer's own.
    assert shapes == {
        "flow.0": (2, BANDS),
        "flow.1": (8, BANDS),
        "flow.3": (3, BANDS),
        "flow.5": (4, BANDS),
        "flow.6": (2, BANDS),
        "flow.7": (5, BANDS),
    }


@torch.no_grad()
def test_rows_of_other_precision_are_remembered_in_float32():
    layer = PaddedConv1d(BANDS, 2, 5).bfloat16()
    memory = {"flow.0": torch.zeros(BATCH, 4, BANDS)}
    mel = torch.randn(BATCH, BANDS, 9)

    given = [
        Flow(memory).conv(layer, Rows.of(mel[:, :, :5], 0, False)),
        Flow(memory).conv(layer, Rows.of(mel[:, :, 5:], 5)),
    ]

    assert torch.equal(memory["flow.0"], mel[:, :, -4:].transpose(1, 2))
    assert joined(given).dtype == torch.bfloat16
    assert torch.equal(joined(given), Flow().conv(layer, Rows.of(mel)).whole)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "phases"])
def test_a_flow_that_is_run_whole_lets_gradients_through(name):
    hop, flow = OPERATIONS[name]
    mel, noise = inputs(hop)
    mel.requires_grad_()

    flow(Flow(), Rows.of(mel), Rows.of(noise)).whole.square().sum().backward()

    assert (mel.grad.abs().sum(1) > 0).all()


def test_a_generator_that_never_gives_whole_hops_is_found():
    with pytest.raises(EngineError, match="gives no whole hop for each frame"):
        measure(upsample(BANDS, 2, 8, 4), BANDS, 5)


@pytest.mark.parametrize("shape", [(2, 4, 7), (4, 7), (2, 7, BANDS)])
def test_a_mel_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match=rf"\[batch, {BANDS} bands, frames\], got \["):
        mel_rows(torch.zeros(shape), BANDS)
