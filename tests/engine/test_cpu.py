"""Which instruction sets and processors the native engine believes to have."""

import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

native = pytest.importorskip("wavewn._native", reason="the native engine was not compiled")

NAMES = ["avx512-fp16", "amx", "avx512", "avx2", "portable"]  # best first
CPUINFO = Path("/proc/cpuinfo")
# What Linux calls the parts of each set. It hides what it does not save the registers of.
AVX2 = {"avx", "avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
FLAGS = {
    "avx2": AVX2,
    "avx512": AVX512,
    "avx512-fp16": AVX512 | {"avx512_fp16"},
    "amx": AVX512 | {"amx_tile", "amx_int8"},
}


def cpu_flags():
    """What Linux says of the first processor; skips where it says nothing."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    found = [line.partition(":")[2].split() for line in lines if line.startswith("flags")]
    if not found:
        pytest.skip("not Linux on x86")
    return set(found[0])


def test_the_names_come_best_first_with_a_reason_or_none():
    sets = native.instruction_sets()

    assert [name for name, _ in sets] == NAMES
    assert all(isinstance(reason, str) for _, reason in sets)


def test_the_portable_kernel_always_runs():
    assert dict(native.instruction_sets())["portable"] == ""


@pytest.mark.parametrize("name", FLAGS)
def test_the_processor_is_seen_as_linux_sees_it(name):
    reason = dict(native.instruction_sets())[name]

    if FLAGS[name] <= cpu_flags():
        assert reason == "" or reason.startswith("not compiled in: ")
    else:
        assert reason.startswith(("the CPU has no ", "the operating system does not save "))


def test_other_processors_have_none_of_the_sets_of_x86():
    if platform.machine().lower() in ("x86_64", "amd64"):
        pytest.skip("this is one")
    sets = dict(native.instruction_sets())

    assert {sets[name] for name in FLAGS} == {"this is no x86-64 CPU"}


def test_tiles_are_lent_or_refused_with_a_reason():
    # In a process of its own: the permission stays with the process that has it.
    program = (
        "from wavewn import _native as n\n"
        "print(dict(n.instruction_sets())['amx']); print(n.request_amx()); print(n.request_amx())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    lacks, answer, again = done.stdout.split("\n")[:3]

    assert answer == again
    if lacks:
        assert answer == lacks


def test_the_affinity_mask_counts(tmp_path):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("only Linux has one")
    mine = os.sched_getaffinity(0)
    assert native.usable_cpus(f"{tmp_path}/") == len(mine)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert native.usable_cpus(f"{tmp_path}/") == 1
    finally:
        os.sched_setaffinity(0, mine)


def machine(root, cgroup, files):
    """Lay out /proc/self/cgroup and some files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return f"{root}/"


ONE_AND_A_HALF = "150000 100000\n"
HALF = "50000 100000\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "lent"),
    [
        ("0::/\n", {"cpu.max": HALF}, 1),  # version 2, seen from inside a container
        ("0::/\n", {"cpu.max": ONE_AND_A_HALF}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": HALF}, 1),  # the parent's holds
        ("0::/host/path\n", {"cpu.max": HALF}, 1),  # the path is the host's
        (  # version 1: the controller lies in a folder of its own
            "7:memory:/\n4:cpu,cpuacct:/a\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "40000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            "4:cpuacct,cpu:/a\n",
            {"cpu/cpu.cfs_quota_us": "40000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        (
            "3:cpuset:/\n",
            {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "9"},
            math.inf,
        ),
        ("garbage\n::\n:\n", {"cpu.max": "nonsense"}, math.inf),
        ("0::/\n", {"cpu.max": ""}, math.inf),
        ("0::/\n", {"cpu.max": "100 0\n"}, math.inf),
    ],
)
def test_the_quota_of_a_cgroup_counts(tmp_path, cgroup, files, lent):
    everything = native.usable_cpus(f"{tmp_path}/nowhere/")

    assert native.usable_cpus(machine(tmp_path, cgroup, files)) == min(everything, lent)
