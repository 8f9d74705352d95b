"""The native engine allocates nothing for a sample, and takes no lock.

A process with a counter of both under it (allocations.c) makes calls of few and of many frames:
what is done once a call is the same in both. The reference engine allocates as it goes; that the
counter sees this proves that it can count.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY, HOP = 2, 18, 100
SAMPLES = (MANY - FEW) * HOP
A_SAMPLE = 0.02  # fewer allocations than this for each further sample: what numpy draws noise with

PROGRAM = """
import ctypes, json, sys
import torch
from wavewn.bundle.precisions import Calibration
from wavewn.config import Condition, Gaussian, LogisticMixture, MuLaw, WaveNetConfig
from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.models.wavenet import WaveNet
from wavewn.state import StreamState

torch.set_num_threads(1)
process = ctypes.CDLL(None)
few, many, hop = json.loads(sys.argv[1])

class Watched:
    def __init__(self, network):
        self.network = network

    def advance(self, *arguments):
        before = process.counted_allocations(), process.counted_locks()
        answer = self.network.advance(*arguments)
        after = process.counted_allocations(), process.counted_locks()
        self.seen = [b - a for a, b in zip(before, after)]
        return answer

def weights_of(head, order, lag):
    settings = WaveNetConfig(residual_channels=16, skip_channels=16, head_channels=16, cycles=1,
        layers_per_cycle=3, head=head, condition=Condition(channels=8, look_ahead=0),
        prediction_order=order, longest_lag=lag)
    return pack_wavenet(WaveNet(settings, 4, hop, -11.5))

def calls(engine, batch):
    if engine.name == "native":
        engine._network = Watched(engine._network)
    found = []
    for frames in (many, few, many, few):  # the first two make what is kept
        state = StreamState.zeros(engine.layout, batch)
        mel, out = torch.full((batch, 4, frames), -5.0), torch.zeros(batch, frames * hop)
        before = process.counted_allocations()
        engine.generate(state, mel, out=out)
        whole = process.counted_allocations() - before
        found.append([whole, *getattr(getattr(engine, "_network", None), "seen", [])])
    return found[2:]

plain = weights_of(MuLaw(classes=32), 0, 0)
results = {"reference": calls(ReferenceEngine(plain), 1)}
if len(sys.argv) > 2:
    from wavewn.engine.native import NativeEngine, instruction_sets
    calibration = Calibration(((4.0,) * 16,) * 3, 4.0, 4.0)
    for name, reason in instruction_sets().items():
        if not reason:
            for precision in ("float32", "float16", "int8"):
                for batch, threads in ((1, 1), (5, 1), (5, 2)):
                    engine = NativeEngine(plain, precision, name, threads, calibration)
                    results[f"{name} {precision} {batch} {threads}"] = calls(engine, batch)
    for head, order, lag in ((LogisticMixture(components=2), 4, 16), (Gaussian(), 0, 0)):
        engine = NativeEngine(weights_of(head, order, lag))
        results[f"{head.kind} {order} {lag} 1"] = calls(engine, 2)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory, native_absence):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if platform.libc_ver()[0] != "glibc" or compiler is None or "LD_PRELOAD" in os.environ:
        pytest.skip("the counter needs glibc, a C compiler, and nobody else in LD_PRELOAD")
    counter = tmp_path_factory.mktemp("counter") / "allocations.so"
    source = Path(__file__).with_name("allocations.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", counter, source, "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    arguments = [json.dumps([FEW, MANY, HOP])] + ["native"] * (not native_absence)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "LD_PRELOAD": str(counter)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_counter_can_count(counts):
    [[many], [few]] = counts["reference"]

    assert many - few > 10 * SAMPLES


def test_nothing_is_allocated_for_a_sample(counts, native_absence):
    if native_absence:
        pytest.skip(native_absence)
    found = {name: calls for name, calls in counts.items() if name != "reference"}

    assert len(found) >= 3 * 3 + 2
    for name, ((whole_many, many, _), (whole_few, few, _)) in found.items():
        assert many == few == 0, f"{name}: in the kernel"
        assert whole_many - whole_few < A_SAMPLE * SAMPLES, name


def test_no_lock_is_taken_for_a_sample(counts, native_absence):
    """On one thread; several have to wait for each other."""
    if native_absence:
        pytest.skip(native_absence)
    for name, calls in counts.items():
        if name.endswith(" 1"):
            (_, _, many), (_, _, few) = calls
            assert many == few > 0, name  # those of Python itself, around the call
