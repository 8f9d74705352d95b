"""The cuda engine's kernel on the CPU: the device code, compiled by the machine's C++ compiler."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor

from wavewn.engine.nvrtc import FOLDER, macros

SOURCE = Path(__file__).parents[1] / "csrc" / "cuda_host.cpp"
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra"]


def compiler():
    """Path of a C++ compiler, or None."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="wavewn-cuda-host-")


@functools.cache
def host_library(source):
    """Compile a `KernelSource` for the host; once in a session."""
    library = Path(_folder().name) / f"{abs(hash(source))}.so"
    command = [compiler(), *FLAGS, f"-I{FOLDER}", *(f"-D{n}={v}" for n, v in macros(source))]
    subprocess.run([*command, str(SOURCE), "-o", str(library)], check=True, timeout=300)
    return ctypes.CDLL(str(library))


def host_launcher(source):
    """A `Launcher` that runs the kernel at once, on the CPU."""
    run = host_library(source).wavewn_samples
    run.restype = None

    def launch(blocks, arguments):
        values = [ctypes.c_int64(blocks)]
        for argument in arguments:
            if isinstance(argument, Tensor):
                assert argument.is_contiguous()
                values.append(ctypes.c_void_p(argument.data_ptr()))
            elif isinstance(argument, float):
                values.append(ctypes.c_float(argument))
            else:
                values.append(ctypes.c_int64(argument))
        run(*values)

    return launch
