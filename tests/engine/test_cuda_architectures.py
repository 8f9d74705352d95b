"""The kernel compiles for every GPU that it is meant for, and keeps to registers where it must.

NVRTC needs no GPU for this, so that it is known before anybody has one what the compiler makes of
the kernel: how many registers, and whether some of what should be in them is in memory instead.
"""

import dataclasses
import re

import pytest

from wavewn.bench.subject import BANDS, HOP_LENGTH, SHAPES
from wavewn.bundle import load_bundle
from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw
from wavewn.engine.cuda_packing import kernel_source
from wavewn.engine.nvrtc import compile_cubin, compiler_version
from wavewn.errors import EngineError
from wavewn.shipped import shipped

SHARED_KB = {  # of a block, by the CUDA programming guide's table of compute capabilities
    "sm_80": 163,
    "sm_86": 99,
    "sm_89": 99,
    "sm_90": 227,
    "sm_100": 227,
    "sm_120": 99,
}
PRECISIONS = ("float32", "float16")
REGISTERS = 65536  # of a multiprocessor


def why_no_compiler():
    try:
        compiler_version()
    except EngineError as error:
        return str(error)
    return ""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler() or "is here"),
]


def compiled(settings, precision, streams, architecture, n_mels=BANDS, hop_length=HOP_LENGTH):
    """Compile a network; return its source and ptxas' figures by name."""
    limit = SHARED_KB[architecture] * 1024
    source = kernel_source(settings, n_mels, hop_length, precision, streams, limit)
    cubin, log = compile_cubin(source, architecture)
    assert cubin.startswith(b"\x7fELF")
    figures = {
        name: int(re.search(rf"(\d+) bytes {name}", log)[1])
        for name in ("stack frame", "spill stores", "spill loads")
    }
    assert source.threads * int(re.search(r"Used (\d+) registers", log)[1]) <= REGISTERS
    assert source.shared_bytes <= limit
    return figures


NOTHING = {"stack frame": 0, "spill stores": 0, "spill loads": 0}


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", ["S", "M"])
@pytest.mark.parametrize("architecture", SHARED_KB)
def test_small_and_middle_shapes_stay_in_registers(architecture, shape, precision, streams):
    assert compiled(SHAPES[shape], precision, streams, architecture) == NOTHING


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_large_shape_compiles(precision, streams):
    compiled(SHAPES["L"], precision, streams, "sm_90")


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_shipped_voice_compiles(precision, streams):
    bundle = load_bundle(shipped("pretrained", "wavenet-ru-16k"))
    mel = bundle.mel

    compiled(bundle.model.settings, precision, streams, "sm_90", mel.n_mels, mel.hop_length)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("head", "taps", "upsampling"),
    [
        (MuLaw(), 1, "linear"),
        (MuLaw(), 3, "transposed"),
        (LogisticMixture(), 1, "transposed"),
        (LogisticMixture(), 2, "nearest"),
        (Gaussian(), 2, "linear"),
        (Gaussian(), 3, "nearest"),
    ],
)
def test_every_head_number_of_taps_and_upsampling_compiles(head, taps, upsampling, precision):
    settings = dataclasses.replace(
        SHAPES["S"], head=head, kernel_size=taps, condition=Condition(upsampling=upsampling)
    )

    compiled(settings, precision, 1, "sm_90")
