"""Compiled kernels on the GPU: loaded through cuda.core, launched on torch's current stream."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavewn.engine.nvrtc import KERNEL, KernelSource, Launcher
from wavewn.errors import EngineError

if TYPE_CHECKING:
    from cuda.core import Kernel

SHARED_BYTES = 48 * 1024  # that a block has without asking


def load_kernel(cubin: bytes, source: KernelSource, device: torch.device) -> Launcher:
    """Load a compiled kernel onto a GPU.

    Raises:
        EngineError: The driver does not take it.
    """
    from cuda.core import LaunchConfig, Stream, launch

    with _current(device) as index:
        kernel = _load(cubin, source, index)

    def launch_kernel(blocks: int, arguments: Sequence[Tensor | int | float]) -> None:
        config = LaunchConfig(grid=blocks, block=source.threads, shmem_size=source.shared_bytes)
        with _current(device):
            stream = torch.cuda.current_stream(device)
            handle = Stream.from_handle(stream.cuda_stream)
            launch(handle, config, kernel, *kernel_arguments(arguments))
        for argument in arguments:
            if isinstance(argument, Tensor):
                argument.record_stream(stream)  # another stream's allocator may own its memory

    return launch_kernel


def _load(cubin: bytes, source: KernelSource, index: int) -> "Kernel":
    from cuda.bindings import driver
    from cuda.core import ObjectCode
    from cuda.core._utils.cuda_utils import CUDAError  # it has no public place

    try:
        kernel = ObjectCode.from_cubin(cubin, name=KERNEL).get_kernel(KERNEL)
        most = kernel.attributes.max_threads_per_block
    except CUDAError as error:
        raise EngineError(
            f"the driver does not take the compiled kernel: {error}; use the graph engine, "
            "and please report this"
        ) from None
    if most < source.threads:
        raise EngineError(
            f"the kernel has {source.threads} threads a block, and its registers leave room for "
            f"{most}; use the graph engine"
        )
    if source.shared_bytes > SHARED_BYTES:
        wish = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        (status,) = driver.cuKernelSetAttribute(wish, source.shared_bytes, kernel.handle, index)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise EngineError(
                f"the driver refuses {source.shared_bytes} bytes of shared memory a block "
                f"({status.name}); use the graph engine"
            )
    return kernel


def kernel_arguments(arguments: Sequence[Tensor | int | float]) -> list[int | ctypes.c_float]:
    """Write arguments as cuda.core takes them: pointers and int64 as int, float32 as ctypes does.

    A tensor must be contiguous: the kernel sees its data alone.
    """
    values: list[int | ctypes.c_float] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            assert argument.is_contiguous(), "a kernel's tensor has gaps"
            values.append(argument.data_ptr())
        else:
            values.append(ctypes.c_float(argument) if isinstance(argument, float) else argument)
    return values


@contextmanager
def _current(device: torch.device) -> Iterator[int]:
    """Make a GPU's context current in this thread, where torch may not have done so yet.

    Yields:
        The GPU's number.
    """
    from cuda.core import Device

    with torch.cuda.device(device):
        index = torch.cuda.current_device()
        Device(index).set_current()
        yield index
