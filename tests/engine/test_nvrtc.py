"""What is compiled, what is taken from disk, and what is said where neither can be."""

import re
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from wavewn.engine import nvrtc
from wavewn.engine.cubins import cubin_folder
from wavewn.engine.nvrtc import KernelSource, available, compile_cubin, compile_kernel, cubin_of
from wavewn.errors import EngineError

SMALL = """
#include "twice.cuh"
extern "C" __global__ void wavewn_samples(float* x, long long n, float scale) {
    extern __shared__ float shared[];
    shared[threadIdx.x] = x[threadIdx.x] * FACTOR;
    __syncthreads();
    if (threadIdx.x < n) x[threadIdx.x] = twice(shared[threadIdx.x ^ CHANNELS]) * scale;
}
"""
SPILLING = """
extern "C" __global__ void wavewn_samples(float* x, long long n, float scale) {
    float local[64];
    for (int i = 0; i < 64; ++i) local[i] = x[i] * scale;
    for (int i = 0; i < 64; ++i) x[i] = local[(n + i * 7) % 64];
}
"""
SOURCE = KernelSource((("CHANNELS", 8), ("FACTOR", 0.5)), threads=64, shared_bytes=256)
GPU = SimpleNamespace(
    major=9, minor=0, multi_processor_count=132, shared_memory_per_multiprocessor=233472
)


def why_no_compiler():
    try:
        nvrtc.compiler_version()
    except EngineError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler() or "is here")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level("INFO", "wavewn")
    return tmp_path / "cache"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Device code that is small."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / nvrtc.ENTRY).write_text(SMALL)
    (folder / "twice.cuh").write_text("__device__ float twice(float x) { return 2 * x; }\n")
    (folder / "host.cpp").write_text("int main() {}\n")
    monkeypatch.setattr(nvrtc, "FOLDER", folder)
    return folder


@pytest.fixture
def compiled(monkeypatch):
    """A compiler that is not there: it tells what it was asked for."""
    asked = []

    def compile_nothing(source, architecture):
        asked.append((source, architecture))
        return f"cubin {len(asked)}".encode(), "log"

    monkeypatch.setattr(nvrtc, "compile_cubin", compile_nothing)
    monkeypatch.setattr(nvrtc, "compiler_version", lambda: "13.0")
    return asked


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is not there, its driver and its compiler."""
    gpu = SimpleNamespace(**vars(GPU))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(nvrtc, "compiler_version", lambda: "13.0")
    monkeypatch.setattr(nvrtc, "known_architectures", lambda: (75, 80, 90, 120))
    monkeypatch.setattr(nvrtc, "driver_version", lambda: "13.0")
    return gpu


def test_a_kernel_is_compiled_once_and_then_taken_from_disk(folder, compiled, caplog):
    assert cubin_of(SOURCE, "sm_90") == b"cubin 1"
    assert cubin_of(SOURCE, "sm_90") == b"cubin 1"

    assert compiled == [(SOURCE, "sm_90")]
    assert caplog.text.count("compiled the kernel for sm_90 in") == 1


def test_whatever_it_is_made_from_makes_another_kernel(folder, compiled, monkeypatch):
    def make():
        return cubin_of(SOURCE, "sm_90")

    seen = [make()]
    seen.append(cubin_of(SOURCE, "sm_80"))
    seen.append(cubin_of(replace(SOURCE, defines=(("CHANNELS", 16), ("FACTOR", 0.5))), "sm_90"))
    seen.append(cubin_of(replace(SOURCE, defines=(("CHANNELS", 8), ("FACTOR", 0.25))), "sm_90"))
    monkeypatch.setattr(nvrtc, "STANDARD", "c++20")
    seen.append(make())
    monkeypatch.setattr(nvrtc, "compiler_version", lambda: "13.1")
    seen.append(make())
    (folder / "twice.cuh").write_text("__device__ float twice(float x) { return x + x; }\n")
    seen.append(make())
    (folder / "new.cuh").write_text("")
    seen.append(make())

    assert seen == [f"cubin {1 + i}".encode() for i in range(len(seen))]


def test_what_only_the_launch_needs_makes_no_other_kernel(folder, compiled):
    cubin_of(SOURCE, "sm_90")
    cubin_of(replace(SOURCE, threads=128, shared_bytes=0), "sm_90")
    (folder / "host.cpp").write_text("int main() { return 1; }\n")
    cubin_of(SOURCE, "sm_90")

    assert len(compiled) == 1


def test_a_damaged_file_is_compiled_anew(folder, compiled, caplog):
    cubin_of(SOURCE, "sm_90")
    [path] = cubin_folder().iterdir()
    path.write_bytes(path.read_bytes()[:20])

    assert cubin_of(SOURCE, "sm_90") == b"cubin 2"
    assert cubin_of(SOURCE, "sm_90") == b"cubin 2"
    assert "is damaged: compiling anew" in caplog.text


def test_without_a_writable_folder_each_start_compiles(folder, compiled, cache, caplog):
    cache.write_text("a file where the folder would be")

    assert [cubin_of(SOURCE, "sm_90") for _ in range(2)] == [b"cubin 1", b"cubin 2"]
    assert caplog.text.count("is not kept for the next start") == 2


def test_macros_are_written_as_cpp():
    source = replace(SOURCE, defines=(("A", 3), ("B", 0.1), ("C", "mu_law"), ("D", 1e-7)))

    assert nvrtc.macros(source) == [("A", "3"), ("B", "0.1f"), ("C", "mu_law"), ("D", "1e-07f")]


def test_this_installations_device_code_is_whole_and_needs_no_headers_of_others():
    files = nvrtc.device_files()

    included = re.findall(r"^\s*#\s*include\s*(.*)$", "\n".join(files.values()), re.MULTILINE)

    assert nvrtc.KERNEL in files[nvrtc.ENTRY]
    assert included
    assert set(included) <= {f'"{name}"' for name in files}


def test_device_code_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(nvrtc, "FOLDER", tmp_path)

    with pytest.raises(EngineError, match=rf"{nvrtc.ENTRY} is missing; reinstall wavewn"):
        nvrtc.device_files()


def test_a_gpu_that_has_all_is_available(gpu):
    assert available() == available(torch.device("cuda", 1)) == ""
    device = torch.device("cuda")
    assert nvrtc.architecture_of(device) == "sm_90"
    assert nvrtc.multiprocessors(device) == 132
    assert nvrtc.shared_limit(device) == 227 * 1024


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m, gpu: m.setattr(torch.version, "cuda", None), "was built without CUDA"),
        (
            lambda m, gpu: m.setattr(torch.cuda, "is_available", lambda: False),
            "PyTorch for CUDA 13.0 sees no GPU or no driver",
        ),
        (lambda m, gpu: setattr(gpu, "major", 7), "the GPU is sm_70, and .* needs sm_80 or newer"),
        (lambda m, gpu: setattr(gpu, "major", 13), "NVRTC 13.0 does not know sm_130; install a"),
        (
            lambda m, gpu: m.setattr(nvrtc, "driver_version", lambda: "12.8"),
            "NVRTC 13.0 makes code for newer drivers than this one for CUDA 12.8; update",
        ),
    ],
)
def test_the_reason_is_given_where_it_cannot_run(gpu, monkeypatch, change, reason):
    change(monkeypatch, gpu)

    with pytest.raises(EngineError, match=f"the cuda engine cannot run here: .*{reason}"):
        compile_kernel(SOURCE, torch.device("cuda"))


@pytest.mark.parametrize(("cuda", "extra"), [("12.8", "cuda12"), ("13.0", "cuda13")])
def test_missing_packages_come_with_the_line_that_installs_them(monkeypatch, gpu, cuda, extra):
    monkeypatch.undo()
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cuda.core", None)

    assert "cuda-core and NVRTC do not load" in available()
    assert available().endswith(f'; pip install "wavewn[{extra}]"')


def test_a_library_that_does_not_load_is_no_traceback(monkeypatch):
    def fail():
        raise RuntimeError("libnvrtc.so.13: no such file\nand many lines more")

    module = ModuleType("cuda.bindings.nvrtc")
    module.nvrtcVersion = fail
    monkeypatch.setitem(sys.modules, "cuda.core", ModuleType("cuda.core"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", module)

    with pytest.raises(EngineError, match=r"do not load \(libnvrtc.so.13: no such file\); pip"):
        nvrtc.compiler_version()


def test_more_shared_memory_than_the_gpu_has_is_refused_before_compiling(gpu, folder, compiled):
    with pytest.raises(EngineError, match="needs 232449 bytes .* H100 has 232448; use the graph"):
        compile_kernel(replace(SOURCE, shared_bytes=227 * 1024 + 1), torch.device("cuda"))
    assert compiled == []


def test_a_log_is_searched_for_its_first_error():
    log = "6: NVRTC_ERROR\n\n a.cu(3): warning: b\n a.cu(3): error: c is undefined\n d: error\n\0"

    assert nvrtc.first_error(log) == "a.cu(3): error: c is undefined"
    assert nvrtc.first_error("\n\0") == "no reason given"


@needs_compiler
def test_a_small_kernel_compiles_without_a_gpu(folder):
    cubin, log = compile_cubin(SOURCE, "sm_90")

    assert cubin.startswith(b"\x7fELF")
    assert "Compiling entry function 'wavewn_samples' for 'sm_90'" in log
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    assert cubin_of(SOURCE, "sm_90") == cubin == cubin_of(SOURCE, "sm_90")


@needs_compiler
def test_local_memory_shows_in_the_log(folder):
    (folder / nvrtc.ENTRY).write_text(SPILLING)

    _, log = compile_cubin(SOURCE, "sm_90")

    assert "256 bytes stack frame" in log


@needs_compiler
def test_what_does_not_compile_is_named_by_its_line(folder):
    (folder / "twice.cuh").write_text("__device__ float thrice(float x) { return 3 * x; }\n")

    with pytest.raises(EngineError, match='for sm_90: .*: error: identifier "twice" is undefined;'):
        compile_cubin(SOURCE, "sm_90")


@needs_compiler
def test_an_architecture_that_is_not_known_is_refused(folder):
    with pytest.raises(EngineError, match="kernel for sm_30: nvrtc: error: invalid value"):
        compile_cubin(SOURCE, "sm_30")
