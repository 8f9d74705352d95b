"""Compiled kernels are kept whole or not at all, and never stop anything."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wavewn.engine import cubins
from wavewn.engine.cubins import KEPT, cubin_folder, cubin_key, read_cubin, write_cubin

KEY = cubin_key({"name": "some kernel"})
CUBIN = bytes(range(256)) * 4


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_lies_in_the_users_cache(cache, monkeypatch, tmp_path):
    assert cubin_folder() == cache / "wavewn" / "cubins"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cubin_folder() == tmp_path / ".cache" / "wavewn" / "cubins"


def test_what_was_written_is_read_back(cache, caplog):
    assert read_cubin(KEY) is None

    write_cubin(KEY, CUBIN)

    assert read_cubin(KEY) == CUBIN
    assert [path.name for path in cubin_folder().iterdir()] == [f"{KEY}.cubin"]
    assert caplog.text == ""


def test_the_key_tells_every_ingredient_apart():
    recipes = [
        {"a": "1", "b": "2"},
        {"a": "12", "b": ""},
        {"a": "1", "b": 2},
        {"a": "1", "b": ["2"]},
        {"a": "1"},
    ]

    assert len({cubin_key(recipe) for recipe in recipes}) == len(recipes)
    assert cubin_key({"b": "2", "a": "1"}) == cubin_key(recipes[0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes([content[0] ^ 1]) + content[1:],
    ],
)
def test_a_damaged_file_counts_as_none_and_can_be_replaced(damage, caplog):
    write_cubin(KEY, CUBIN)
    path = cubin_folder() / f"{KEY}.cubin"
    path.write_bytes(damage(path.read_bytes()))

    assert read_cubin(KEY) is None
    assert f"{path} is damaged" in caplog.text
    write_cubin(KEY, CUBIN)
    assert read_cubin(KEY) == CUBIN


def test_a_folder_that_cannot_be_made_is_logged_and_lived_without(cache, caplog):
    cache.write_text("a file where the folder would be")

    write_cubin(KEY, CUBIN)

    assert "the compiled kernel is not kept for the next start" in caplog.text
    assert read_cubin(KEY) is None


def test_a_file_that_cannot_be_read_counts_as_none(caplog):
    (cubin_folder() / f"{KEY}.cubin").mkdir(parents=True)

    assert read_cubin(KEY) is None
    assert "cannot be read" in caplog.text


def test_a_disk_that_fills_up_leaves_nothing_behind(monkeypatch, caplog):
    def fail(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)

    write_cubin(KEY, CUBIN)

    assert "no space left" in caplog.text
    assert list(cubin_folder().iterdir()) == []


WRITER = f"""
from wavewn.engine.cubins import write_cubin
for _ in range(300):
    write_cubin({KEY!r}, {CUBIN!r})
"""


def test_two_processes_at_once_never_show_half_a_file(caplog):
    here = str(Path(cubins.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": here}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER], env=environment) for _ in range(2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(read_cubin(KEY))

    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen <= {None, CUBIN}
    assert read_cubin(KEY) == CUBIN
    assert caplog.text == ""
    assert len(list(cubin_folder().iterdir())) == 1


def test_the_checksum_is_of_the_kernel_alone():
    write_cubin(KEY, CUBIN)

    content = (cubin_folder() / f"{KEY}.cubin").read_bytes()

    assert content == hashlib.sha256(CUBIN).digest() + CUBIN


def last_used_hours_ago(hours, path):
    moment = time.time() - 3600 * hours
    os.utime(path, (moment, moment))


def test_the_kernels_used_last_are_kept():
    keys = [cubin_key({"kernel": i}) for i in range(KEPT + 3)]
    for i, key in enumerate(keys[:KEPT]):
        write_cubin(key, CUBIN)
        last_used_hours_ago(KEPT - i, cubin_folder() / f"{key}.cubin")
    assert len(list(cubin_folder().iterdir())) == KEPT

    assert read_cubin(keys[0]) == CUBIN  # the oldest was used just now
    for key in keys[KEPT:]:
        write_cubin(key, CUBIN)

    kept = [keys[0], *keys[4:]]
    assert {path.stem for path in cubin_folder().iterdir()} == set(kept)
    assert [read_cubin(key) for key in keys[1:4]] == [None] * 3


def test_what_killed_processes_left_half_written_goes_too():
    cubin_folder().mkdir(parents=True)
    for i in range(KEPT):
        partial = cubin_folder() / f".{KEY}.{i:032x}"
        partial.write_bytes(b"half")
        last_used_hours_ago(KEPT - i, partial)

    write_cubin(KEY, CUBIN)

    assert not (cubin_folder() / f".{KEY}.{0:032x}").exists()
    assert len(list(cubin_folder().iterdir())) == KEPT
    assert read_cubin(KEY) == CUBIN


def test_a_folder_that_somebody_removes_meanwhile_stops_nothing(monkeypatch, caplog):
    rename = os.replace

    def and_remove(source, target):
        rename(source, target)
        shutil.rmtree(cubin_folder())

    monkeypatch.setattr(os, "replace", and_remove)

    write_cubin(KEY, CUBIN)

    assert caplog.text == ""
    assert read_cubin(KEY) is None


MANY = f"""
import logging, sys
from wavewn.engine.cubins import read_cubin, write_cubin
logging.basicConfig(level=logging.DEBUG)
for i in range(200):
    key = sys.argv[1] + str(i)
    write_cubin(key, {CUBIN!r})
    assert read_cubin(key) in (None, {CUBIN!r})
"""


def test_processes_that_write_and_remove_at_once_do_not_mind():
    here = str(Path(cubins.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": here}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, name],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]

    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(list(cubin_folder().iterdir())) <= KEPT
