"""What works on this machine, what does not, and why: the checks of `wavewn doctor`.

Each check is a function that returns findings and never raises for something that is missing or
broken: to say so is its work. A finding is `broken` only where wavewn cannot work without it.
Packages are imported, not looked up: what is installed may not load.

    finding.py    what a check says; whether a package loads
    processor.py  the processor and the native engine
    cuda.py       the cuda engine
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import wavewn
from wavewn.doctor.cuda import check_cuda
from wavewn.doctor.finding import IMPORT_ERRORS, Finding, first_line, version_of, why_not
from wavewn.doctor.processor import EXTENSION, check_cpu, check_native
from wavewn.errors import WavewnError

CORE = {  # import name: distribution
    "torch": "torch",
    "librosa": "librosa",
    "soundfile": "soundfile",
    "lightning": "lightning",
    "jsonargparse": "jsonargparse",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "tensorboard": "tensorboard",
    "matplotlib": "matplotlib",
    "yaml": "PyYAML",
    "tqdm": "tqdm",
    "jinja2": "Jinja2",
}
EXTRAS = {
    "eval": ("torchmetrics", "pesq", "pystoi"),
    "h5": ("h5py",),
    "g722": ("av",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "hub": ("huggingface_hub",),
}
LITTLE_DISK_GB = 5.0  # a corpus and its checkpoints want more
COMPILERS = {"C": ("CC", "cc", "gcc", "clang"), "C++": ("CXX", "c++", "g++", "clang++")}
COMPILER_TIMEOUT_S = 20.0


def check_versions() -> list[Finding]:
    """Import every package that wavewn needs, and torchaudio, which it can do without."""
    system = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    findings = [
        Finding("versions", "wavewn", "ok", wavewn.__version__),
        Finding("versions", "python", "ok", system),
    ]
    for module, name in CORE.items():
        problem = why_not(module)
        if problem is None:
            findings.append(Finding("versions", name, "ok", version_of(name)))
        else:
            advice = f"pip install --force-reinstall {name}"
            findings.append(Finding("versions", name, "broken", problem, advice))
    problem = why_not("torchaudio")
    advice = "only corpora use it; install the torchaudio that was built for this torch"
    findings.append(
        Finding("versions", "torchaudio", "ok", version_of("torchaudio"))
        if problem is None
        else Finding("versions", "torchaudio", "note", problem, advice)
    )
    return findings


def check_engines() -> list[Finding]:
    """Let every engine of this version speak two frames with a tiny random model."""
    try:
        import torch

        from wavewn.audio.mel import MelSpec
        from wavewn.bundle import Bundle, fresh_model
        from wavewn.config import Condition, HiFiGANConfig, WaveNetConfig
        from wavewn.engine.choice import ONE_PASS_ENGINES, WAVENET_ENGINES
        from wavewn.engine.choice import why_not as why_engine_cannot
        from wavewn.vocoder import ENGINES, Vocoder
    except IMPORT_ERRORS as error:
        return [Finding("engines", "reference", "broken", first_line(error), "see the versions")]
    spec = MelSpec(n_fft=128, hop_length=20, win_length=80, n_mels=8)
    wavenet = WaveNetConfig(
        residual_channels=8,
        skip_channels=8,
        head_channels=8,
        cycles=1,
        layers_per_cycle=2,
        condition=Condition(channels=4),
    )
    one_pass = HiFiGANConfig(
        channels=8,
        upsample_rates=(5, 4),
        upsample_kernel_sizes=(5, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilations=((1,),),
    )
    findings = []
    for name in ENGINES:
        if name == "native" and why_not(EXTENSION) is not None:
            continue  # check_native says why
        if name in WAVENET_ENGINES and why_engine_cannot(name, "auto", torch.device("cpu")):
            continue  # it wants a GPU
        model = fresh_model(one_pass if name in ONE_PASS_ENGINES else wavenet, spec)
        bundle = Bundle(model.eval().requires_grad_(False), spec, [], {})
        try:
            Vocoder(bundle, engine=name).synthesize(torch.full((1, 8, 2), spec.log_floor))
            findings.append(Finding("engines", name, "ok", "runs on the CPU"))
        except (WavewnError, RuntimeError) as error:
            advice = "pip install --force-reinstall torch"
            findings.append(Finding("engines", name, "broken", first_line(error), advice))
    return findings


def check_gpu() -> list[Finding]:
    """List the CUDA devices, or say why there is none."""
    try:
        import torch

        if torch.version.cuda is None:
            reason = "none: this PyTorch was built without CUDA"
            advice = "where there is an NVIDIA GPU, install a CUDA build of torch"
            return [Finding("gpu", "cuda", "note", reason, advice)]
        if not torch.cuda.is_available():
            reason = f"none: PyTorch for CUDA {torch.version.cuda} sees no device or no driver"
            return [Finding("gpu", "cuda", "note", reason, "does nvidia-smi list one?")]
        findings = []
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory_gb = device.total_memory / 1e9
            detail = f"{device.name}, {memory_gb:.1f} GB, sm_{device.major}{device.minor}"
            findings.append(Finding("gpu", f"cuda:{index}", "ok", detail))
        return findings
    except (*IMPORT_ERRORS, AssertionError) as error:
        return [Finding("gpu", "cuda", "note", first_line(error))]


def check_compilers() -> list[Finding]:
    """Find a C and a C++ compiler and ask for their versions."""
    findings = []
    for language, (variable, *names) in COMPILERS.items():
        given = os.environ.get(variable, "").split()[:1]  # it may carry options
        path = next((found for name in [*given, *names] if (found := shutil.which(name))), None)
        if path is None:
            advice = "only for installing wavewn and pesq and for torch.compile; gcc or clang"
            findings.append(Finding("compiler", language, "note", "none found", advice))
            continue
        try:
            done = subprocess.run(
                [path, "--version"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMPILER_TIMEOUT_S,
            )
            version = (done.stdout.splitlines() or [f"exit code {done.returncode}"])[0]
            status: Literal["ok", "note"] = "note" if done.returncode else "ok"
            findings.append(Finding("compiler", language, status, f"{path}: {version}"))
        except (OSError, subprocess.TimeoutExpired) as error:
            findings.append(Finding("compiler", language, "note", f"{path}: {first_line(error)}"))
    return findings


def check_disk() -> list[Finding]:
    """Measure the free space of the current folder and of the cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    places = {"current folder": ".", "cache": cache}
    findings = []
    for name, place in places.items():
        try:
            folder = Path(place).absolute()
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent  # where the first file would make the rest
            free_gb = shutil.disk_usage(folder).free / 1e9
            writable = os.access(folder, os.W_OK)
        except OSError as error:  # also a current folder that was removed
            findings.append(Finding("disk", name, "note", f"{place}: {first_line(error)}"))
            continue
        status: Literal["ok", "note"] = "ok" if free_gb >= LITTLE_DISK_GB else "note"
        detail, advice = f"{folder}: {free_gb:.1f} GB free", ""
        if status == "note":
            advice = "trainings and corpora want more"
        if not writable:
            status, detail = "note", f"{detail}, not writable"
            advice = "write somewhere else with --out" if name == "current folder" else ""
        findings.append(Finding("disk", name, status, detail, advice))
    return findings


def check_extras() -> list[Finding]:
    """Import the optional packages; for missing ones give the line that installs them."""
    findings = []
    for extra, modules in EXTRAS.items():
        problems = {module: why_not(module) for module in modules}
        missing = [f"{module} {why}" for module, why in problems.items() if why is not None]
        if missing:
            line = f'pip install "wavewn[{extra}]"'
            findings.append(Finding("extras", extra, "note", "; ".join(missing), line))
        else:
            versions = ", ".join(f"{module} {version_of(module)}" for module in modules)
            findings.append(Finding("extras", extra, "ok", versions))
    return findings


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_versions,
    check_engines,
    check_native,
    check_cpu,
    check_gpu,
    check_cuda,
    check_compilers,
    check_disk,
    check_extras,
)
