"""The build of the native engine says what it lacks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "wavewn" / "csrc"


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Return a function that runs cmake with nothing but these programs on the PATH."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    programs = tmp_path / "programs"
    programs.mkdir()
    cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
    if cmake is None or ninja is None:
        pytest.skip("cmake and ninja come with the dev extra")

    def run(**programs_by_name):
        for name, path in {"ninja": ninja, **programs_by_name}.items():
            (programs / name).symlink_to(path)
        command = [cmake, "-G", "Ninja", "-S", CSRC, "-B", tmp_path / "build"]
        return subprocess.run(
            [*command, "-DWAVEWN_EXTENSION=OFF"],
            env={**os.environ, "PATH": str(programs)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def sentence(text):
    """Undo the line breaks of cmake's messages."""
    return " ".join(text.split())


def test_without_a_compiler_the_error_says_what_to_install(configure):
    done = configure()

    assert done.returncode != 0
    assert "needs a C++17 compiler, and none on the PATH works." in sentence(done.stderr)
    assert "apt install g++" in sentence(done.stderr)


def test_a_compiler_that_compiles_nothing_is_none(configure, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)

    done = configure(**{"c++": broken})

    assert done.returncode != 0
    assert "none on the PATH works." in sentence(done.stderr)
