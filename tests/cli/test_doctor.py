"""The doctor says what is missing, and is never ill itself."""

import builtins
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wavewn import doctor
from wavewn.cli import doctor as verb
from wavewn.cli.main import main
from wavewn.doctor import Finding, finding
from wavewn.engine import choice, nvrtc
from wavewn.engine.choice import ONE_PASS_ENGINES
from wavewn.errors import EngineError
from wavewn.vocoder import ENGINES

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def only(findings, name):
    """The finding of this name."""
    [found] = [finding for finding in findings if finding.name == name]
    return found


@pytest.fixture
def quick(monkeypatch):
    """Leave two made-up checks, so that a test of the printing imports nothing."""

    def checks(*findings):
        monkeypatch.setattr(doctor, "CHECKS", (lambda: list(findings),))

    return checks


GOOD = Finding("versions", "wavewn", "ok", "1")
NOTE = Finding("extras", "h5", "note", "h5py is not installed", 'pip install "wavewn[h5]"')
BROKEN = Finding("versions", "torch", "broken", "is not installed", "pip install torch")


def test_a_report_has_chapters_and_a_line_a_finding(quick, capsys):
    quick(GOOD, NOTE)

    assert main(["doctor"]) == 0

    assert capsys.readouterr().out == (
        "versions\n  ok     wavewn  1\n\nextras\n"
        '  note   h5      h5py is not installed -> pip install "wavewn[h5]"\n'
    )


def test_json_holds_the_same(quick, capsys):
    quick(GOOD, NOTE)

    assert main(["doctor", "--json"]) == 0

    said = json.loads(capsys.readouterr().out)
    assert said["works"] is True
    assert [row["status"] for row in said["findings"]] == ["ok", "note"]
    assert said["findings"][1]["advice"] == 'pip install "wavewn[h5]"'


def test_only_what_wavewn_needs_changes_the_exit_code(quick, capsys):
    quick(GOOD, BROKEN)

    assert main(["doctor", "--json"]) == 2

    out, error = capsys.readouterr()
    assert json.loads(out)["works"] is False
    assert error == ("wavewn: error: wavewn cannot work here because of torch; pip install torch\n")


def test_this_machine_works(capsys):
    assert main(["doctor"]) == 0

    said = capsys.readouterr().out
    assert f"ok     torch               {torch.__version__}" in said
    for name in ENGINES:
        if name in ONE_PASS_ENGINES or not choice.why_not(name, "auto", torch.device("cpu")):
            assert re.search(rf"ok     {name} +runs on the CPU", said)
    assert not re.search("^  broken", said, re.MULTILINE)


def test_a_package_that_is_not_there_is_broken_or_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "torchaudio", None)

    found = doctor.check_versions()

    assert only(found, "soundfile") == Finding(
        "versions",
        "soundfile",
        "broken",
        "is not installed",
        "pip install --force-reinstall soundfile",
    )
    assert only(found, "torchaudio").status == "note"
    assert only(found, "torch").status == "ok"


@pytest.mark.parametrize("error", finding.IMPORT_ERRORS)
def test_a_package_that_does_not_load_says_why(monkeypatch, error):
    def fail(name):
        raise error("libsox.so: cannot open\nand many lines more")

    monkeypatch.setattr(finding.importlib, "import_module", fail)

    assert doctor.why_not("torchaudio") == "does not load: libsox.so: cannot open"


def test_a_package_whose_own_needs_are_missing_is_not_called_missing(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'cffi'", name="cffi")

    monkeypatch.setattr(finding.importlib, "import_module", fail)

    assert doctor.why_not("soundfile") == "does not load: No module named 'cffi'"


def test_without_torch_every_check_still_answers(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)

    assert only(doctor.check_engines(), "reference").status == "broken"
    assert only(doctor.check_cpu(), "torch kernels").detail == "No module named 'torch'"
    assert only(doctor.check_gpu(), "cuda").status == "note"
    assert [one.status for one in doctor.check_cuda()] == ["note"]


def test_an_engine_that_fails_is_named(monkeypatch):
    def fail(self, *rest, **options):
        raise RuntimeError("could not create a primitive\nhint")

    monkeypatch.setattr("wavewn.vocoder.Vocoder.synthesize", fail)

    found = only(doctor.check_engines(), "reference")

    assert (found.status, found.detail) == ("broken", "could not create a primitive")


def test_a_gpu_is_described_and_its_absence_explained(monkeypatch):
    class Device:
        name, total_memory, major, minor = "GeForce", 8_000_000_000, 8, 6

    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in only(doctor.check_gpu(), "cuda").detail

    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no device or no driver" in only(doctor.check_gpu(), "cuda").detail

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Device)
    assert only(doctor.check_gpu(), "cuda:0").detail == "GeForce, 8.0 GB, sm_86"

    def fail(index):
        raise RuntimeError("CUDA driver initialization failed")

    monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
    assert only(doctor.check_gpu(), "cuda").detail == "CUDA driver initialization failed"


def test_the_cuda_engine_is_described(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "wavewn" / "cubins"
    folder.mkdir(parents=True)
    (folder / "one.cubin").write_bytes(b"")
    monkeypatch.setattr(nvrtc, "device_files", lambda: {"a.cu": "", "b.cuh": ""})
    monkeypatch.setattr(nvrtc, "compiler_version", lambda: "13.0")
    monkeypatch.setattr(nvrtc, "known_architectures", lambda: (80, 90))
    monkeypatch.setattr(nvrtc, "available", str)
    monkeypatch.setattr(nvrtc, "architecture_of", lambda device: "sm_90")

    found = doctor.check_cuda()

    assert [(one.name, one.status, one.detail) for one in found] == [
        ("device code", "ok", f"{nvrtc.FOLDER}: 2 files"),
        ("NVRTC", "ok", "13.0, compiles for sm_80, 90"),
        ("GPU", "ok", "can run here, on sm_90"),
        ("compiled kernels", "ok", f"{folder}: 1"),
        (
            "state",
            "note",
            "compiled by its tests for sm_80, 86, 89, 90, 100 and 120; never run on a GPU yet",
        ),
    ]


def test_what_the_cuda_engine_lacks_is_said(monkeypatch, tmp_path):
    def fail():
        raise EngineError('NVRTC is not here; pip install "wavewn[cuda13]"')

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(nvrtc, "FOLDER", tmp_path)
    monkeypatch.setattr(nvrtc, "compiler_version", fail)
    monkeypatch.setattr(nvrtc, "available", lambda: "no GPU")
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    found = doctor.check_cuda()

    assert {one.status for one in found} == {"note"}
    assert only(found, "device code").detail.endswith("is missing; reinstall wavewn")
    assert only(found, "NVRTC").detail == 'NVRTC is not here; pip install "wavewn[cuda13]"'
    assert only(found, "GPU").detail == "cannot run here: no GPU"
    assert only(found, "compiled kernels").detail == f"{tmp_path}/wavewn/cubins cannot be written"


def test_compilers_are_found_missing_or_mute(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert {found.detail for found in doctor.check_compilers()} == {"none found"}

    monkeypatch.setenv("CC", "my-cc -O2")
    monkeypatch.setattr(shutil, "which", lambda name: f"/x/{name}")

    def answer(command, **options):
        if command[0] == "/x/my-cc":
            return subprocess.CompletedProcess(command, 0, "my-cc 1.0\nmore\n", "")
        raise subprocess.TimeoutExpired(command, 20)

    monkeypatch.setattr(subprocess, "run", answer)
    found = doctor.check_compilers()
    assert only(found, "C").detail == "/x/my-cc: my-cc 1.0"
    assert only(found, "C++").status == "note"


def test_little_and_unwritable_disks_are_noted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = doctor.check_disk()
    assert only(found, "cache").detail == f"{tmp_path}: 1.0 GB free, not writable"
    assert {one.status for one in found} == {"note"}

    def fail(path):
        raise OSError("stale file handle")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    assert only(doctor.check_disk(), "current folder").detail == ".: stale file handle"


def test_a_missing_extra_comes_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)

    found = only(doctor.check_extras(), "h5")

    assert found.status == "note"
    assert found.detail == "h5py is not installed"
    assert found.advice == 'pip install "wavewn[h5]"'


def test_the_tables_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads(PYPROJECT.read_text())["project"]

    def names(requirements):
        return {re.match(r"[\w-]+", one)[0].replace("-", "_") for one in requirements}

    for extra, modules in doctor.EXTRAS.items():
        assert names(project["optional-dependencies"][extra]) == set(modules)
    assert names(project["dependencies"]) - {"torchaudio"} == set(doctor.CORE.values())


def test_a_report_of_nothing_is_empty():
    assert verb.report([]) == ""
