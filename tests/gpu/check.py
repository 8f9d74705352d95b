"""The whole GPU check, part by part; run.sh starts it.

    python tests/gpu/check.py [--device cuda] [--tiny] [--out FOLDER]

Parts are processes of their own with a time limit each, so that one that hangs or crashes does not
take the others with it: first the tests, then engines, one-pass models and training. Figures are
printed as they come and once more as a table at the end, and lie in FOLDER: gpu.jsonl, gpu.json,
and the tests' whole output in tests.log. The exit status is 1 where a test failed or no test ran.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from report import table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONTRACT = ("test_contract.py", "test_contract_streams.py", "test_contract_refusals.py")
TAIL = 2500  # characters of the tests' output that are shown
LIMIT_S = 470  # of everything


@dataclass(frozen=True)
class Job:
    """A part of the check.

    Attributes:
        name: Of the script.
        seconds: After which it is stopped.
    """

    name: str
    seconds: float


JOBS = (Job("engines", 150), Job("onepass", 75), Job("training", 105))
TESTS_S = 130
TINY = 10  # times as long on a CPU, which may be busy


def run(command: list[str], seconds: float, log: Path | None = None) -> int:
    """Run a program and all that it starts; -1 where its time was up."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    output = log.open("w") if log else None
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # so that pytest says what it has found
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        return -1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if output:
            output.close()


def run_tests(device: str, tiny: bool, out: Path, seconds: float) -> bool:
    """Run what is marked gpu, and the contract of the engines on the device."""
    engine = [str(ROOT / "tests" / "engine" / name) for name in CONTRACT]
    pytest = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--maxfail=20", "--durations=5"]
    if importlib.util.find_spec("xdist") and not tiny:
        pytest += ["-n", "6", "--dist", "worksteal"]
    if tiny:
        marked, chosen = ["tests/engine/test_onepass_graph.py", "-k", "waiting"], ["-k", "an_out"]
    else:
        marked, chosen = ["tests", "-m", "gpu and not slow"], []
    sound, end = True, time.monotonic() + seconds
    for number, command in enumerate(
        ([*pytest, *marked], [*pytest, *engine, "--device", device, *chosen])
    ):
        log = out / f"tests-{number + 1}.log"
        status = run(command, max(end - time.monotonic(), 5), log)
        print(log.read_text("utf-8", "replace")[-TAIL:], flush=True)
        if status:
            print(f"!! tests: {'stopped' if status == -1 else f'exit status {status}'}", flush=True)
            sound = False
    return sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="everything once, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("torch finds no CUDA device here; is the driver there, and torch a CUDA build?")
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    rows = out / "gpu.jsonl"
    rows.write_text("")
    began = time.monotonic()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    print(f"{where}; torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    longer = TINY if arguments.tiny else 1
    sound = run_tests(arguments.device, arguments.tiny, out, longer * TESTS_S)
    options = ["--device", arguments.device, "--out", str(rows)]
    options += ["--tiny"] if arguments.tiny else []
    for job in JOBS:
        left = longer * LIMIT_S - (time.monotonic() - began)
        seconds = min(longer * job.seconds, left)
        if seconds < 10:
            print(f"!! {job.name}: no time was left", flush=True)
            continue
        print(f"-- {job.name}, up to {seconds:.0f} s", flush=True)
        command = [sys.executable, str(HERE / f"{job.name}.py"), *options]
        status = run([*command, "--seconds", str(seconds - 15)], seconds)
        if status:
            why = "its time was up" if status == -1 else f"exit status {status}"
            print(f"!! {job.name}: {why}", flush=True)
    print(f"{where}; torch {torch.__version__}; {time.monotonic() - began:.0f} s")
    print(table(rows))
    found = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    report = {"device": where, "torch": torch.__version__, "tests": sound, "rows": found}
    (out / "gpu.json").write_text(json.dumps(report, indent=1), "utf-8")
    print("tests passed" if sound else "TESTS FAILED", flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
