"""Audio files: the only file that touches soundfile.

Whatever libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...) comes in as float32 mono; a broken
file is an `AudioError` that says what to do. Written files never wrap around at full scale and
never appear half: they are written beside their place and renamed.
"""

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from wavewn.errors import AudioError

BLOCK = 1 << 20  # numbers; a header may claim any length, so files are read block by block
LONGEST = 1 << 29  # samples of a file in memory, 2 GiB; three hours at 48 kHz
RATES_HZ = (1000, 1_000_000)  # a rate outside would make resampling endless
UNKNOWN = (1 << 63) - 1  # libsndfile's length of a FLAC file that was written as a stream


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        sample_rate: In Hz.
        samples: Length in samples per channel.
        channels: Number of channels.
    """

    sample_rate: int
    samples: int
    channels: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


def audio_info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        AudioError: The file is missing, empty or not audio.
    """
    with _open(path) as file:
        return AudioInfo(file.samplerate, file.frames, file.channels)


def read_audio(path: str | os.PathLike[str], sample_rate: int | None = None) -> Tensor:
    """Read a whole file as mono.

    Args:
        path: Any file that libsndfile reads; channels are averaged.
        sample_rate: In Hz; the audio is resampled to it. None keeps the file's own.

    Returns:
        [samples], float32, in [-1, 1] unless a float file goes beyond.

    Raises:
        AudioError: The file is missing, empty, broken, not audio, holds NaN, or is longer than
            `LONGEST` samples.
    """
    with _open(path) as file:
        rate = file.samplerate
        expected = file.frames
        estimated = file.format == "MP3"  # the length of a variable bit rate is a guess
        blocks: list[np.ndarray] = []
        length = 0 if estimated else expected
        while length <= LONGEST and len(block := _read(file, path, BLOCK // file.channels)):
            blocks.append(block)
            length = max(length, sum(map(len, blocks)))
    if length * max(1.0, (sample_rate or rate) / rate) > LONGEST:
        raise AudioError(
            f"{path}: {length} samples at {rate} Hz are more than the {LONGEST} that fit into "
            "memory; cut it into shorter files"
        )
    audio = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if len(audio) < expected and not estimated:
        raise AudioError(
            f"{path}: the header promises {expected} samples, {len(audio)} could be read; "
            "the file is truncated, copy or convert it again"
        )
    if sample_rate is not None and sample_rate != rate:
        audio = _resample(audio, rate, sample_rate)
    return torch.from_numpy(audio)


def read_segment(path: str | os.PathLike[str], start: int, frames: int) -> Tensor:
    """Read `frames` samples from `start` on, as mono at the file's own rate.

    Only these samples are decoded (compressed formats: and what their seeking needs). What lies
    outside the file is zero, on both sides; `start` may be negative.

    Returns:
        [frames], float32.

    Raises:
        AudioError: As `read_audio`.
    """
    if frames < 0:
        raise AudioError(f"{path}: a segment cannot have {frames} samples")
    segment = np.zeros(frames, np.float32)
    with _open(path) as file:
        first = max(start, 0)
        wanted = min(start + frames, file.frames) - first
        if wanted > 0:
            try:
                file.seek(first)
            except soundfile.LibsndfileError as error:
                raise _broken(path, error) from None
            block = _read(file, path, wanted)
            segment[first - start : first - start + len(block)] = block
    return torch.from_numpy(segment)


def write_audio(
    path: str | os.PathLike[str],
    audio: Tensor | np.ndarray,
    sample_rate: int,
    subtype: str | None = None,
) -> None:
    """Write mono audio; values beyond full scale are clamped, they never wrap around.

    Args:
        path: The suffix chooses the format; an existing file is replaced whole or not at all.
        audio: [samples] or [1, samples], full scale is [-1, 1].
        sample_rate: In Hz.
        subtype: libsndfile's name of the encoding, such as "PCM_24" or "FLOAT". None means
            16 bits where the format has them, else the format's default.

    Raises:
        AudioError: The audio is not finite or not mono, or the file cannot be written.
    """
    path = Path(path)
    samples = torch.as_tensor(audio).detach().to("cpu", torch.float32).numpy()
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise AudioError(f"{path}: audio must be [samples], got {list(samples.shape)}")
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise AudioError(f"{path}: {count} of {len(samples)} samples are NaN or infinite")
    form = path.suffix[1:].upper()
    form = {"AIF": "AIFF", "OPUS": "OGG"}.get(form, form)
    if form not in soundfile.available_formats() or form == "RAW":
        raise AudioError(f"{path}: no audio format is called {path.suffix!r}; use .wav or .flac")
    if subtype is None:
        if path.suffix.lower() == ".opus":
            subtype = "OPUS"  # an OGG file would hold Vorbis
        elif soundfile.check_format(form, "PCM_16"):
            subtype = "PCM_16"
    if subtype == "PCM_16":
        # 1.0 would be 32768, one more than int16 holds; this scale is the one of reading.
        samples = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    else:
        samples = np.clip(samples, -1.0, 1.0)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        soundfile.write(temporary, samples, int(sample_rate), subtype=subtype, format=form)
        os.replace(temporary, path)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioError(
            f"{path}: cannot be written ({error}); does the folder exist, and does "
            f"{form} know {subtype or 'this encoding'} at {sample_rate} Hz?"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _open(path: str | os.PathLike[str]) -> soundfile.SoundFile:
    path = Path(path)
    if path.is_dir():
        raise AudioError(f"{path}: expected an audio file, this is a folder")
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); copy or record it again")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise _broken(path, error) from None
    if file.frames == 0:
        file.close()
        raise AudioError(f"{path}: the file holds no samples, only a header; record it again")
    if file.frames == UNKNOWN:
        file.close()
        raise AudioError(
            f"{path}: the header does not tell the length, as when a program writes into a pipe; "
            "convert the file again, for example with ffmpeg"
        )
    if not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
        rate = file.samplerate
        file.close()
        raise AudioError(f"{path}: the header claims {rate} Hz, no rate of speech; repair the file")
    return file


def _read(file: soundfile.SoundFile, path: str | os.PathLike[str], frames: int) -> np.ndarray:
    try:
        block = file.read(frames, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise _broken(path, error) from None
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; repair or leave out the file")
    return mono


def _resample(audio: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    if sample_rate < 1:
        raise AudioError(f"sample_rate must be at least 1 Hz, got {sample_rate}")
    import librosa

    audio = librosa.resample(audio, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.ascontiguousarray(audio, dtype=np.float32)


def _broken(path: str | os.PathLike[str], error: Exception) -> AudioError:
    return AudioError(
        f"{path}: not an audio file that libsndfile can read ({error}); "
        "convert it to WAV or FLAC, for example with ffmpeg"
    )
