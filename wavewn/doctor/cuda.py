"""What the cuda engine needs, and whether it has it: sources, a compiler, a GPU, a folder."""

import os

from wavewn.doctor.finding import IMPORT_ERRORS, Finding, first_line
from wavewn.errors import EngineError

GROUP = "cuda engine"
UNTRIED = "compiled by its tests for sm_80, 86, 89, 90, 100 and 120; never run on a GPU yet"


def check_cuda() -> list[Finding]:
    """Look at the device code, the compiler, the GPU, and where compiled kernels are kept."""
    try:
        import torch

        from wavewn.engine import nvrtc
        from wavewn.engine.cubins import cubin_folder
    except IMPORT_ERRORS as error:
        return [Finding(GROUP, "device code", "note", first_line(error), "see the versions")]
    findings = []
    try:
        files = nvrtc.device_files()
        detail = f"{nvrtc.FOLDER}: {len(files)} files"
        findings.append(Finding(GROUP, "device code", "ok", detail))
    except EngineError as error:
        findings.append(Finding(GROUP, "device code", "note", first_line(error)))
    try:
        version = nvrtc.compiler_version()
        known = ", ".join(map(str, nvrtc.known_architectures()))
        findings.append(Finding(GROUP, "NVRTC", "ok", f"{version}, compiles for sm_{known}"))
    except EngineError as error:
        findings.append(Finding(GROUP, "NVRTC", "note", first_line(error)))
    if reason := nvrtc.available():
        findings.append(Finding(GROUP, "GPU", "note", f"cannot run here: {reason}"))
    else:
        architecture = nvrtc.architecture_of(torch.device("cuda"))
        findings.append(Finding(GROUP, "GPU", "ok", f"can run here, on {architecture}"))
    folder = cubin_folder()
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    kept = len(list(folder.glob("*.cubin")))
    if os.access(nearest, os.W_OK):
        findings.append(Finding(GROUP, "compiled kernels", "ok", f"{folder}: {kept}"))
    else:
        advice = "each start compiles anew; set XDG_CACHE_HOME to a folder of yours"
        detail = f"{folder} cannot be written"
        findings.append(Finding(GROUP, "compiled kernels", "note", detail, advice))
    return [*findings, Finding(GROUP, "state", "note", UNTRIED)]
