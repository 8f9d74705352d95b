"""What holds for every test: one torch thread, and GPU tests only where a GPU is."""

import resource
from pathlib import Path

import pytest
import torch

HEADROOM = 2 << 30  # bytes on top of what the process has when a test begins


def pytest_addoption(parser):
    parser.addoption("--device", default="", help="where the engine contract runs, such as cuda")


def pytest_configure():
    # One thread: the order of summation, and so every bitwise comparison, stays the same.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, none is present")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture
def ceiling():
    """Let a test take at most `HEADROOM`: what wants more fails there, not in the machine."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + HEADROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
