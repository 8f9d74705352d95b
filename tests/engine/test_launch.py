"""Loading and launching, with a stand-in for cuda.core: what it would be told."""

import ctypes
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import torch

from wavewn.engine.launch import kernel_arguments, load_kernel
from wavewn.engine.nvrtc import KERNEL, KernelSource
from wavewn.errors import EngineError

DEVICE = torch.device("cuda", 1)
SMALL = KernelSource((), threads=128, shared_bytes=48 * 1024)
LARGE = KernelSource((), threads=128, shared_bytes=48 * 1024 + 4)


class CUDAError(Exception):
    pass


class Pretended:
    """Stands for cuda.core, cuda.bindings.driver and torch's streams; writes down what comes."""

    def __init__(self):
        self.told = []
        self.refused = False
        self.most_threads = 1024
        self.status = SimpleNamespace(name="CUDA_SUCCESS")

    def from_cubin(self, cubin, name):
        if self.refused:
            raise CUDAError("CUDA_ERROR_NO_BINARY_FOR_GPU")
        kernel = SimpleNamespace(
            attributes=SimpleNamespace(max_threads_per_block=self.most_threads), handle="handle"
        )
        self.told.append(("load", cubin))
        return SimpleNamespace(get_kernel=lambda name: {KERNEL: kernel}[name])

    def set_attribute(self, wish, value, handle, index):
        self.told.append((wish, value, handle, index))
        return (self.status,)

    def launch(self, stream, config, kernel, *values):
        self.told.append((stream, config, kernel.handle, values))


@pytest.fixture
def cuda(monkeypatch):
    cuda = Pretended()

    def module(name, **content):
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic shared")
    driver = module(
        "cuda.bindings.driver",
        CUfunction_attribute=attribute,
        CUresult=SimpleNamespace(CUDA_SUCCESS=cuda.status),
        cuKernelSetAttribute=cuda.set_attribute,
    )
    core = module(
        "cuda.core",
        Device=lambda index: SimpleNamespace(
            set_current=lambda: cuda.told.append(("current", index))
        ),
        LaunchConfig=lambda **options: options,
        ObjectCode=SimpleNamespace(from_cubin=cuda.from_cubin),
        Stream=SimpleNamespace(from_handle=lambda handle: f"stream {handle}"),
        launch=cuda.launch,
    )
    module("cuda.core._utils")
    module("cuda.core._utils.cuda_utils", CUDAError=CUDAError)
    module("cuda.bindings", driver=driver)
    module("cuda", core=core)

    @contextmanager
    def device(wanted):
        cuda.told.append(("enter", wanted.index))
        yield
        cuda.told.append(("leave", wanted.index))

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    stream = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, on: cuda.told.append(("record", on is stream))
    )
    return cuda


def test_a_launch_is_on_torchs_stream_of_its_device(cuda):
    kernel = load_kernel(b"code", SMALL, DEVICE)
    assert cuda.told == [("enter", 1), ("current", 1), ("load", b"code"), ("leave", 1)]
    cuda.told.clear()
    x = torch.zeros(3)

    kernel(5, [x, 7])

    config = {"grid": 5, "block": 128, "shmem_size": 48 * 1024}
    assert cuda.told == [
        ("enter", 1),
        ("current", 1),
        ("stream 77", config, "handle", (x.data_ptr(), 7)),
        ("leave", 1),
        ("record", True),
    ]


def test_much_shared_memory_is_asked_for(cuda):
    load_kernel(b"code", SMALL, DEVICE)
    load_kernel(b"code", LARGE, DEVICE)

    asked = [line for line in cuda.told if line[0] == "dynamic shared"]
    assert asked == [("dynamic shared", 48 * 1024 + 4, "handle", 1)]


def test_a_driver_that_refuses_the_memory_is_named(cuda):
    cuda.status = SimpleNamespace(name="CUDA_ERROR_INVALID_VALUE")

    with pytest.raises(EngineError, match=r"refuses 49156 bytes .* \(CUDA_ERROR_INVALID_VALUE\)"):
        load_kernel(b"code", LARGE, DEVICE)


def test_code_that_the_driver_does_not_take_is_an_engine_error(cuda):
    cuda.refused = True

    with pytest.raises(EngineError, match="does not take .*: CUDA_ERROR_NO_BINARY_FOR_GPU; use"):
        load_kernel(b"code", SMALL, DEVICE)


def test_more_threads_than_registers_allow_are_refused(cuda):
    cuda.most_threads = 127

    with pytest.raises(EngineError, match="has 128 threads a block, .* leave room for 127"):
        load_kernel(b"code", SMALL, DEVICE)


def test_arguments_have_the_sizes_of_the_kernels_signature():
    x = torch.zeros(4)

    pointer, count, scale = kernel_arguments([x, -3, 0.5])

    assert (pointer, count) == (x.data_ptr(), -3)
    assert isinstance(scale, ctypes.c_float)
    assert scale.value == 0.5
    with pytest.raises(AssertionError, match="has gaps"):
        kernel_arguments([torch.zeros(4, 4).T])
