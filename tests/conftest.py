"""What holds for every test: one torch thread, and GPU tests only where a GPU is."""

import pytest
import torch


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
