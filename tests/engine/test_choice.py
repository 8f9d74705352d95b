"""Which engine and precision "auto" takes, what it says of the others, and what cannot be had."""

import sys
from types import ModuleType

import pytest
import torch

from wavewn.engine import choice, native, nvrtc, reference
from wavewn.engine.choice import make_engine, usable_precision
from wavewn.engine.weights import pack_wavenet
from wavewn.errors import EngineError

YES, NO = {"usable": True}, {"usable": False, "reason": "0.02 nats a sample away"}


class Pretended:
    """Stands for the native engine, so that the choice is tested where it was not compiled."""

    name = "native"

    def __init__(self, weights, precision, threads, calibration):
        self.precision, self.threads, self.calibration = precision, threads, calibration


@pytest.fixture
def weights(plain_model):
    return pack_wavenet(plain_model)


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(native, "available", str)
    monkeypatch.setattr(native, "NativeEngine", Pretended)


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: "nobody compiled it")


@pytest.fixture(autouse=True)
def all_is_logged(caplog):
    caplog.set_level("INFO", "wavewn")


@pytest.mark.parametrize(
    ("verdict", "expected", "reasons"),
    [
        ({}, "float32", ["int8 was passed over: the bundle has no verdict", "float16 was passed"]),
        ({"float32": YES}, "float32", ["int8 was passed over", "float16 was passed over"]),
        ({"float16": YES, "int8": YES}, "int8", []),
        (
            {"float16": YES, "int8": NO},
            "float16",
            ["int8 was passed over: 0.02 nats a sample"],
        ),
        ({"float16": NO, "int8": NO}, "float32", ["float16 was passed over: 0.02 nats"]),
        ({"int8": {"usable": False}}, "float32", ["int8 was passed over: it strays too far"]),
    ],
)
def test_auto_takes_the_fastest_precision_that_the_bundle_calls_usable(
    weights, here, caplog, verdict, expected, reasons
):
    assert usable_precision(verdict) == expected
    assert make_engine(weights, verdict=verdict, calibration="some").precision == expected

    assert all(reason in caplog.text for reason in reasons)
    assert reasons or "passed over" not in caplog.text


def test_auto_takes_the_native_engine_on_a_cpu_if_it_is_there(weights, here, caplog):
    engine = make_engine(weights, threads=3, calibration="some")

    assert (engine.name, engine.threads, engine.calibration) == ("native", 3, "some")
    assert "native engine was passed over" not in caplog.text


def test_auto_takes_the_reference_engine_otherwise_and_says_why(weights, absent, caplog):
    engine = make_engine(weights, verdict={"int8": YES})

    assert isinstance(engine, reference.ReferenceEngine)
    assert "the native engine was passed over: nobody compiled it" in caplog.text


def test_another_device_is_the_references(weights, here, caplog):
    reason = choice.why_not_native(torch.device("cuda:0"))

    assert reason == "it runs on the CPU, not on cuda:0"
    with pytest.raises(EngineError, match="native engine cannot run here: it runs on the CPU, not"):
        make_engine(weights, "native", device="meta")
    assert isinstance(make_engine(weights, device="meta"), reference.ReferenceEngine)
    assert "passed over: it runs on the CPU, not on meta" in caplog.text


def test_what_is_named_runs_or_raises(weights, absent):
    assert make_engine(weights, "reference", "float32").name == "reference"
    with pytest.raises(EngineError, match="native engine cannot run here: nobody compiled it"):
        make_engine(weights, "native")
    with pytest.raises(
        EngineError,
        match="no engine can run this on cpu: native: nobody compiled it; "
        "reference: it runs float32 alone, not int8$",
    ):
        make_engine(weights, precision="int8")
    with pytest.raises(EngineError, match="the reference engine cannot run here: it runs float32"):
        make_engine(weights, "reference", "int8")


def test_a_named_precision_is_used_against_the_verdict_with_a_warning(weights, here, caplog):
    engine = make_engine(weights, precision="int8", verdict={"int8": NO})

    assert engine.precision == "int8"
    assert "int8 is used although the bundle's verdict speaks against it" in caplog.text


def test_int8_without_a_calibration_is_refused(weights):
    if native.available():
        pytest.skip(native.available())
    with pytest.raises(EngineError, match="int8 needs a calibration"):
        make_engine(weights, precision="int8")


CUDA = torch.device("cuda", 0)


class OnGPU:
    """Stands for an engine of the GPU, so that the choice is tested without one."""

    refuses = ""

    def __init__(self, weights, device, precision="float32"):
        if self.refuses:
            raise EngineError(self.refuses)
        self.device, self.precision = device, precision


@pytest.fixture
def on_gpu(monkeypatch):
    """A GPU that runs everything; returns the two engines' stand-ins."""

    def engine(name, kind):
        module = ModuleType(f"wavewn.engine.{name}")
        made = type(kind, (OnGPU,), {"name": name})
        setattr(module, kind, made)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return made

    real = choice.importlib.util.find_spec
    monkeypatch.setattr(
        choice.importlib.util,
        "find_spec",
        lambda name: name in sys.modules or real(name),
    )
    monkeypatch.setattr(nvrtc, "available", lambda device: "")
    monkeypatch.setattr(choice, "ReferenceEngine", type("Slow", (OnGPU,), {"name": "reference"}))
    return engine("cuda", "CudaEngine"), engine("graph", "GraphEngine")


def test_auto_takes_the_cuda_engine_on_a_gpu(weights, on_gpu, here, caplog):
    engine = make_engine(weights, device="cuda:0")

    assert (engine.name, engine.precision, engine.device) == ("cuda", "float32", CUDA)
    assert "engine was passed over" not in caplog.text


def test_auto_takes_the_graph_engine_where_the_kernel_cannot_run(
    weights, on_gpu, monkeypatch, caplog
):
    monkeypatch.setattr(nvrtc, "available", lambda device: "the GPU is sm_70")

    assert make_engine(weights, device="cuda:0", verdict={"float16": YES}).name == "graph"

    assert "the cuda engine was passed over: the GPU is sm_70" in caplog.text
    with pytest.raises(EngineError, match="the cuda engine cannot run here: the GPU is sm_70"):
        make_engine(weights, "cuda", device="cuda:0")


def test_auto_goes_on_where_a_model_does_not_fit(weights, on_gpu, caplog):
    cuda, graph = on_gpu
    cuda.refuses = "512 channels are too many"
    assert make_engine(weights, device="cuda:0").name == "graph"
    assert "the cuda engine was passed over: 512 channels are too many" in caplog.text

    graph.refuses = "graphs are off"
    assert make_engine(weights, device="cuda:0").name == "reference"
    assert "the graph engine was passed over: graphs are off" in caplog.text

    with pytest.raises(EngineError, match="^512 channels are too many$"):
        make_engine(weights, "cuda", device="cuda:0")
    with pytest.raises(
        EngineError, match="no engine can run this on cuda:0: cuda: 512 .*; graph: it runs float32"
    ):
        make_engine(weights, precision="float16", device="cuda:0")


@pytest.mark.parametrize(
    ("verdict", "expected", "reason"),
    [
        ({"float16": YES}, "float16", ""),
        ({"float16": NO}, "float32", "float16 was passed over: 0.02 nats"),
        ({"int8": YES}, "float32", "float16 was passed over: the bundle has no verdict"),
    ],
)
def test_the_cuda_engine_takes_half_precision_by_the_bundles_verdict(
    weights, on_gpu, caplog, verdict, expected, reason
):
    assert make_engine(weights, device="cuda:0", verdict=verdict).precision == expected
    assert reason in caplog.text
    assert "int8 was passed over" not in caplog.text


def test_the_cuda_engine_has_no_int8_and_the_graph_engine_only_float32(weights, on_gpu):
    with pytest.raises(EngineError, match="cuda engine .* runs float16 and float32 alone"):
        make_engine(weights, "cuda", "int8", device="cuda:0")
    with pytest.raises(EngineError, match="graph engine .* runs float32 alone, not float16"):
        make_engine(weights, "graph", "float16", device="cuda:0")


def test_engines_of_the_gpu_are_not_taken_on_the_cpu_unless_named(weights, on_gpu, here, caplog):
    assert make_engine(weights).name == "native"
    with pytest.raises(EngineError, match="cuda engine cannot run here: it runs on a GPU, not"):
        make_engine(weights, "cuda")
    assert "slow" not in caplog.text

    assert make_engine(weights, "graph").name == "graph"
    assert "the graph engine records no graph on cpu: it is slow there" in caplog.text


def test_an_engine_that_is_not_installed_is_passed_over(weights, on_gpu, monkeypatch, caplog):
    real = choice.importlib.util.find_spec
    monkeypatch.setattr(
        choice.importlib.util,
        "find_spec",
        lambda name: None if name == "wavewn.engine.cuda" else real(name),
    )

    assert make_engine(weights, device="cuda:0").name == "graph"
    assert "the cuda engine was passed over: it is not part of this installation" in caplog.text


@pytest.fixture
def bfloat16_here(monkeypatch):
    monkeypatch.setattr(choice, "why_not_bfloat16", lambda device: "")


@pytest.mark.parametrize(
    ("verdict", "expected", "reason"),
    [
        ({}, "float32", "bfloat16 was passed over: the bundle has no verdict on it"),
        ({"bfloat16": YES}, "bfloat16", ""),
        ({"bfloat16": NO}, "float32", "bfloat16 was passed over: 0.02 nats a sample away"),
        ({"int8": YES, "float16": YES}, "float32", "bfloat16 was passed over"),
    ],
)
def test_auto_takes_bfloat16_of_a_one_pass_model_where_its_bundle_calls_it_usable(
    one_pass, bfloat16_here, caplog, verdict, expected, reason
):
    engine = make_engine(one_pass("hifigan"), "onepass", verdict=verdict, threads=2)

    assert (engine.name, engine.precision, engine.threads) == ("onepass", expected, 2)
    assert reason in caplog.text


def test_auto_takes_no_bfloat16_that_the_processor_has_not(one_pass, monkeypatch, caplog, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(choice, "CPUINFO", cpuinfo)

    for flags, expected in (("avx2 fma", "float32"), ("avx512f avx512_bf16", "bfloat16")):
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        engine = make_engine(one_pass("hifigan"), verdict={"bfloat16": YES})
        assert engine.precision == expected
    assert caplog.text.count("bfloat16 was passed over: cpu has no bfloat16 instructions") == 1
    cpuinfo.unlink()
    assert make_engine(one_pass("hifigan"), verdict={"bfloat16": YES}).precision == "float32"


def test_auto_runs_a_one_pass_model_natively_where_that_can_be(
    one_pass, native_absence, monkeypatch, caplog
):
    caplog.set_level("INFO")
    assert make_engine(one_pass("hifigan"), "onepass").name == "onepass"
    if not native_absence:
        assert make_engine(one_pass("hifigan")).name == "native"

    monkeypatch.setattr(choice, "why_not_natively", lambda model, precision: "too old")
    assert make_engine(one_pass("hifigan")).name == "onepass"
    assert "the native engine was passed over: too old" in caplog.text
    with pytest.raises(EngineError, match="the native engine cannot run here: too old"):
        make_engine(one_pass("hifigan"), "native")


def test_on_a_gpu_a_one_pass_model_does_not_run_natively(one_pass):
    with pytest.raises(EngineError, match="it runs on the CPU, not on cuda"):
        choice.native_for(one_pass("hifigan"), "native", "float32", torch.device("cuda"))
    assert choice.native_for(one_pass("hifigan"), "auto", "float32", torch.device("cuda")) == ""


@pytest.mark.parametrize("engine", ["reference", "cuda", "graph"])
def test_an_engine_of_the_other_kind_of_model_is_refused(weights, one_pass, engine):
    with pytest.raises(EngineError, match=f"this model is a melgan, which runs in no .* {engine}"):
        make_engine(one_pass("melgan"), engine)
    with pytest.raises(EngineError, match="this model is a WaveNet, which runs in no .* onepass"):
        make_engine(weights, "onepass")
    with pytest.raises(EngineError, match="a WaveNet, which runs in no precision bfloat16"):
        make_engine(weights, precision="bfloat16")
