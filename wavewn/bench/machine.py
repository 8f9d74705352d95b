"""What the figures were taken on: a figure without its machine means nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> dict[str, object]:
    """Name the processor, count those of this process, and say how busy they are now."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "machine": processor_name(CPUINFO.read_text() if CPUINFO.exists() else ""),
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def processor_name(cpuinfo: str) -> str:
    """Read the processor's name from /proc/cpuinfo, where it has one, else ask Python."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
