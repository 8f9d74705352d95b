import os

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from wavewn.audio.io import AudioInfo, audio_info, read_audio, read_segment, write_audio
from wavewn.errors import AudioError

RATE = 16000


def tone(frequency_hz=1000.0, rate=RATE, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate * seconds)) / rate)


def naive_int16(audio):
    """Write as the careless do: 1.0 becomes 32768, which int16 wraps to -32768."""
    return (audio * 32768).astype(np.int64).astype(np.int16).astype(np.float32) / 32768


def test_full_scale_and_beyond_is_clamped_where_a_naive_cast_wraps(tmp_path):
    audio = np.array([0.0, 0.5, 1.0, 1.5, -1.0, -1.5], np.float32)
    assert naive_int16(audio)[2] == -1.0 and naive_int16(audio)[3] < 0
    write_audio(tmp_path / "a.wav", torch.from_numpy(audio), RATE)
    top = 32767 / 32768
    assert read_audio(tmp_path / "a.wav").tolist() == [0.0, 0.5, top, top, -1.0, -1.0]
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"


def test_sixteen_bits_survive_reading_and_writing_exactly(tmp_path):
    every = torch.arange(-32768, 32768, dtype=torch.float32) / 32768
    write_audio(tmp_path / "a.wav", every, RATE)
    assert torch.equal(read_audio(tmp_path / "a.wav"), every)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 1 / 128),
        ("a.wav", "PCM_16", 1 / 32768),
        ("a.wav", "PCM_24", 1 / 2**23),
        ("a.wav", "FLOAT", 0),
        ("a.flac", "PCM_16", 1 / 32768),
        ("a.flac", "PCM_24", 1 / 2**23),
        ("a.ogg", "VORBIS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats_of_soundfile_come_in_as_float32(tmp_path, name, subtype, tolerance):
    audio = tone().astype(np.float32)
    soundfile.write(tmp_path / name, audio, RATE, subtype=subtype)
    read = read_audio(tmp_path / name)
    assert read.dtype == torch.float32
    assert_close(read[1000:7000].numpy(), audio[1000:7000], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_what_we_write_can_be_read(tmp_path, name):
    write_audio(tmp_path / name, tone().astype(np.float32)[None], RATE)
    assert_close(read_audio(tmp_path / name)[1000:7000].numpy(), tone()[1000:7000].astype("f"),
                 rtol=0, atol=0.05)  # fmt: skip
    assert audio_info(tmp_path / name).sample_rate == RATE


def test_an_opus_file_holds_opus(tmp_path):
    write_audio(tmp_path / "a.opus", tone(), RATE)
    assert soundfile.info(tmp_path / "a.opus").subtype == "OPUS"
    assert read_audio(tmp_path / "a.opus").shape[0] >= len(tone())


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav").tolist() == [0.125] * 100
    info = audio_info(tmp_path / "a.wav")
    assert info == AudioInfo(sample_rate=RATE, samples=100, channels=2)
    assert info.duration_s == 100 / RATE


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_tone_keeps_its_pitch_and_level_through_resampling(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1000, rate, 1.0), rate, subtype="FLOAT")
    read = read_audio(tmp_path / "a.wav", RATE).numpy()
    assert len(read) == RATE
    middle = slice(2000, 14000)
    assert_close(read[middle], tone(1000, RATE, 1.0)[middle].astype("f"), rtol=0, atol=1e-3)


def test_resampling_suppresses_images_by_more_than_60_db(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(10_000, 44100, 1.0), 44100, subtype="FLOAT")
    # 10 kHz does not exist at 16 kHz; undamped it would come back at 6 kHz with level 0.5
    inside = read_audio(tmp_path / "a.wav", RATE)[2000:14000]
    assert inside.abs().max() < 0.5e-3
    soundfile.write(tmp_path / "b.wav", tone(3000, 8000, 1.0), 8000, subtype="FLOAT")
    spectrum = np.abs(
        np.fft.rfft(read_audio(tmp_path / "b.wav", RATE)[2000:14000].numpy() * np.hanning(12000))
    )
    hz = np.fft.rfftfreq(12000, 1 / RATE)
    assert spectrum[hz > 4000].max() < 1e-3 * spectrum.max()


def broken_files(folder):
    (folder / "text.wav").write_text("this is not audio, whatever its name says\n")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "header.wav", np.zeros(0), RATE)
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    return {
        "text.wav": "not an audio file",
        "empty.wav": "empty",
        "header.wav": "no samples",
        "nan.wav": "NaN",
        "folder.wav": "folder",
        "missing.wav": "no such file",
    }


@pytest.mark.parametrize(
    "name", ["text.wav", "empty.wav", "header.wav", "nan.wav", "folder.wav", "missing.wav"]
)
def test_a_broken_file_is_an_audio_error_with_its_cause(tmp_path, name):
    cause = broken_files(tmp_path)[name]
    with pytest.raises(AudioError, match=cause) as caught:
        read_audio(tmp_path / name)
    assert name in str(caught.value)
    with pytest.raises(AudioError, match=cause):
        read_segment(tmp_path / name, 0, 10)
    if name != "nan.wav":  # a header says nothing about NaN
        with pytest.raises(AudioError, match=cause):
            audio_info(tmp_path / name)


def test_a_truncated_flac_is_an_audio_error(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.flac", rng.uniform(-0.5, 0.5, 50_000), RATE)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="truncated|cannot be read|not an audio file"):
        read_audio(tmp_path / "a.flac")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize(
    ("start", "frames"),
    [(0, 100), (37, 200), (900, 300), (-50, 80), (-50, 2000), (5000, 10), (-90, 20), (3, 0)],
)
def test_a_segment_is_a_slice_of_the_whole_and_zero_outside(tmp_path, name, start, frames):
    soundfile.write(tmp_path / name, np.random.default_rng(1).uniform(-1, 1, (1000, 2)), RATE)
    padded = torch.nn.functional.pad(read_audio(tmp_path / name), (100, 6000))
    expected = padded[100 + start : 100 + start + frames]
    assert torch.equal(read_segment(tmp_path / name, start, frames), expected)


def test_a_segment_reads_only_what_it_needs(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros(100_000), RATE)
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, **options: asked.append(frames) or read(self, frames, **options),
    )
    read_segment(tmp_path / "a.wav", 99_950, 300)
    assert asked == [50]
    read_segment(tmp_path / "a.wav", 200_000, 300)
    assert asked == [50]


def test_a_negative_length_is_refused(tmp_path):
    with pytest.raises(AudioError, match="cannot have -1 samples"):
        read_segment(tmp_path / "a.wav", 0, -1)


def test_writing_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", torch.full((10,), 0.5), RATE)
    seen = []
    replace = os.replace

    def watch(source, target):
        seen.append(soundfile.info(source).frames)
        assert os.path.dirname(source) == str(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    write_audio(tmp_path / "a.wav", torch.zeros(20), RATE)
    assert seen == [20]

    def fail(path, *rest, **options):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(AudioError, match="No space left"):
        write_audio(tmp_path / "a.wav", torch.ones(30), RATE)
    assert torch.equal(read_audio(tmp_path / "a.wav"), torch.zeros(20))
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    ("audio", "name", "cause"),
    [
        (torch.tensor([0.0, float("nan")]), "a.wav", "1 of 2 samples are NaN"),
        (torch.tensor([float("inf"), 0.0]), "a.wav", "1 of 2 samples are NaN or infinite"),
        (torch.zeros(2, 5), "a.wav", r"must be \[samples\], got \[2, 5\]"),
        (torch.zeros(5), "a.xyz", "no audio format is called '.xyz'"),
        (torch.zeros(5), "missing/a.wav", "does the folder exist"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, audio, name, cause):
    with pytest.raises(AudioError, match=cause):
        write_audio(tmp_path / name, audio, RATE)
    assert list(tmp_path.iterdir()) == []
