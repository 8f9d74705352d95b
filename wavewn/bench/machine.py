"""What the figures were taken on: a figure without its machine means nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, object]:
    """Name the processor, count those of this process, say how busy they are, and name the GPU."""
    affinity = getattr(os, "sched_getaffinity", None)
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "machine": processor_name(CPUINFO.read_text() if CPUINFO.exists() else ""),
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        **gpu,
    }


def processor_name(cpuinfo: str) -> str:
    """Read the processor's name from /proc/cpuinfo, where it has one, else ask Python."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
