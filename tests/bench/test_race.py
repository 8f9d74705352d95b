"""What is measured: taking turns, the median, the bound, the units."""

import pytest
import torch

from wavewn.bench import bound, latency, lineup, race, subject
from wavewn.bench.machine import describe_machine, processor_name
from wavewn.bench.subject import SHAPES, make_subject
from wavewn.engine.reference import ReferenceEngine
from wavewn.errors import ConfigError, EngineError


class Clocked:
    """A contender that takes a set time a frame, on a clock of its own."""

    precision, instruction_set, threads, device = "float32", "", 1, race.CPU

    def __init__(self, name, seconds_a_frame, clock, streams=1):
        self.engine, self.streams = name, streams
        self.seconds_a_frame, self.clock, self.runs = seconds_a_frame, clock, []

    def run(self, frames):
        self.runs.append(frames)
        self.clock.order.append(self.engine)
        factor = self.clock.factors.pop(0) if self.clock.factors else 1
        self.clock.now += frames * self.seconds_a_frame * factor


class Clock:
    def __init__(self):
        self.now, self.order, self.factors = 0.0, [], []

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(race.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(subject, "missing", lambda: "")
    monkeypatch.setattr(subject, "measure_bound", lambda size, threads, streams: 100_000 * streams)
    return clock


@pytest.fixture(scope="module")
def small():
    return make_subject("S")


def test_rates_real_time_and_share_are_told_in_their_units(clock, small):
    contender = Clocked("one", 0.01, clock, streams=2)

    (result,) = race.race(small, [contender], seconds=1.0, rounds=3)

    assert result.samples_per_s == pytest.approx(2 * 200 / 0.01)
    assert result.rtf == pytest.approx(16_000 * 0.01 / 200)
    assert result.rtf_24k == pytest.approx(1.5 * result.rtf)
    assert result.share_of_bound == pytest.approx(40_000 / 200_000)
    assert contender.runs[-3:] == [100] * 3


def test_what_runs_on_a_gpu_has_no_bound(clock, small):
    contender = Clocked("one", 0.01, clock)
    contender.device = torch.device("cuda", 1)

    (result,) = race.race(small, [contender], seconds=1.0, rounds=1)

    assert (result.share_of_bound, result.bound_samples_per_s) == (None, None)
    assert result.device == "cuda:1"


def test_a_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)

    for device in (race.CPU, torch.device("cuda", 1)):
        race.await_device(device)

    assert waited == [torch.device("cuda", 1)]


def test_contenders_take_turns_in_another_order_each_round(clock, small):
    contenders = [Clocked(name, 0.5, clock) for name in "abc"]

    race.race(small, contenders, seconds=1.0, rounds=3)

    assert "".join(clock.order[-9:]) == "abcbcacab"


def test_one_slow_round_moves_the_spread_and_not_the_figure(clock, small):
    contender = Clocked("one", 0.5, clock)
    frames = race.frames_for(contender.run, 1.0, 1, 1000)
    clock.factors = [1, 1, 1, 10, 1]  # two of them while it warms up

    (result,) = race.race(small, [contender], seconds=1.0, rounds=3)

    assert frames == 2
    assert result.samples_per_s == pytest.approx(400)
    assert result.spread == pytest.approx(0.9)


def test_the_number_of_torch_threads_is_as_before(small):
    before = torch.get_num_threads()
    engine = ReferenceEngine(small.weights)

    race.race(small, [race.EngineContender(engine, small, 1, 2)], seconds=0.001, rounds=1)

    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("shape", "thousands"), [("S", 135), ("M", 868), ("L", 3570)])
def test_shapes_have_the_sizes_by_which_they_are_quoted(shape, thousands):
    weights = make_subject(shape).weights

    matrices = (bound.weight_bytes(weights, "float16") - rows_of(weights) * 4) / 2

    assert matrices == pytest.approx(1000 * thousands, rel=0.01)
    assert make_subject(shape, "nearest").upsampling == "nearest"
    assert set(SHAPES) == {"S", "M", "L"}


def rows_of(weights):
    affines = [layer.out for layer in weights.layers] + [weights.hidden, weights.output]
    return sum(len(affine.bias) for affine in affines)


@pytest.mark.parametrize(
    ("threads", "streams", "read", "expected"),
    [
        (1, 1, (1000, 1), 1000),  # 1e6 bytes a second, 1000 a sample
        (2, 1, (500, 2), 2000),  # each thread reads half of the layers
        (1, 16, (1000, 1), 16_000),
        (2, 16, (1000, 2), 16_000),  # both read all, each for its eight streams
        (4, 2, (1000, 2), 2000),
    ],
)
def test_the_bound_shares_work_as_threads_do(monkeypatch, threads, streams, read, expected):
    calls = []

    class Native:
        @staticmethod
        def read_rate(size, seconds, readers):
            calls.append((size, readers))
            return 1e6 * readers

    monkeypatch.setitem(__import__("sys").modules, "wavewn._native", Native)
    monkeypatch.setattr(__import__("wavewn"), "_native", Native, raising=False)

    assert bound.measure_bound(1000, threads, streams) == pytest.approx(expected)
    assert calls == [read]


def test_memory_is_read_at_a_rate_that_memory_has():
    if reason := bound.missing():
        pytest.skip(f"no plain pass: {reason}")
    from wavewn import _native

    rate = _native.read_rate(100_000, 0.01, 1)

    assert 1e8 < rate < 1e12
    for wrong in ((0, 0.01, 1), (64, 0.0, 1), (64, 0.01, 0)):
        with pytest.raises(ValueError, match="above 0"):
            _native.read_rate(*wrong)


def test_a_push_is_timed_and_the_kernel_apart(small):
    engine = ReferenceEngine(small.weights)
    engine.kernel_seconds = 0.001

    result = latency.measure_latency(engine, small, threads=1, streams=1, calls=2)

    assert result.frame_ms == 12.5
    assert 0 < result.call_ms <= result.call_worst_ms
    assert (result.kernel_ms, result.kernel_worst_ms, result.calls) == (1, 1, 2)


def test_what_cannot_run_is_left_out_with_its_reason(monkeypatch, small, caplog):
    def refuse(subject, precision, instruction_set, threads):
        if precision == "int8":
            raise EngineError("no such rows")
        return ReferenceEngine(subject.weights)

    monkeypatch.setattr(lineup, "make_native", refuse)
    wish = lineup.Wish(("native",), ("float32", "int8"))

    assert len(list(lineup.engines(small, wish))) == 1
    assert "native, int8, auto: left out: no such rows" in caplog.text


def test_auto_is_the_best_engine_of_the_device(monkeypatch, caplog):
    reasons = {"native": "not compiled", "cuda": "no compiler"}
    monkeypatch.setattr(lineup, "why_not", lambda name, precision, device: reasons.get(name, ""))

    assert lineup.best_engine(race.CPU) == "reference"
    assert lineup.best_engine(torch.device("cuda")) == "graph"
    assert "not measuring the native engine: not compiled" in caplog.text
    reasons.clear()
    assert lineup.best_engine(race.CPU) == "native"
    assert lineup.best_engine(torch.device("cuda")) == "cuda"


def test_the_cuda_engine_runs_in_the_precisions_it_has(monkeypatch, small, caplog):
    def make(weights, name, precision, device):
        if refuse:
            raise EngineError("512 channels are too many")
        return f"{name} {precision} {device}"

    refuse = False
    monkeypatch.setattr(lineup, "why_not", lambda name, precision, device: "")
    monkeypatch.setattr(lineup, "make_engine", make)

    def names(**wish):
        wish = lineup.Wish(("cuda", "graph"), device="cuda:0", **wish)
        return [name for name, _ in lineup.engines(small, wish)]

    both = ["cuda float16 cuda:0", "cuda float32 cuda:0", "graph float32 cuda:0"]
    assert names() == both
    assert names(precisions=("float32", "int8")) == both[1:]
    refuse = True
    assert names() == []
    assert "cuda, float16: left out: 512 channels are too many" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"engines": ("fast",)}, "no engine 'fast'"),
        ({"threads": (0,)}, "at least 1"),
        ({"streams": (0,)}, "at least 1"),
    ],
)
def test_an_impossible_wish_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        lineup.Wish(**wrong)


def test_the_machine_has_a_name():
    assert processor_name("vendor_id : x\nmodel name\t: Some CPU @ 2 GHz\nflags : a") == (
        "Some CPU @ 2 GHz"
    )
    assert describe_machine(race.CPU)["machine"]
    assert "gpu" not in describe_machine(race.CPU)
