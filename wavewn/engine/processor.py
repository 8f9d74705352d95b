"""What the processor says of itself, without torch: the doctor asks where torch may be broken."""

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last is ARM's name


def cpu_flags(cpuinfo: Path) -> set[str]:
    """Read the names of the instruction sets; none where the system does not tell."""
    try:
        return read_cpu_flags(cpuinfo.read_text("utf-8", "replace"))
    except OSError:  # not Linux
        return set()


def read_cpu_flags(cpuinfo: str) -> set[str]:
    """Collect what the first core says of itself; x86 writes "flags", ARM writes "Features"."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return set(found[1].split()) if found else set()
