"""A state is a value: copying, resetting and saving it are all there is to a stream's past."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from wavewn.errors import StateError
from wavewn.state import StateLayout, StreamState

LAYOUT = StateLayout.of([("layers.0", 1, 5), ("layers.1", 4, 5), ("none", 0, 3), ("carry", 2, 16)])


def filled(batch: int = 3) -> StreamState:
    """A state in which every number tells its place."""
    state = StreamState.zeros(LAYOUT, batch, seed=range(10, 10 + batch))
    state.buffer.copy_(torch.arange(state.buffer.numel()).view_as(state.buffer) + 1.0)
    state.clock.copy_(torch.arange(batch) * 7 + 1)
    return state


def tensors(state: StreamState) -> list[Tensor]:
    return [state.buffer, state.clock, state.seed, state.stream]


def equal(a: StreamState, b: StreamState) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def share_memory(a: StreamState, b: StreamState) -> bool:
    return any(x.data_ptr() == y.data_ptr() for x, y in zip(tensors(a), tensors(b), strict=True))


def test_entries_start_at_multiples_of_16():
    assert [entry.offset for entry in LAYOUT.entries] == [0, 16, 48, 48]
    assert LAYOUT.size == 80
    assert LAYOUT.entry("layers.1").rows == 4


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([("a", 1, 1), ("a", 1, 1)], "two entries named 'a'"),
        ([("a", -1, 1)], "rows >= 0 and channels >= 1, got -1 and 1"),
        ([("a", 1, 0)], "got 1 and 0"),
    ],
)
def test_an_impossible_layout_is_refused(shapes, message):
    with pytest.raises(StateError, match=message):
        StateLayout.of(shapes)


def test_an_unknown_entry_is_named_with_the_known_ones():
    with pytest.raises(StateError, match="no entry 'layer'; it has: layers.0, layers.1, none"):
        LAYOUT.entry("layer")


def test_layouts_are_told_apart_by_name_rows_and_channels():
    same = StateLayout.of([(e.name, e.rows, e.channels) for e in LAYOUT.entries])
    assert same == LAYOUT
    assert same.fingerprint == LAYOUT.fingerprint
    others = [("a", 4, 4), ("b", 4, 4), ("a", 2, 8), ("a", 4, 5)]
    assert len({StateLayout.of([other]).fingerprint for other in others}) == 4


def test_a_new_state_is_silence_at_clock_zero():
    state = StreamState.zeros(LAYOUT, 2, seed=5)
    assert state.buffer.shape == (2, 80)
    assert state.buffer.dtype == torch.float32
    assert not state.buffer.any()
    assert not state.clock.any()
    assert state.seed.tolist() == [5, 5]
    assert state.stream.tolist() == [0, 1]


def test_seeds_have_64_bits():
    state = StreamState.zeros(LAYOUT, 3, seed=[0, 2**63, 2**64 - 1], streams=[7, 7, 2**32 - 1])
    assert [value % 2**64 for value in state.seed.tolist()] == [0, 2**63, 2**64 - 1]
    assert state.stream.tolist() == [7, 7, 2**32 - 1]
    again = StreamState.zeros(LAYOUT, 3, seed=state.seed)
    assert torch.equal(again.seed, state.seed)
    assert again.seed.data_ptr() != state.seed.data_ptr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "at least one stream, got batch 0"),
        ({"seed": -1}, r"seed must be 2 whole numbers in 0 to 2\*\*64 - 1, got \[-1, -1\]"),
        ({"seed": 2**64}, "seed must be 2 whole numbers"),
        ({"seed": 1.5}, r"got \[1.5, 1.5\]"),
        ({"seed": [1, 2, 3]}, r"got \[1, 2, 3\]"),
        ({"seed": torch.zeros(2)}, "seed of a state must be torch.int64"),
        ({"streams": [0]}, r"streams must be 2 whole numbers in 0 to 2\*\*32 - 1, got \[0\]"),
        ({"streams": [0, 2**32]}, "streams must be 2 whole numbers"),
    ],
)
def test_impossible_beginnings_are_refused(arguments, message):
    with pytest.raises(StateError, match=message):
        StreamState.zeros(LAYOUT, **{"batch": 2, **arguments})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("buffer", torch.zeros(2, 79), r"buffer of a state must be torch.float32 \[2, 80\]"),
        ("buffer", torch.zeros(2, 80).double(), "got torch.float64"),
        ("buffer", torch.zeros(80, 2).T, "buffer of a state must be contiguous"),
        ("clock", torch.zeros(3).long(), r"clock of a state must be torch.int64 \[2\]"),
        ("seed", torch.zeros(2).int(), "seed of a state .* got torch.int32"),
        ("stream", torch.zeros(2, dtype=torch.int64, device="meta"), "on cpu, got .* on meta"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, value, message):
    parts = dict(zip(("buffer", "clock", "seed", "stream"), tensors(filled(2)), strict=True))
    StreamState(LAYOUT, **parts)
    with pytest.raises(StateError, match=message):
        StreamState(LAYOUT, **{**parts, name: value})


def test_a_view_is_no_copy():
    state = filled()
    view = state.view("layers.1")
    assert view.shape == (3, 4, 5)
    assert view[1, 2, 3] == state.buffer[1, 16 + 2 * 5 + 3]
    view[1, 2, 3] = -1.0
    assert state.buffer[1, 16 + 2 * 5 + 3] == -1.0
    assert (state.buffer < 0).sum() == 1


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 9])
def test_a_ring_remembers_the_last_frames_of_each_row(chunk):
    torch.manual_seed(0)
    state = StreamState.zeros(LAYOUT, 2)
    start = torch.tensor([0, 6])  # the rows run at clocks of their own
    x = torch.randn(2, 18, 5)
    for begin in range(0, 18, chunk):
        part = x[:, begin : begin + chunk]
        state.clock.copy_(start + begin)
        state.push("layers.1", part)
        past = torch.cat([torch.zeros(2, 4, 5), x[:, : begin + part.shape[1]]], dim=1)[:, -4:]
        assert torch.equal(state.history("layers.1", state.clock + part.shape[1]), past)
    for i, first in enumerate(start.tolist()):
        for frame in range(14, 18):
            assert torch.equal(state.view("layers.1")[i, (first + frame) % 4], x[i, frame])
    assert not state.view("layers.0").any()
    assert not state.view("carry").any()


def test_a_ring_without_rows_remembers_nothing():
    state = filled(2)
    before = state.clone()
    state.push("none", torch.ones(2, 3, 3))
    assert state.history("none").shape == (2, 0, 3)
    state.history("layers.1").zero_()  # a copy
    assert equal(state, before)


def test_a_clone_goes_on_by_itself():
    state = filled()
    branch = state.clone()
    assert equal(state, branch)
    assert not share_memory(state, branch)
    assert not share_memory(state, state.to("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_state_survives_the_way_to_the_gpu_and_back():
    there = filled().to("cuda")
    assert all(value.is_cuda for value in tensors(there))
    there.reset(torch.tensor([False, False, False]))
    assert equal(there.to("cpu"), filled())


def test_selected_rows_are_copies_in_the_order_asked_for():
    state = filled()
    chosen = state.select([2, 0])
    for i, row in enumerate([2, 0]):
        for got, whole in zip(tensors(chosen), tensors(state), strict=True):
            assert torch.equal(got[i], whole[row])
    chosen.buffer.zero_()
    assert equal(state, filled())
    assert not share_memory(state, state.select(torch.tensor([0, 1, 2])))


@pytest.mark.parametrize("rows", [[], [3], [-1], [0.5], torch.tensor([[0]])])
def test_rows_outside_the_batch_are_refused(rows):
    with pytest.raises(StateError, match="rows must be a list of numbers in 0 to 2, got"):
        filled().select(rows)


def test_reset_touches_the_masked_rows_only():
    state = filled()
    state.reset(torch.tensor([False, True, False]))
    assert not state.buffer[1].any()
    assert state.clock.tolist() == [1, 0, 15]
    assert state.seed.tolist() == [10, 11, 12]  # the same noise again
    assert torch.equal(state.buffer[[0, 2]], filled().buffer[[0, 2]])


def test_reset_takes_new_seeds_and_ids_under_the_mask():
    state = filled()
    state.reset(torch.tensor([True, False, True]), seed=99, streams=[7, 8, 9])
    assert state.seed.tolist() == [99, 11, 99]
    assert state.stream.tolist() == [7, 1, 9]


@pytest.mark.parametrize(
    ("mask", "more", "message"),
    [
        (torch.tensor([True]), {}, r"mask must be bool \[3\], got torch.bool \[1\]"),
        (torch.tensor([1, 0, 0]), {}, "got torch.int64"),
        (torch.ones(3).bool(), {"seed": -1}, "seed must be 3 whole numbers"),
        (torch.ones(3).bool(), {"streams": [1]}, "streams must be 3 whole numbers"),
    ],
)
def test_a_refused_reset_changes_nothing(mask, more, message):
    state = filled()
    with pytest.raises(StateError, match=message):
        state.reset(mask, **more)
    assert equal(state, filled())


def test_save_and_load_bring_everything_back(tmp_path):
    state = filled()
    torch.save(state.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert equal(StreamState.from_state_dict(LAYOUT, loaded), state)


def test_what_was_saved_does_not_change_with_the_stream():
    state = filled()
    saved = state.state_dict()
    state.buffer.zero_()
    restored = StreamState.from_state_dict(LAYOUT, saved)
    restored.clock.zero_()
    assert equal(StreamState.from_state_dict(LAYOUT, saved), filled())


@pytest.mark.parametrize("name", ["buffer", "clock", "seed", "stream", "layout"])
def test_a_missing_key_is_named(name):
    saved = filled().state_dict()
    del saved[name]
    with pytest.raises(StateError, match=f"no tensor '{name}'"):
        StreamState.from_state_dict(LAYOUT, saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": torch.zeros(1)}, r"unknown keys: \['extra'\]"),
        ({"clock": 5}, "no tensor 'clock'"),
        ({"clock": torch.tensor([0, -1, 0])}, r"clock must not be negative: \[0, -1, 0\]"),
        ({"clock": torch.zeros(3)}, "clock of a state must be torch.int64 .* got torch.float32"),
        ({"seed": torch.zeros(2).long()}, r"seed of a state must be torch.int64 \[3\]"),
        ({"stream": torch.tensor([0, 1, 2**32])}, "streams must be 3 whole numbers"),
        ({"buffer": torch.zeros(3, 64)}, r"buffer of a state must be torch.float32 \[3, 80\]"),
        ({"buffer": torch.zeros(3, 80).half()}, "got torch.float16"),
        ({"buffer": torch.full((3, 80), torch.nan)}, "NaN or infinite"),
        ({"layout": torch.zeros(32)}, "layout is not this one's"),
    ],
)
def test_a_spoiled_saved_state_is_refused(change, message):
    saved = filled().state_dict()
    StreamState.from_state_dict(LAYOUT, saved)
    with pytest.raises(StateError, match=message):
        StreamState.from_state_dict(LAYOUT, {**saved, **change})


def test_the_state_of_another_model_is_refused_even_at_the_same_size():
    other = StateLayout.of([("x", 5, 16)])
    assert other.size == LAYOUT.size
    with pytest.raises(StateError, match="saved state is of another model"):
        StreamState.from_state_dict(other, filled().state_dict())


def test_one_state_in_use_twice_is_refused():
    state = filled()
    with state.using():
        with pytest.raises(StateError, match="state is already in use by another call"):
            with state.using():
                pass
        with state.clone().using(), state.select([0]).using():  # copies are free
            pass


def test_a_call_lets_the_state_go_even_if_it_fails():
    state = filled()
    with pytest.raises(ZeroDivisionError), state.using():
        _ = 1 / 0
    with state.using():
        pass


def test_another_thread_is_refused():
    state = filled()
    with state.using(), ThreadPoolExecutor(1) as pool:
        error = pool.submit(state.using().__enter__).exception(timeout=5)
    assert isinstance(error, StateError)
