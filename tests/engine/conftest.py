"""Small models, one with each switch on, and the engines that run them."""

import copy
import functools
import importlib.util
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw, WaveNetConfig
from wavewn.engine import nvrtc
from wavewn.engine.cuda import CudaEngine
from wavewn.engine.graph import GraphEngine
from wavewn.engine.onepass import OnePassEngine
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.models.wavenet import WaveNet


def beside(name):
    """Run a file of this folder: the tests are no package, and cannot import one another."""
    return runpy.run_path(str(Path(__file__).with_name(name)))


Carried = beside("carried.py")["Carried"]
cuda_host = beside("cuda_host.py")
one_pass_models = beside("one_pass_models.py")
ONE_PASS, make_one_pass = one_pass_models["ONE_PASS"], one_pass_models["make_one_pass"]


BANDS = 6
HOP = 20
SILENCE = -11.5

# name: head, kernel size, upsampling, look-ahead, speakers, order and lag of the
# linear prediction
VARIANTS = {
    "mu-law": (MuLaw(classes=64), 2, "linear", 2, 0, 0, 0),
    "mixture": (LogisticMixture(components=3), 3, "nearest", 0, 3, 0, 0),
    "gaussian": (Gaussian(), 2, "transposed", 2, 3, 0, 0),
    "mu-law-3-taps": (MuLaw(), 3, "transposed", 1, 0, 0, 0),
    "gaussian-3-taps": (Gaussian(), 3, "linear", 0, 0, 0, 0),
    "mixture-1-tap": (LogisticMixture(components=2), 1, "linear", 2, 0, 0, 0),
    "mixture-predicted": (LogisticMixture(components=2), 2, "linear", 2, 0, 16, 32),
    "gaussian-predicted": (Gaussian(), 3, "transposed", 1, 3, 1, 8),
    "gaussian-order-above-a-hop": (Gaussian(), 2, "nearest", 1, 0, 27, 0),
}

# Residual, skip and head channels: one vector and less, more than a kernel takes at once, and so
# many that older taps are worth adding for several samples at once.
NARROW = (8, 12, 16)
WIDTHS = {
    "mixture-1-tap": (70, 33, 37),
    "gaussian-3-taps": (19, 16, 5),
    "mu-law-3-taps": (40, 12, 16),
    "gaussian-order-above-a-hop": (33, 12, 16),
}

# The models that several streams in a block of the CUDA kernel are tested with in the fast tests:
# one of each head, with few and many channels, and with a prediction.
COMPANY = ("mu-law", "mixture-predicted", "gaussian-3-taps")


@dataclass(frozen=True)
class Choice:
    """An engine, and how and where it shall run; `device` is "" or pytest's --device."""

    name: str = "reference"
    instruction_set: str = ""
    precision: str = "float32"
    device: str = ""

    @property
    def tolerance(self):
        """How far parameters and states may lie from the network's: of the largest, or of 1."""
        return TOLERANCES[self.precision]

    def make(self, model, threads=1):
        engine = self._made(model, threads)
        return Carried(engine) if self.device else engine

    def _made(self, model, threads):
        weights = pack_wavenet(model)
        if self.name == "reference":
            return ReferenceEngine(weights, self.device or "cpu")
        if self.name == "graph":
            return GraphEngine(weights, self.device or "cpu")
        if self.name == "cuda":  # without a GPU its kernel is compiled for the host
            launcher = None if self.device else cuda_host["host_launcher"]
            return CudaEngine(weights, self.device or "cpu", self.precision, launcher)
        from wavewn.engine.native import NativeEngine

        calibration = calibration_of(model) if self.precision == "int8" else None
        return NativeEngine(weights, self.precision, self.instruction_set, threads, calibration)


# float32: sums in another order, other ways to write a sigmoid; 1e-6 was seen.
# float16: a weight is off by 2**-12 of itself, an input and a half product likewise; a layer adds
# its error to that of the layers before it, and errors of random signs grow slowly; 3e-4 was seen
# with float32 sums.
# int8: likewise, with 1 / 254 of the largest weight of an output and of the range of an input; and
# what these untrained models draw is louder than what they are calibrated with, so that inputs are
# clamped. 9e-3 was seen within the range.
TOLERANCES = {"float32": 1e-5, "float16": 4 * 2.0**-11, "int8": 8 / 127}


def calibration_of(model):
    from wavewn.engine.verdict import Piece, calibrate

    speaker = torch.tensor([1]) if model.settings.speakers else None
    pieces = []
    for seed in (7, 8):
        audio = torch.rand(1, 12 * HOP, generator=torch.Generator().manual_seed(seed)) - 0.5
        mel = random_mel(1, 12 + model.condition.look_ahead, seed)
        pieces.append(Piece(audio, mel, speaker))
    return calibrate(model, pieces)


def absence():
    """Why the native engine is not here, or ""."""
    for module in ("wavewn._native", "wavewn.engine.native"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not there; `pip install .` compiles it"
    from wavewn.engine.native import available

    return available()


def cuda_absence(device):
    """Why the CUDA kernel cannot run, on this device or, without one, compiled for the host."""
    if device:
        return nvrtc.available(torch.device(device))
    return "" if cuda_host["compiler"]() else "no C++ compiler is in PATH"


def engine_params(device):
    """Every engine, instruction set and precision; what cannot run here is skipped and says why."""
    plain = ("reference", "graph")
    params = [pytest.param(Choice(name, device=device), id=name) for name in plain]
    why = cuda_absence(device)
    marks = [pytest.mark.skip(reason=f"no cuda engine: {why}")] if why else []
    for precision in ("float32", "float16"):
        choice = Choice("cuda", precision=precision, device=device)
        slow = [pytest.mark.slow] if precision == "float16" and not device else []
        params.append(pytest.param(choice, id=f"cuda:{precision}", marks=[*marks, *slow]))
    if device:  # the native engine is tested where it runs
        return params
    if why := absence():
        skip = pytest.mark.skip(reason=f"no native engine: {why}")
        return [*params, pytest.param(Choice("native"), id="native", marks=skip)]
    from wavewn._native import instruction_sets

    for name, why in instruction_sets():
        marks = [pytest.mark.skip(reason=f"{name}: {why}")] if why else []
        for precision in TOLERANCES:
            choice, label = Choice("native", name, precision), f"native:{name}:{precision}"
            params.append(pytest.param(choice, id=label, marks=marks))
    return params


def pytest_generate_tests(metafunc):
    if "choice" in metafunc.fixturenames:
        metafunc.parametrize("choice", engine_params(metafunc.config.getoption("device")))


def pytest_collection_modifyitems(items):
    """For each number of streams in a block the host compiles the CUDA kernel anew: seconds."""
    for item in items:
        if getattr(item, "originalname", "") == "test_a_row_does_not_depend_on_its_batch":
            choice, model = (item.callspec.params[name] for name in ("choice", "model"))
            if choice.name == "cuda" and not choice.device and model not in COMPANY:
                item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter):
    if why := absence():
        terminalreporter.write_sep("=", "THE NATIVE ENGINE WAS NOT TESTED", red=True, bold=True)
        terminalreporter.write_line(f"The engine contract ran without it: {why}")


def settings_of(name: str, layers_per_cycle: int = 3) -> WaveNetConfig:
    head, kernel_size, upsampling, look_ahead, speakers, order, lag = VARIANTS[name]
    residual, skip, hidden = WIDTHS.get(name, NARROW)
    return WaveNetConfig(
        residual_channels=residual,
        skip_channels=skip,
        head_channels=hidden,
        kernel_size=kernel_size,
        cycles=2,
        layers_per_cycle=layers_per_cycle,
        head=head,
        condition=Condition(channels=10, look_ahead=look_ahead, upsampling=upsampling),
        speakers=speakers,
        speaker_channels=4,
        prediction_order=order,
        longest_lag=lag,
    )


def make_model(settings: WaveNetConfig) -> WaveNet:
    torch.manual_seed(1)
    return copy.deepcopy(made_model(settings))


@functools.cache
def made_model(settings: WaveNetConfig) -> WaveNet:
    model = WaveNet(settings, BANDS, HOP, SILENCE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        if model.condition.upsample is not None:
            weight = model.condition.upsample.conv.weight
            weight.add_(0.05 * torch.randn_like(weight))
    return model


@pytest.fixture(params=list(VARIANTS))
def model(request):
    return make_model(settings_of(request.param))


@pytest.fixture(name="cuda_host", scope="session")
def cuda_host_names():
    """What compiles the CUDA kernel for the host and runs it there."""
    return cuda_host


@pytest.fixture(scope="session")
def make():
    """From settings to a model."""
    return make_model


@pytest.fixture(scope="session")
def reference_of():
    return Choice().make


@pytest.fixture(scope="session")
def native_absence():
    """Why the native engine is not here, or ""."""
    return absence()


@pytest.fixture(scope="session")
def runnable(request):
    """The choices that run here."""
    params = engine_params(request.config.getoption("device"))
    return [param.values[0] for param in params if not param.marks]


@pytest.fixture
def engine(model):
    """The reference; `choice.make(model)` is each engine in its turn."""
    return ReferenceEngine(pack_wavenet(model))


@pytest.fixture(scope="session")
def voice():
    """The engine of one WaveNet, for what does not depend on its switches."""
    return ReferenceEngine(pack_wavenet(make_model(settings_of("mu-law"))))


@pytest.fixture
def plain_model():
    """The model of `voice`, fresh."""
    return make_model(settings_of("mu-law"))


@pytest.fixture
def wide_model():
    """Dilations on both sides of a hop, and below half of it."""
    return make_model(settings_of("mu-law-3-taps", layers_per_cycle=6))


def random_mel(batch, frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, BANDS, frames, generator=generator) * 2 - 6


@pytest.fixture(scope="session")
def mel_of():
    return random_mel


@pytest.fixture(scope="session")
def speaker_of():
    def make(engine, batch):
        speakers = engine.weights.settings.speakers
        return torch.arange(batch) % speakers if speakers else None

    return make


@pytest.fixture(scope="session")
def one_pass():
    """From a name to a fresh model."""
    return make_one_pass


@pytest.fixture(scope="session")
def one_pass_engine():
    """From a name and a precision to an engine, made once; "native:NAME" runs natively."""

    @functools.cache
    def get(name, precision="float32"):
        natively, name = name.startswith("native:"), name.removeprefix("native:")
        if natively and (why := absence()):
            pytest.skip(f"no native engine: {why}")
        return OnePassEngine(make_one_pass(name), precision, native="auto" if natively else "")

    return get


@pytest.fixture(params=list(ONE_PASS))
def one_pass_name(request):
    """Each of the one-pass models."""
    return request.param


@pytest.fixture(params=[*ONE_PASS, *(f"native:{name}" for name in ONE_PASS)])
def one_pass_way(request):
    """Each of the one-pass models, in torch and, where that can be, natively."""
    return request.param
