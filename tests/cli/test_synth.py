"""`wavewn synth` gives the samples of `wavewn.load`, one file or many at once."""

import dataclasses

import numpy as np
import pytest
import torch

import wavewn
from wavewn.audio.io import read_audio, write_audio
from wavewn.audio.mel_convert import grid_shift
from wavewn.audio.mel_presets import PRESETS
from wavewn.cli.main import main

RATE = 16000
ROUNDING = 0.5 / 32768  # of 16 bits


@pytest.fixture
def recording(tmp_path):
    """0.03 s of noise at the voice's rate: 24 frames."""
    torch.manual_seed(1)
    write_audio(tmp_path / "noise.wav", 0.1 * torch.randn(480), RATE)
    return tmp_path / "noise.wav"


@pytest.fixture
def mels(tmp_path, spec):
    """A folder with mels of different lengths in every format, one of them in a sub-folder."""
    folder = tmp_path / "mels"
    (folder / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    long, short = (
        np.clip(rng.normal(-4, 2, (spec.n_mels, n)), spec.log_floor, 0).astype(np.float32)
        for n in (12, 7)
    )
    np.save(folder / "long.npy", long)
    np.savez(folder / "zip.npz", mel=short)
    torch.save(torch.from_numpy(short), folder / "b/tensor.pt")
    (folder / "notes.txt").write_text("not for us")
    return folder


def synth(*arguments):
    return main(["synth", *map(str, arguments), "--speaker", "boris"])


def test_a_recording_is_copied_as_in_python(voice, recording, tmp_path, capsys):
    assert synth(voice, recording, "-o", tmp_path / "out") == 0

    vocoder = wavewn.load(voice)
    audio = vocoder.synthesize(
        vocoder.mel(read_audio(recording, vocoder.sample_rate)), speaker="boris", seed=0
    )
    written = read_audio(tmp_path / "out/noise.wav")
    assert written.shape == (480,)
    torch.testing.assert_close(written, audio[0].clamp(-1, 1), rtol=0, atol=2 * ROUNDING)
    write_audio(tmp_path / "python.wav", audio[0], vocoder.sample_rate)
    assert (tmp_path / "out/noise.wav").read_bytes() == (tmp_path / "python.wav").read_bytes()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{tmp_path / 'out/noise.wav'}: 0.03 s"
    assert "1 file(s), 0.03 s of audio" in out[1]
    assert f"x real time, engine {vocoder.engine.name}, float32)" in out[1]


def test_many_files_sound_as_each_alone(voice, recording, mels, tmp_path):
    out = tmp_path / "out"
    assert synth(voice, mels, recording, "-o", out, "--seed", 3) == 0

    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.wav"))
    assert names == ["b/tensor.wav", "long.wav", "noise.wav", "zip.wav"]
    for source, name in ((mels / "zip.npz", "zip"), (recording, "noise")):
        assert synth(voice, source, "-o", tmp_path / "alone.wav", "--seed", 3, "--force") == 0
        assert (tmp_path / "alone.wav").read_bytes() == (out / f"{name}.wav").read_bytes()


def test_a_mel_of_another_definition_is_converted(voice, spec, mels, tmp_path, monkeypatch):
    log10 = dataclasses.replace(spec, log_base="10", mean=-2.0, scale=0.5)
    monkeypatch.setitem(PRESETS, "other", log10)
    np.save(tmp_path / "other.npy", (np.load(mels / "long.npy").T / np.log(10) + 2) / 0.5)

    assert synth(voice, mels / "long.npy", "-o", tmp_path / "a.wav") == 0
    other = tmp_path / "other.npy"
    assert synth(voice, other, "-o", tmp_path / "b.wav", "--mel-from", "other") == 0

    a, b = (read_audio(tmp_path / name) for name in ("a.wav", "b.wav"))
    assert float((a == b).float().mean()) > 0.9  # rounding may tip a draw


def test_audio_of_a_mel_on_another_grid_is_moved_to_its_recordings_place(
    voice, spec, mels, tmp_path, monkeypatch
):
    other = dataclasses.replace(spec, grid="centred")
    monkeypatch.setitem(PRESETS, "other", other)
    late = grid_shift(other, spec)
    assert late > 0

    source = mels / "long.npy"
    assert synth(voice, source, "-o", tmp_path / "a.wav") == 0
    assert synth(voice, source, "-o", tmp_path / "b.wav", "--mel-from", "other") == 0
    a, b = (read_audio(tmp_path / name) for name in ("a.wav", "b.wav"))
    assert a.shape == b.shape and bool((b[:-late] == a[late:]).all()) and not b[-late:].any()


def test_a_mel_that_only_looks_right_is_refused_with_what_it_looks_like(
    voice, mels, tmp_path, capsys
):
    mel = np.clip(np.load(mels / "long.npy"), -4, None)
    np.save(tmp_path / "clipped.npy", mel)

    assert synth(voice, tmp_path / "clipped.npy", "-o", tmp_path / "out") == 2

    error = capsys.readouterr().err
    assert "clipped.npy" in error and "rest at -4, and silence is -11.513" in error
    assert "it is likely normalised to [-4, 4]" in error


@pytest.mark.parametrize(
    "change", [["--seed", "1"], ["--temperature", "0.5"], ["--speaker", "anna"]]
)
def test_every_option_is_heard(voice, mels, tmp_path, change):
    arguments = [str(voice), str(mels / "long.npy"), "-o"]
    assert main(["synth", *arguments, str(tmp_path / "a.wav"), "--speaker", "1"]) == 0
    options = ["--speaker", "boris", *change]
    assert main(["synth", *arguments, str(tmp_path / "b.wav"), *options]) == 0
    assert main(["synth", *arguments, str(tmp_path / "c.wav"), "--speaker", "boris"]) == 0

    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a != b
    assert a == c


def test_nothing_is_overwritten_without_force(voice, mels, tmp_path, capsys):
    (tmp_path / "long.wav").write_text("precious")

    assert synth(voice, mels / "long.npy", "-o", tmp_path) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "long.wav").read_text() == "precious"

    assert synth(voice, mels / "long.npy", "-o", tmp_path, "--force") == 0
    assert read_audio(tmp_path / "long.wav").shape == (240,)


def test_an_input_is_never_replaced(voice, recording, capsys):
    before = recording.read_bytes()

    assert synth(voice, recording, "-o", recording.parent, "--force") == 2
    assert "is an input and is not replaced" in capsys.readouterr().err
    assert recording.read_bytes() == before


def test_a_broken_file_stops_no_others(voice, mels, tmp_path, capsys, caplog):
    (mels / "broken.wav").write_text("no audio at all")
    np.save(mels / "turned.npy", np.load(mels / "long.npy").T)

    assert synth(voice, mels, "-o", tmp_path / "out") == 2

    assert len(list((tmp_path / "out").rglob("*.wav"))) == 3
    captured = capsys.readouterr()
    assert "3 file(s)" in captured.out
    assert "2 of 5 inputs were left out; first:" in captured.err
    assert "turned.npy" in caplog.text and "transposed" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mels: [mels, "-o", mels / "one.wav"], "is one file, there are 3 inputs"),
        (lambda mels: [mels / "long.npy", "-o", mels / "one.flac"], "only wav files are written"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--seed", -1], "seed must be a whole number"),
        (lambda mels: [mels / "none.npy", "-o", mels], "no such file or folder"),
        (lambda mels: [mels / "empty", "-o", mels], "holds neither mel files nor recordings"),
        (lambda mels: [mels / "long.npy", mels / "long.npz", "-o", mels], "would both become"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--mel-from", "taco"], "no mel preset is"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--mel-from", "tacotron2"], "expected 80"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--batch", 0], "--batch must be at least 1"),
        (lambda mels: [mels / "long.npy", "-o", mels / "notes.txt"], "cannot write to"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--speaker", "clara"], "no speaker 'clara'"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--engine", "warp"], "no engine 'warp'"),
        (lambda mels: [mels / "long.npy", "-o", mels, "--threads", 0], "threads must be at least"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(voice, mels, capsys, make, message):
    (mels / "empty").mkdir()
    np.savez(mels / "long.npz", mel=np.load(mels / "zip.npz")["mel"])
    (mels / "zip.npz").unlink()
    before = sorted(mels.rglob("*"))
    arguments = [str(one) for one in make(mels)]
    if "--speaker" not in arguments:
        arguments += ["--speaker", "anna"]

    assert main(["synth", str(voice), *arguments]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert sorted(mels.rglob("*")) == before


def test_a_recording_shorter_than_a_frame_is_named(voice, tmp_path, capsys):
    write_audio(tmp_path / "click.wav", torch.ones(19), RATE)

    assert synth(voice, tmp_path / "click.wav", "-o", tmp_path / "out") == 2
    assert "19 samples at 16000 Hz are shorter than a mel frame (20)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
