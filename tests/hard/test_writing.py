"""Disks that are full, folders that cannot be written, and two processes with one target."""

import multiprocessing
import os
import resource
import time

import pytest
import torch
import yaml
from torch.testing import assert_close

from wavewn.audio.io import read_audio, write_audio
from wavewn.bundle import load_bundle, save_bundle
from wavewn.cli.main import main
from wavewn.data.manifest import Utterance, load_manifest, save_manifest
from wavewn.errors import TrainingError, WavewnError
from wavewn.evaluation import compare
from wavewn.lock import lock
from wavewn.training.callbacks import WholeFiles

RATE = 16000
ROUNDS = 15
fork = multiprocessing.get_context("fork")


def loud(level, samples=4000):
    return torch.full((samples,), level)


def corpus(folder, speaker, count=40):
    """Splits whose every line tells who wrote it."""
    found = [Utterance(folder / "a.wav", 100, RATE, speaker, "a sentence of words " * 4)] * count
    return {"train": found, "valid": found[:2], "test": found[:2]}


def tree(folder):
    """Every path below `folder` with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class Writers:
    """One way to write each kind of output into a folder, over what is there."""

    def __init__(self, model, spec):
        self.model, self.spec = model, spec

    def audio(self, folder, level=0.5):
        write_audio(folder / "out.wav", loud(level), RATE)

    def manifest(self, folder, name="anna"):
        save_manifest(folder / "m", corpus(folder, name), [], name, force=True)

    def bundle(self, folder, name="anna"):
        save_bundle(folder / "v", self.model, self.spec, licence=name, force=True)

    def checkpoint(self, folder, level=0.5):
        WholeFiles().save_checkpoint({"weights": loud(level)}, folder / "last.ckpt")

    def table(self, folder):
        compare._replace(folder / "metrics.json", "x" * 10_000)


KINDS = ["audio", "manifest", "bundle", "checkpoint", "table"]


@pytest.fixture
def writers(model, spec):
    return Writers(model, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_full_disk_the_old_file_stays_and_no_litter(writers, kind, tmp_path, request):
    write = getattr(writers, kind)
    (tmp_path / "a.wav").touch()
    write(tmp_path)
    before = tree(tmp_path)
    request.getfixturevalue("full_disk")

    with pytest.raises(WavewnError):
        write(tmp_path)

    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_cannot_be_written_is_a_clear_error(writers, kind, tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(WavewnError, match="file"):
        getattr(writers, kind)(tmp_path / "file" / "deeper")

    assert tree(tmp_path) == {tmp_path / "file": b"not a folder"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_permission_is_a_clear_error(writers, kind, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a.wav").touch()
    folder.chmod(0o500)

    with pytest.raises(WavewnError):
        getattr(writers, kind)(folder)

    folder.chmod(0o700)
    assert [path.name for path in folder.iterdir()] == ["a.wav"]


def test_a_training_on_a_full_disk_stops_with_one_line_and_can_go_on(tmp_path, request):
    target = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, target)
    request.getfixturevalue("full_disk")

    with pytest.raises(TrainingError, match="cannot be written .*free some space, then --resume"):
        WholeFiles().save_checkpoint({"weights": loud(0.5)}, target)

    assert WholeFiles().load_checkpoint(target) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_stream_that_fills_the_disk_leaves_nothing(model, spec, tmp_path, capsys, request):
    save_bundle(tmp_path / "v", model, spec)
    write_audio(tmp_path / "in.wav", loud(0.1, 3000), spec.sample_rate)
    before = tree(tmp_path)
    command = ["stream", str(tmp_path / "v"), str(tmp_path / "in.wav"), "-o"]
    request.getfixturevalue("full_disk")

    assert main([*command, str(tmp_path / "out.wav")]) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert "out.wav: cannot be written" in error
    assert tree(tmp_path) == before


def in_turns(first, second):
    """Run two writers many times in two processes at once; return what went wrong in each."""
    start = fork.Barrier(2)
    results = fork.Queue()

    def go(write):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        problems = []
        start.wait(60)
        for _ in range(ROUNDS):
            try:
                write()
            except WavewnError as error:
                problems.append(str(error))
        results.put(problems)

    processes = [fork.Process(target=go, args=(write,)) for write in (first, second)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return found


def test_two_writers_of_a_recording_leave_one_of_the_two(writers, tmp_path):
    found = in_turns(lambda: writers.audio(tmp_path, 0.5), lambda: writers.audio(tmp_path, -0.25))

    assert found == [[], []]
    audio = read_audio(tmp_path / "out.wav")
    assert_close(audio, loud(float(audio[0])))
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_two_writers_of_a_manifest_leave_one_of_the_two(writers, tmp_path):
    (tmp_path / "a.wav").touch()
    found = in_turns(
        lambda: writers.manifest(tmp_path, "anna"), lambda: writers.manifest(tmp_path, "boris")
    )

    assert all("another process" in problem for one in found for problem in one)
    parts = [load_manifest(tmp_path / "m", split) for split in ("train", "valid", "test")]
    assert len({one.speaker for part in parts for one in part}) == 1
    assert not list((tmp_path / "m").glob(".*"))


def test_two_writers_of_a_bundle_leave_one_of_the_two(writers, tmp_path):
    in_turns(lambda: writers.bundle(tmp_path, "anna"), lambda: writers.bundle(tmp_path, "boris"))

    licence = load_bundle(tmp_path / "v").config["licence"]
    assert licence in (tmp_path / "v/README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_without_force_the_second_bundle_replaces_nothing(writers, tmp_path, monkeypatch):
    def too_late(folder, force):
        if not folder.exists():  # checked; meanwhile another process writes
            monkeypatch.undo()
            writers.bundle(tmp_path, "anna")

    monkeypatch.setattr("wavewn.bundle.folder.check_target", too_late)

    with pytest.raises(WavewnError, match="cannot be written"):
        save_bundle(tmp_path / "v", writers.model, writers.spec, licence="boris")

    assert load_bundle(tmp_path / "v").config["licence"] == "anna"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


@pytest.fixture
def locked():
    """Hold a lock in another process; give the process."""
    ready = fork.Event()
    processes = []

    def hold(path):
        with lock(path):
            ready.set()
            time.sleep(600)

    def start(path):
        processes.append(fork.Process(target=hold, args=(path,)))
        processes[0].start()
        assert ready.wait(60)
        return processes[0]

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_a_locked_folder_is_refused_and_the_lock_dies_with_its_holder(locked, tmp_path):
    holder = locked(tmp_path / ".lock")
    with pytest.raises(WavewnError, match="another process is writing into"):
        with lock(tmp_path / ".lock"):
            pass

    holder.kill()
    holder.join()

    with lock(tmp_path / ".lock"):
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_do_not_share_a_folder(locked, tmp_path, capsys):
    corpus_folder = tmp_path / "corpus"
    corpus_folder.mkdir()
    write_audio(corpus_folder / "a.wav", 0.1 * torch.randn(8000), 4000)
    found = [Utterance(corpus_folder / "a.wav", 8000, 4000)]
    save_manifest(corpus_folder, {"train": found, "valid": found, "test": found}, [], "x")
    mel = {"sample_rate": 4000, "n_fft": 128, "hop_length": 50, "win_length": 128, "n_mels": 8}
    sizes = dict.fromkeys(("residual_channels", "skip_channels", "head_channels"), 8)
    recipe = {
        "data": {"manifest": str(corpus_folder), "frames": 8, "batch_size": 1, "workers": 0},
        "mel": {**mel, "f_max": 2000.0},
        "model": {**sizes, "cycles": 1, "layers_per_cycle": 3, "condition": {"channels": 8}},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "precision": "32-true"},
        "clips": {"every": 0},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "run").mkdir()
    locked(tmp_path / "run/.lock")

    assert main(["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]) == 2

    assert "another process is writing into" in capsys.readouterr().err
    assert not (tmp_path / "run/recipe.yaml").exists()
