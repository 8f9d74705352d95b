"""Device code, compiled on the user's machine by NVRTC through cuda.core.

No CUDA toolkit is needed, neither nvcc nor its headers: extras `cuda12` and `cuda13` bring the
compiler. The sources (csrc/cuda) are specialised for a model: every size is a macro. What was
compiled is kept on disk (cubins.py). To compile takes no GPU, to launch (launch.py) does.

Nothing of CUDA is imported before it is used.
"""

import importlib
import io
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from wavewn.engine.cubins import cubin_key, read_cubin, write_cubin
from wavewn.errors import EngineError

FOLDER = Path(__file__).parents[1] / "csrc" / "cuda"
ENTRY = "samples.cu"  # the file that is compiled; it includes the others
SUFFIXES = (".cu", ".cuh", ".hpp")  # of device code
KERNEL = "wavewn_samples"
STANDARD = "c++17"
ASSEMBLER = "-v"  # ptxas tells of registers and spills
OLDEST = 80  # architecture; what came before has neither cp.async nor enough shared memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KernelSource:
    """One specialisation of the device code.

    Attributes:
        defines: Macros and their values, sorted by name: the model's sizes, the precision, the
            streams of a block.
        threads: Of a block.
        shared_bytes: Dynamic shared memory of a block.
    """

    defines: tuple[tuple[str, int | float | str], ...]
    threads: int
    shared_bytes: int


class Launcher(Protocol):
    """One compiled kernel."""

    def __call__(self, blocks: int, arguments: Sequence[Tensor | int | float]) -> None:
        """Enqueue the kernel on torch's current stream; returns before it has run.

        Args:
            blocks: Of the grid.
            arguments: In the order of the kernel's signature; a tensor is passed as the pointer to
                its data, an int as int64, a float as float32.
        """


def available(device: torch.device | None = None) -> str:
    """Say why kernels cannot be compiled and run here; an empty string if they can.

    Args:
        device: None is torch's current one.
    """
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    if not torch.cuda.is_available():
        return f"PyTorch for CUDA {torch.version.cuda} sees no GPU or no driver"
    try:
        version, known = compiler_version(), known_architectures()
    except EngineError as error:
        return str(error)
    architecture = architecture_of(device or torch.device("cuda"))
    number = int(architecture.removeprefix("sm_"))
    if number < OLDEST:
        return f"the GPU is {architecture}, and the kernel needs sm_{OLDEST} or newer"
    if number not in known:
        return f"NVRTC {version} does not know {architecture}; install a newer nvidia-cuda-nvrtc"
    driver = driver_version()
    if int(driver.split(".")[0]) < int(version.split(".")[0]):
        return (
            f"NVRTC {version} makes code for newer drivers than this one for CUDA {driver}; "
            'update the driver, or pip install "wavewn[cuda12]" in an environment of its own'
        )
    return ""


def compile_kernel(source: KernelSource, device: torch.device) -> Launcher:
    """Compile a kernel for a GPU, or take it from disk, and load it.

    Raises:
        EngineError: It cannot run here, needs more than the GPU has, or does not compile.
    """
    if reason := available(device):
        raise EngineError(f"the cuda engine cannot run here: {reason}")
    if source.shared_bytes > (limit := shared_limit(device)):
        raise EngineError(
            f"the kernel needs {source.shared_bytes} bytes of shared memory a block, "
            f"{torch.cuda.get_device_name(device)} has {limit}; use the graph engine"
        )
    from wavewn.engine.launch import load_kernel

    return load_kernel(cubin_of(source, architecture_of(device)), source, device)


def cubin_of(source: KernelSource, architecture: str) -> bytes:
    """Take a kernel from disk, or compile it and keep it there.

    Raises:
        EngineError: It does not compile, or there is no compiler.
    """
    key = cubin_key(
        {
            "files": device_files(),
            "defines": macros(source),
            "options": [STANDARD, ASSEMBLER],
            "architecture": architecture,
            "compiler": compiler_version(),
        }
    )
    cubin = read_cubin(key)
    if cubin is None:
        began = time.perf_counter()
        cubin, _ = compile_cubin(source, architecture)
        took_s = time.perf_counter() - began
        logger.info("compiled the kernel for %s in %.1f s", architecture, took_s)
        write_cubin(key, cubin)
    return cubin


def compile_cubin(source: KernelSource, architecture: str) -> tuple[bytes, str]:
    """Compile a kernel; this takes no GPU.

    Args:
        source: What to compile.
        architecture: Such as "sm_90".

    Returns:
        The machine code, and what ptxas says of registers, spills and local memory.

    Raises:
        EngineError: It does not compile, or there is no compiler.
    """
    version = compiler_version()
    from cuda.core import Program, ProgramOptions
    from cuda.core._utils.cuda_utils import CUDAError  # it has no public place

    log = io.StringIO()
    options = ProgramOptions(
        name=ENTRY,
        std=STANDARD,
        arch=architecture,
        define_macro=macros(source),
        include_path=str(FOLDER),
        ptxas_options=ASSEMBLER,
    )
    try:
        made = Program(device_files()[ENTRY], "c++", options).compile("cubin", logs=log)
    except CUDAError as error:
        raise EngineError(
            f"NVRTC {version} cannot compile the kernel for {architecture}: "
            f"{first_error(str(error))}; use the graph engine, and please report this"
        ) from None
    return bytes(made.code), log.getvalue().replace("\0", "")


def device_files() -> dict[str, str]:
    """Read the device code of this installation, by file name.

    Raises:
        EngineError: It is not there.
    """
    files = [path for path in sorted(FOLDER.glob("*")) if path.suffix in SUFFIXES]
    if ENTRY not in {path.name for path in files}:
        raise EngineError(f"{FOLDER / ENTRY} is missing; reinstall wavewn")
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def macros(source: KernelSource) -> list[tuple[str, str]]:
    """Write the values of a source's macros as C++."""
    return [
        (name, f"{value!r}f" if isinstance(value, float) else str(value))
        for name, value in source.defines
    ]


def compiler_version() -> str:
    """Ask NVRTC for its version, such as "13.0".

    Raises:
        EngineError: There is no compiler, or a package beside it is missing.
    """
    major = (torch.version.cuda or "13").split(".")[0]
    advice = f'pip install "wavewn[cuda{major}]"'
    try:
        importlib.import_module("cuda.core")
        _, *version = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except (ImportError, OSError, RuntimeError) as error:  # the last where a library is missing
        line = str(error).strip().splitlines()[0]
        raise EngineError(f"cuda-core and NVRTC do not load ({line}); {advice}") from None
    return ".".join(map(str, version))


def known_architectures() -> tuple[int, ...]:
    """Ask NVRTC, which must be there, what it compiles for, such as 90 for sm_90."""
    _, numbers = importlib.import_module("cuda.bindings.nvrtc").nvrtcGetSupportedArchs()
    return tuple(numbers)


def driver_version() -> str:
    """Ask the driver, which must be there, for which CUDA it is, such as "13.0"."""
    _, number = importlib.import_module("cuda.bindings.driver").cuDriverGetVersion()
    return f"{number // 1000}.{number % 1000 // 10}"


def architecture_of(device: torch.device) -> str:
    """Name a GPU's architecture, such as "sm_90"."""
    properties = torch.cuda.get_device_properties(device)
    return f"sm_{properties.major}{properties.minor}"


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that a block can have: all of a multiprocessor's but the system's."""
    return int(torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor) - 1024


def multiprocessors(device: torch.device) -> int:
    """Count a GPU's multiprocessors."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def first_error(log: str) -> str:
    """Find the line of a compiler's log that says what is wrong."""
    lines = [line.strip() for line in log.replace("\0", "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), "no reason given")
