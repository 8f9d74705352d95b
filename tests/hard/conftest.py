"""Damage to files, a ceiling over memory, a disk that is full, and a tiny model to save."""

import resource

import pytest
import torch
from hypothesis import strategies as st

from wavewn.audio.mel import MelSpec
from wavewn.config import Condition, MuLaw, WaveNetConfig
from wavewn.models.wavenet import WaveNet

FULL_AT = 2048  # bytes, where a file on the full disk ends
SPEC = MelSpec(n_mels=4, hop_length=20, win_length=80, n_fft=128)


@pytest.fixture(autouse=True)
def under_the_ceiling(ceiling):
    """Bound the memory of every test here."""


@pytest.fixture
def full_disk(monkeypatch):
    """Let every file end after `FULL_AT` bytes, as on a disk that is full."""
    # what is imported now would leave half its bytecode, and break every process after this one
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Give the disk room again before pytest tells the result, perhaps into a longer file."""
    try:
        return (yield)
    finally:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture(scope="session")
def damaged():
    """Make the strategy of everything that a bad copy or a bad neighbour does to a file."""

    @st.composite
    def damage(draw, whole):
        content = bytearray(whole)
        for _ in range(draw(st.integers(1, 3))):
            length = len(content)
            near = st.integers(0, min(length, 200))  # where headers are
            far = near.map(lambda at, length=length: length - at)  # and directories of zip files
            at = draw(near | far | st.integers(0, length))
            what = draw(st.sampled_from(["cut", "flip", "fill", "insert", "remove"]))
            if what == "cut":
                del content[at:]
            elif what == "flip" and at < length:
                content[at] ^= 1 << draw(st.integers(0, 7))
            elif what == "fill":
                size = draw(st.sampled_from([1, 2, 4, 8, 64]))
                content[at : at + size] = bytes([draw(st.sampled_from([0, 127, 128, 255]))]) * size
            elif what == "insert":
                content[at:at] = draw(st.binary(max_size=20))
            else:
                del content[at : at + draw(st.integers(1, 40))]
        return bytes(content)

    return damage


@pytest.fixture(scope="session")
def spec():
    """The mels of the tiny model."""
    return SPEC


@pytest.fixture(scope="session")
def model():
    """A WaveNet of a few hundred weights."""
    torch.manual_seed(0)
    settings = WaveNetConfig(
        residual_channels=4,
        skip_channels=4,
        head_channels=4,
        cycles=1,
        layers_per_cycle=2,
        head=MuLaw(classes=16),
        condition=Condition(channels=4),
    )
    return WaveNet(settings, SPEC.n_mels, SPEC.hop_length, SPEC.log_floor)
