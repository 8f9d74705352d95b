"""The doctor's view of the processor and of the native engine."""

import os
import sys
import types

import pytest

from wavewn.doctor import processor
from wavewn.doctor.processor import EXTENSION


def only(findings, name):
    """The finding of this name."""
    [found] = [finding for finding in findings if finding.name == name]
    return found


@pytest.fixture
def extension(monkeypatch):
    """Put a made-up extension in the place of the built one."""
    made = types.ModuleType(EXTENSION)
    made.instruction_sets = lambda: [("amx", ""), ("avx512", "the CPU has none"), ("portable", "")]
    made.onepass_sets = lambda: [
        ("amx-bf16", "bfloat16", ""),
        ("avx512-bf16", "bfloat16", "too old"),
        ("avx2", "float32", ""),
    ]
    made.distrust_tiles = lambda: "its tiles gave wrong sums"
    made.why_no_gated_training = lambda: "too old"
    made.request_amx = lambda: ""
    made.usable_cpus = lambda: 3
    monkeypatch.setitem(sys.modules, EXTENSION, made)
    return made


def test_every_instruction_set_runs_or_says_why_not(extension):
    findings = processor.check_native()

    assert [(one.name, one.status, one.detail) for one in findings[1:]] == [
        ("amx", "ok", "runs here"),
        ("avx512", "note", "the CPU has none"),
        ("portable", "ok", "runs here"),
        ("amx-bf16", "note", "its tiles gave wrong sums"),
        ("avx512-bf16", "note", "too old"),
        ("training", "note", "torch's operations: too old"),
    ]


def test_what_trains_natively_is_said(extension):
    extension.why_no_gated_training = lambda: ""

    found = only(processor.check_native(), "training")

    assert (found.status, found.detail) == ("ok", "WaveNet's stack in bf16-mixed")


def test_a_refused_permission_is_told(extension):
    extension.request_amx = lambda: "this Linux does not lend AMX tiles"

    found = only(processor.check_native(), "amx")

    assert (found.status, found.detail) == ("note", "this Linux does not lend AMX tiles")


def test_without_the_extension_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, EXTENSION, None)

    [found] = processor.check_native()

    assert (found.status, found.detail) == ("note", "is not installed")
    assert "install g++ or clang" in found.advice


def test_an_extension_that_does_not_load_says_why(monkeypatch):
    def fail(name):
        raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.30' not found")

    monkeypatch.setattr("importlib.import_module", fail)

    [found] = processor.check_native()

    assert found.detail.startswith("does not load: libstdc++.so.6")


def test_the_quota_of_a_container_counts(extension):
    assert only(processor.check_cpu(), "cores").detail == "3 for this process"


def test_without_the_extension_the_affinity_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, EXTENSION, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)

    assert processor.usable_cpus() == 3


@pytest.mark.parametrize(
    ("cpuinfo", "status", "says"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16\n", "ok", "bf16-mixed is fast"),
        ("flags\t\t: fpu avx2 fma\n", "note", "--trainer.precision 32-true"),
        ("Features\t: fp asimd bf16\n", "ok", "bf16-mixed is fast"),
        ("processor : 0\n", "note", "unknown"),
        (None, "note", "unknown"),
    ],
)
def test_instruction_sets_choose_the_precision(monkeypatch, tmp_path, cpuinfo, status, says):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setitem(sys.modules, EXTENSION, None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)

    found = only(processor.check_cpu(), "training precision")

    assert found.status == status
    assert says in f"{found.detail} {found.advice}"
