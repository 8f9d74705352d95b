"""The cuda engine's kernel on the CPU: the device code, compiled by the machine's C++ compiler."""

import ctypes
import functools
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor

from wavewn.engine.nvrtc import FOLDER, macros

SOURCES = Path(__file__).parents[1] / "csrc"
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra"]


def compiler():
    """Path of a C++ compiler, or None."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="wavewn-cuda-host-")


def _compile(source, name, *flags):
    """Compile one of `SOURCES` with a `KernelSource`'s macros; return the file's path."""
    made = Path(_folder().name) / f"{name}-{abs(hash(source))}"
    command = [compiler(), *FLAGS, *flags, f"-I{FOLDER}"]
    command += [f"-D{macro}={value}" for macro, value in macros(source)]
    subprocess.run([*command, str(SOURCES / name), "-o", str(made)], check=True, timeout=300)
    return str(made)


@functools.cache
def host_library(source):
    """Compile a `KernelSource` for the host; once in a session."""
    return ctypes.CDLL(_compile(source, "cuda_host.cpp", "-fPIC", "-shared"))


def sizes_library(source):
    """Likewise, but quickly: to be asked for its sizes, not to be run."""
    return ctypes.CDLL(_compile(source, "cuda_host.cpp", "-fPIC", "-shared", "-O0"))


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


def watched_launcher(source, *flags):
    """A `Launcher` that runs the threads of a block at once, under ThreadSanitizer.

    It changes nothing. Its list `found` has exit code, audio and complaints of each launch.
    """
    program = _compile(source, "cuda_threads.cpp", "-fsanitize=thread", "-pthread", "-g", *flags)

    def launch(blocks, arguments):
        assert blocks == 1
        with tempfile.NamedTemporaryFile() as file:
            for argument in arguments:
                if isinstance(argument, Tensor):
                    data = argument.numpy().tobytes()
                elif isinstance(argument, float):
                    data = struct.pack("f", argument)
                else:
                    data = struct.pack("q", argument) if argument else b""
                file.write(struct.pack("q", len(data)) + data)
            file.flush()
            done = subprocess.run([program, file.name], capture_output=True, timeout=600)
        launch.found.append((done.returncode, done.stdout, done.stderr.decode()))

    launch.found = []
    return launch
