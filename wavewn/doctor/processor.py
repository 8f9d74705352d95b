"""What the processor and the native engine can do here."""

import importlib
import os

from wavewn.doctor.finding import IMPORT_ERRORS, Finding, first_line, why_not
from wavewn.engine.processor import BFLOAT16, CPUINFO, cpu_flags

EXTENSION = "wavewn._native"
VECTORS = ("neon", "asimd", "sve", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "i8mm")


def check_cpu() -> list[Finding]:
    """Read the instruction sets, and what they mean for the precision of trainings."""
    findings = [Finding("cpu", "cores", "ok", f"{usable_cpus()} for this process")]
    try:
        import torch

        kernels = torch.backends.cpu.get_cpu_capability()
        findings.append(Finding("cpu", "torch kernels", "ok", kernels))
    except IMPORT_ERRORS as error:
        findings.append(Finding("cpu", "torch kernels", "note", first_line(error)))
    flags = cpu_flags(CPUINFO)
    if not flags:
        reason = f"unknown: {CPUINFO} names no instruction sets"
        advice = "if training is slow, compare with --trainer.precision 32-true"
        return [*findings, Finding("cpu", "training precision", "note", reason, advice)]
    found = [flag for flag in (*VECTORS, *BFLOAT16) if flag in flags]
    findings.append(Finding("cpu", "instruction sets", "ok", ", ".join(found) or "none known"))
    if any(flag in flags for flag in BFLOAT16):
        precision = Finding("cpu", "training precision", "ok", "bf16-mixed is fast here")
    else:
        reason = "this CPU has no bfloat16 instructions, bf16-mixed is slow on it"
        advice = "train with --trainer.precision 32-true"
        precision = Finding("cpu", "training precision", "note", reason, advice)
    return [*findings, precision]


def check_native() -> list[Finding]:
    """Ask the native engine's extension for itself and for each instruction set."""
    problem = why_not(EXTENSION)
    if problem is not None:
        advice = "install g++ or clang, then wavewn again; the reference engine does without"
        return [Finding("native engine", "extension", "note", problem, advice)]
    native = importlib.import_module(EXTENSION)
    file = str(getattr(native, "__file__", EXTENSION))
    findings = [Finding("native engine", "extension", "ok", file)]
    for name, reason in native.instruction_sets():
        if name == "amx" and not reason:
            reason = native.request_amx()  # the system may refuse what the processor has
        if reason:
            findings.append(Finding("native engine", name, "note", reason))
        else:
            findings.append(Finding("native engine", name, "ok", "runs here"))
    for name, precision, reason in native.onepass_sets():
        if precision == "bfloat16":  # the others are those above
            if name == "amx-bf16" and not reason:
                reason = native.request_amx() or native.distrust_tiles()
            detail = reason or f"runs one-pass models in {precision}"
            findings.append(Finding("native engine", name, "note" if reason else "ok", detail))
    reason = native.why_no_gated_training()
    detail = f"torch's operations: {reason}" if reason else "WaveNet's stack in bf16-mixed"
    findings.append(Finding("native engine", "training", "note" if reason else "ok", detail))
    return findings


def usable_cpus() -> int:
    """Count the processors of this process: its affinity mask, its cgroup's quota."""
    if why_not(EXTENSION) is None:
        return int(importlib.import_module(EXTENSION).usable_cpus())
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux lets a process ask
        return os.cpu_count() or 1
