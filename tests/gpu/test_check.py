"""The GPU check itself runs, so that a GPU is not where it is executed for the first time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = ["--device", "cpu", "--tiny", "--out"]


def check(out, **environment):
    settings = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", str(ROOT / "tests" / "gpu" / "run.sh"), *OPTIONS, str(out)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_and_its_figures_are_kept(tmp_path):
    status, output = check(tmp_path)

    assert status == 0, output[-3000:]
    assert "!!" not in output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["tests"] is True
    rows = found["rows"]
    assert {row["part"] for row in rows} == {"engines", "one-pass models", "training"}
    failed = [row for row in rows if row["value"] is None]
    assert all(row["way"].startswith("cuda") for row in failed), failed
    assert all(f"{row['what']:<16} {row['way']}" in output for row in rows)
    ways = {(row["what"], row["way"]) for row in rows}
    assert ("HiFi-GAN V2", "bf16, compiled, share of waiting") in ways
    assert ("spectral", "bfloat16, 8 frames, graph") in ways
    assert ("M", "graph, 10 ms") in ways


def test_a_failed_test_is_told_by_the_exit_status(tmp_path):
    """Where no test can be run at all: a folder of that name stands in the way of pytest."""
    (tmp_path / "pytest").mkdir()
    (tmp_path / "pytest" / "__init__.py").write_text("raise SystemExit(3)")
    (tmp_path / "pytest" / "__main__.py").write_text("raise SystemExit(3)")
    script = (
        "import runpy, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "module = runpy.run_path(sys.argv[1] + '/check.py');"
        "print(module['run_tests']('cpu', True, Path(sys.argv[2]), 60))"
    )
    folder = str(ROOT / "tests" / "gpu")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    done = subprocess.run(
        [sys.executable, "-c", script, folder, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "!! tests: exit status 3" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
