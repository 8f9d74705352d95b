"""Checkpoints made to harm, or damaged: one clear error, nothing runs, no memory is lost."""

import itertools
import json
import os
import tarfile
import time

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavewn.cli.main import main
from wavewn.errors import FormatError, WavewnError
from wavewn.formats.found import find_family, read_foreign
from wavewn.source import open_source

pytestmark = pytest.mark.usefixtures("ceiling")

PATIENCE_S = 10.0
PROGRAMS = ["jik876", "speechbrain", "nemo", "coqui", "transformers"]
NUMBERS = [0, -1, 10**6, 2**62, 10**30, 1e400, float("nan"), None, "x", [], {}, [[]], True]


@pytest.fixture(scope="module", params=PROGRAMS)
def checkpoint(request, tmp_path_factory, files):
    """Give a good checkpoint: what a user names, and its files with their content."""
    folder = tmp_path_factory.mktemp(request.param)
    source = getattr(files, request.param)(folder, files.Network())
    assert open_source(source)
    return source, {path: path.read_bytes() for path in folder.iterdir()}


def answer(source):
    """Read a checkpoint as `wavewn.load` does; return what was wrong with it, or ""."""
    began = time.perf_counter()
    try:
        open_source(source)
        error = ""
    except WavewnError as caught:
        error = str(caught)
        assert len(error) < 2000
    assert time.perf_counter() - began < PATIENCE_S
    return error


@st.composite
def damage(draw, whole):
    """Do to a file what a bad copy does."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        length = len(content)
        near = st.integers(0, min(length, 300))  # where headers and small settings are
        far = near.map(lambda at, length=length: length - at)  # and directories of zip files
        at = draw(near | far | st.integers(0, length))
        what = draw(st.sampled_from(["cut", "flip", "fill", "insert", "remove"]))
        if what == "cut":
            del content[at:]
        elif what == "flip" and at < length:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "fill":
            value = bytes([draw(st.sampled_from([0, 9, 57, 127, 128, 255]))])
            content[at : at + 8] = value * len(content[at : at + 8])
        elif what == "insert":
            content[at:at] = draw(st.binary(max_size=20))
        else:
            del content[at : at + draw(st.integers(1, 40))]
    return bytes(content)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damage_to_any_file_is_an_error_or_harmless(checkpoint, data):
    source, whole = checkpoint
    path = data.draw(st.sampled_from(sorted(whole)))
    path.write_bytes(data.draw(damage(whole[path])))

    answer(source)  # and no other exception

    path.write_bytes(whole[path])


class Evil:
    """A pickle that would write a file as soon as it was read."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch '{self.canary}'",)


WEIGHTS = {
    "jik876": "g_00000010", "speechbrain": "generator.ckpt", "coqui": "best_model.pth",
    "nemo": "model_weights.ckpt", "transformers": "pytorch_model.bin",
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before zip"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pickle_that_runs_something_is_refused_and_does_not_run(program, old, tmp_path, files):
    switches = {"file": "pytorch_model.bin"} if program == "transformers" else {}
    source = getattr(files, program)(tmp_path, files.Network(), **switches)
    evil = {"generator": {"conv_pre.weight": torch.zeros(1)}, "x": Evil(tmp_path / "canary")}
    if program == "nemo":
        with tarfile.open(source) as members:
            members.extractall(tmp_path, filter="data")
        source.unlink()
        source = tmp_path
    torch.save(evil, tmp_path / WEIGHTS[program], _use_new_zipfile_serialization=not old)

    assert "never run" in answer(source)
    assert main(["convert", str(source), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "canary").exists()
    torch.load(tmp_path / WEIGHTS[program], weights_only=False)  # so that the line above can fail
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("program", ["speechbrain", "nemo"])
@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!apply:os.system", "!new:os.system", "!name:os"]
)
def test_a_tag_of_yaml_makes_nothing(program, tag, tmp_path, files):
    source = getattr(files, program)(tmp_path, files.Network())
    name = "hyperparams.yaml"
    if program == "nemo":
        with tarfile.open(source) as members:
            members.extractall(tmp_path, filter="data")
        source.unlink()
        source, name = tmp_path, "model_config.yaml"
    with (tmp_path / name).open("a") as file:
        file.write(f"evil: {tag} [touch {tmp_path / 'canary'}]\n")

    assert answer(source) == ""
    assert not (tmp_path / "canary").exists()


def values_of(config, path=()):
    """List every place in a config."""
    items = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from values_of(value, (*path, key))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("share", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_no_setting_of_any_value_does_harm(program, share, tmp_path, files):
    source = getattr(files, program)(tmp_path, files.Network())
    name = {"speechbrain": "hyperparams.yaml", "nemo": "model_config.yaml"}.get(program)
    if program == "nemo":
        with tarfile.open(source) as members:
            members.extractall(tmp_path, filter="data")
        source.unlink()
        source = tmp_path
    path = tmp_path / (name or "config.json")
    if name:
        text = path.read_text()
        whole = yaml.safe_load(text.split("__set_seed")[0])
    else:
        whole = json.loads(path.read_text().replace("// the mels", "").replace("/* more\n */", ""))
    refused = 0
    changes = list(itertools.product(values_of(whole), NUMBERS))[::share]
    for place, number in changes:
        changed = json.loads(json.dumps(whole))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = number
        path.write_text(yaml.safe_dump(changed) if name else json.dumps(changed))
        refused += answer(source) != ""

    assert refused > len(changes) / 4


BOMBS = {
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "merges": "a: &a {x: 1}\nb: {<<: *a}\n",
    "nested": "[" * 100_000,
    "tagged": "!a [" * 50_000,
    "long": "a: " + "x" * (1 << 18),
    "recursive": "upsample_factors: &a !new:x {b: *a}\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_settings_that_grow_are_nobodys(bomb, tmp_path):
    for name in ("hyperparams.yaml", "model_config.yaml"):
        (tmp_path / name).write_text(BOMBS[bomb])
    (tmp_path / "generator.ckpt").touch()
    (tmp_path / "model_weights.ckpt").touch()

    with pytest.raises(FormatError):
        read_foreign(tmp_path)


@pytest.mark.parametrize("text", ['"\\"' * 300_000, "/*" * 400_000, "[" * 900_000, "//" * 400_000])
def test_comments_without_an_end_take_no_time(text, tmp_path):
    (tmp_path / "config.json").write_text('{"generator_model": ' + text)
    began = time.perf_counter()

    assert find_family(tmp_path) is None
    assert time.perf_counter() - began < PATIENCE_S


def test_json_that_is_too_long_is_nobodys(tmp_path, files):
    files.jik876(tmp_path, files.Network())
    assert find_family(tmp_path) is not None
    files.jik876(tmp_path, files.Network(), more="x" * (1 << 20))
    assert find_family(tmp_path) is None


def test_a_tensor_that_repeats_its_numbers_is_refused(tmp_path, files):
    files.jik876(tmp_path, files.Network())
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"generator": {"conv_pre.weight": huge, "b": huge}}, tmp_path / "g_00000010")

    assert "repeats its numbers" in answer(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path, files):
    network = files.Network()
    g, v, bias = network.layers["ups.1"]
    for broken, cause in [
        ((g, v * float("nan"), bias), "non-finite direction in 'ups.1'"),
        ((g, v * 0, bias), "zero or non-finite direction in 'ups.1'"),
        ((g, v, bias / 0), "'ups.1.bias' holds NaN or infinite"),
        ((g, v, bias.int()), r"'ups.1.bias' is torch.int32, expected a float"),
    ]:
        network.layers["ups.1"] = broken
        assert cause in answer(files.jik876(tmp_path, network))
