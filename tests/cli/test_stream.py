"""`wavewn stream` gives the samples of `wavewn synth` as they come, of files and through pipes."""

import contextlib
import dataclasses
import io
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import wavewn
from wavewn.audio.io import read_audio
from wavewn.audio.mel_convert import grid_shift
from wavewn.audio.mel_presets import PRESETS
from wavewn.cli.main import main

HOP = 20
BORIS = ["--speaker", "boris"]


@pytest.fixture
def mel(spec):
    """12 frames [bands, frames]."""
    values = np.random.default_rng(0).normal(-4, 2, (spec.n_mels, 12))
    return np.clip(values, spec.log_floor, 0).astype(np.float32)


@pytest.fixture
def file(tmp_path, mel):
    np.save(tmp_path / "a.npy", mel)
    return tmp_path / "a.npy"


@pytest.fixture
def whole(voice, file, tmp_path):
    """What `wavewn synth` makes of it."""
    assert main(["synth", str(voice), str(file), "-o", str(tmp_path / "whole.wav"), *BORIS]) == 0
    return tmp_path / "whole.wav"


def stream(*arguments):
    return main(["stream", *map(str, arguments), *BORIS])


class Pipe(io.BytesIO):
    def isatty(self):
        return False


@pytest.fixture
def pipes(monkeypatch):
    """Put bytes on stdin; return what comes out of stdout."""

    def connect(given=b""):
        out = Pipe()
        out.buffer = out
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe(given), isatty=bool))
        monkeypatch.setattr(sys, "stdout", out)
        return out

    return connect


@pytest.mark.parametrize("frames", [1, 5, 100])
def test_a_file_grows_to_the_file_of_synth(voice, file, whole, tmp_path, capsys, frames):
    capsys.readouterr()
    assert stream(voice, file, "-o", tmp_path / "b.wav", "--frames", frames) == 0

    assert (tmp_path / "b.wav").read_bytes() == whole.read_bytes()
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert re.fullmatch(
        r"0\.01 s of audio at 16000 Hz, latency 40 samples \(2\.5 ms\), first audio after \d+ ms, "
        r"rtf \d+\.\d{3}, engine (native|reference), float32",
        err.strip(),
    )
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("frames", [1, 7])
def test_raw_frames_become_raw_samples(voice, mel, whole, pipes, frames):
    out = pipes(mel.T.astype("<f4").tobytes())
    assert stream(voice, "--frames", frames) == 0

    samples = np.frombuffer(out.getvalue(), "<i2")
    assert samples.tobytes() == whole.read_bytes()[44:]
    assert samples.shape == (12 * HOP,)


def test_float_samples_are_those_of_python(voice, file, tmp_path, mel, pipes):
    out = pipes()
    assert stream(voice, file, "--format", "f32") == 0
    assert stream(voice, file, "--format", "f32", "-o", tmp_path / "f.wav") == 0

    audio = wavewn.load(voice).synthesize(mel, speaker="boris")[0]
    assert out.getvalue() == audio.numpy().tobytes()
    assert (read_audio(tmp_path / "f.wav") == audio).all()


@pytest.mark.parametrize(
    "change", [["--seed", "1"], ["--temperature", "0.5"], ["--speaker", "anna"]]
)
def test_every_option_is_heard(voice, file, pipes, change):
    one = pipes()
    assert main(["stream", str(voice), str(file), *BORIS, *change]) == 0
    other = pipes()
    assert stream(voice, file) == 0

    assert len(one.getvalue()) == len(other.getvalue()) == 2 * 12 * HOP
    assert one.getvalue() != other.getvalue()


def test_audio_comes_as_soon_as_it_is_determined(voice, mel, pipes, monkeypatch):
    """Each frame is answered before the next is read, two frames late."""
    out = pipes()
    had = []

    class Slow(Pipe):
        def read(self, size=-1):
            had.append(len(out.getvalue()))
            return super().read(size)

    sys.stdin.buffer = Slow(mel.T.tobytes())
    assert stream(voice) == 0

    assert had == [2 * HOP * max(frame - 2, 0) for frame in range(13)]


def test_the_growing_file_can_be_played(voice, file, tmp_path, monkeypatch):
    lengths = []

    def spied(call):
        def spy(*arguments, **options):
            partial = tmp_path / ".a.wav.partial"
            if partial.stat().st_size > 44:
                (tmp_path / "copy.wav").write_bytes(partial.read_bytes())
                lengths.append(len(read_audio(tmp_path / "copy.wav")))
            return call(*arguments, **options)

        return spy

    for name in ("push", "finish"):
        monkeypatch.setattr(wavewn.Stream, name, spied(getattr(wavewn.Stream, name)))
    assert stream(voice, file, "-o", tmp_path / "a.wav", "--frames", "4") == 0

    assert lengths == [2 * HOP, 6 * HOP, 10 * HOP]


def test_a_truncated_frame_is_named_by_its_bytes(voice, mel, pipes, tmp_path, capsys):
    pipes(mel.T.tobytes()[:-3])

    assert stream(voice, "-o", tmp_path / "a.wav", "--frames", "5") == 2

    error = capsys.readouterr().err
    assert "29 bytes came after 11 whole frames of 32 (8 bands of float32)" in error
    assert not (tmp_path / "a.wav").exists() and not list(tmp_path.glob(".a*"))


def test_no_frames_at_all_are_named(voice, pipes, capsys):
    pipes()
    assert stream(voice) == 2
    assert "no frame came; give at least one" in capsys.readouterr().err


def test_nonsense_in_the_pipe_is_named(voice, mel, pipes, capsys):
    mel[3, 4] = float("nan")
    out = pipes(mel.T.tobytes())

    assert stream(voice) == 2

    assert "NaN or infinite values" in capsys.readouterr().err
    assert len(out.getvalue()) == 2 * 2 * HOP


def test_ctrl_c_keeps_what_was_said(voice, mel, whole, pipes, tmp_path, monkeypatch, capsys):
    pipes()

    class Interrupted(Pipe):
        def read(self, size=-1):
            if self.tell() >= 8 * 32:
                raise KeyboardInterrupt
            return super().read(size)

    sys.stdin.buffer = Interrupted(mel.T.tobytes())
    assert stream(voice, "-o", tmp_path / "a.wav") == 130

    spoken = read_audio(tmp_path / "a.wav")
    assert (spoken == read_audio(whole)[: 6 * HOP]).all() and len(spoken) == 6 * HOP
    error = capsys.readouterr().err.splitlines()
    assert error[-2].startswith("0.01 s of audio") and error[-1] == "wavewn: interrupted"


def test_a_mel_of_another_grid_is_streamed_late(
    voice, spec, file, whole, tmp_path, monkeypatch, capsys
):
    other = dataclasses.replace(spec, grid="centred")
    monkeypatch.setitem(PRESETS, "other", other)

    assert stream(voice, file, "-o", tmp_path / "b.wav", "--mel-from", "other") == 0

    late = grid_shift(other, spec)
    assert late > 0
    assert f"{late} samples behind its recording" in capsys.readouterr().err
    assert (tmp_path / "b.wav").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.npy", "-o", "b.flac"], "--out must be a .wav file, or - for stdout, got"),
        (["a.npy", "-o", "there.wav"], "there.wav exists already; choose another"),
        (["-", "-o", "there.wav"], "there.wav exists already; choose another"),
        (["none.npy", "-o", "b.wav"], "no such file or folder"),
        ([".", "-o", "b.wav"], "is a folder; name one file"),
        (["a.npy", "-o", "b.wav", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["-", "-o", "b.wav", "--mel-from", "tacotron2"], "--mel-from converts files"),
        (["a.npy", "-o", "b.wav", "--mel-from", "taco"], "no mel preset is"),
        (["a.npy", "-o", "b.wav", "--engine", "warp"], "no engine 'warp'"),
        (["a.npy", "-o", "b.wav", "--engine", "reference", "--precision", "int8"], "float32 alone"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    voice, file, tmp_path, pipes, capsys, monkeypatch, arguments, message
):
    pipes()
    (tmp_path / "there.wav").write_text("precious")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    assert stream(voice, *arguments) == 2

    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.wav").read_text() == "precious"


def test_terminals_get_no_bytes(voice, file, pipes, monkeypatch, capsys):
    out = pipes()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert stream(voice) == 2
    assert "no frames on stdin" in capsys.readouterr().err
    monkeypatch.setattr(out, "isatty", lambda: True)
    assert stream(voice, file) == 2
    assert "stdout is a terminal" in capsys.readouterr().err


@pytest.fixture
def process(voice):
    """`wavewn stream` as a shell starts it, with pipes at both ends.

    A shell's background jobs ignore SIGINT, and so do their children, unless somebody listens.
    """
    command = [sys.executable, "-m", "wavewn.cli.main", "stream", str(voice), "--speaker", "0"]
    pipe = subprocess.PIPE
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        contextlib.suppress(BrokenPipeError),  # of frames that nobody has read
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process,
    ):
        signal.signal(signal.SIGINT, before)
        yield process
        process.kill()


def test_a_closed_pipe_is_quiet(process, mel):
    process.stdin.write(mel.T.tobytes())
    process.stdin.flush()
    assert len(process.stdout.read(2 * HOP)) == 2 * HOP
    process.stdout.close()
    for _ in range(2000):
        try:
            process.stdin.write(mel.T.tobytes())
            process.stdin.flush()
        except BrokenPipeError:
            break

    assert process.wait(timeout=120) == 141
    assert b"Traceback" not in process.stderr.read()


def test_a_signal_ends_it_with_one_line(process, mel):
    process.stdin.write(mel.T.tobytes())
    process.stdin.flush()
    assert len(process.stdout.read(2 * 10 * HOP)) == 2 * 10 * HOP

    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=120) == 130
    error = process.stderr.read()
    assert error.endswith(b"wavewn: interrupted\n") and b"Traceback" not in error
