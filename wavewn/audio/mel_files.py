"""Mel spectrograms in files: npy, npz, pt and h5.

These files come from other people's programs, so nothing in them is ever executed: numpy reads
without pickle, torch with `weights_only=True`.
"""

import os
import pickle
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavewn.audio.mel import MelSpec, check_mel
from wavewn.errors import MelError
from wavewn.torch_file import load_torch_file

NUMPY_ERRORS = (  # what numpy.load raises on files that are cut, edited or no numpy files
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,  # a header may claim any shape
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    SyntaxError,
    TypeError,
    OverflowError,
    RecursionError,
)
H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, AttributeError)
LARGEST = 1 << 30  # bytes; nine hours of 80 bands. What unpacks to more is no mel but an attack
KEYS = ("mel", "feats")  # names of the array where a file holds several


def load_mel(path: str | os.PathLike[str], spec: MelSpec | None = None) -> Tensor:
    """Read a mel spectrogram.

    Args:
        path: .npy; .npz or .h5/.hdf5 with one array or one called "mel" or "feats"; .pt/.pth
            with a tensor or a dict of tensors, read likewise.
        spec: If given, the mel is checked against it, see `mel.check_mel`.

    Returns:
        [bands, frames], float32; a leading axis of 1 is dropped.

    Raises:
        MelError: The file is missing, broken, not a mel, or not what `spec` says.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise MelError(f"{path}: no mel file is called {path.suffix!r}; expected one of {known}")
    if not path.is_file():
        raise MelError(f"{path}: no such file; check the path")
    if reader is not _read_h5:  # which reads no more of a file than the mel
        _check_size(path.stat().st_size, path)
    mel = torch.as_tensor(_pick(reader(path), path))
    if mel.dim() == 3 and mel.shape[0] == 1:
        mel = mel[0]
    if mel.dim() != 2 or not mel.is_floating_point() or mel.numel() == 0:
        raise MelError(
            f"{path}: expected [bands, frames] or [1, bands, frames] in floating point, "
            f"got {list(mel.shape)} {mel.dtype}"
        )
    mel = mel.detach().float().contiguous()
    if spec is not None:
        try:
            check_mel(mel, spec)
        except MelError as error:
            raise MelError(f"{path}: {error}") from None
    return mel


def _pick(content: Any, path: Path) -> Tensor | np.ndarray:
    """Choose the mel among what a file holds."""
    if isinstance(content, Mapping):
        named = [key for key in KEYS if key in content]
        keys = named[:1] or list(content)
        if len(keys) != 1:
            raise MelError(
                f"{path}: holds {[str(key) for key in content]}, which of them is the mel? "
                'Name it "mel", or keep one array in the file'
            )
        content = content[keys[0]]
    if isinstance(content, np.ndarray) and content.dtype.kind == "f":
        return content.astype(np.float32)
    if isinstance(content, Tensor):
        return content
    kind = getattr(content, "dtype", type(content).__name__)
    raise MelError(f"{path}: expected an array of floating point numbers, got {kind}")


def _read_numpy(path: Path) -> Any:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            _check_size(sum(one.file_size for one in content.zip.infolist()), path)
            return {key: content[key] for key in content.files}
    except NUMPY_ERRORS as error:
        raise _broken(path, error, "numpy.save or numpy.savez, arrays of numbers only") from None


def _read_torch(path: Path) -> Any:
    try:
        return load_torch_file(path)
    except pickle.UnpicklingError:
        first = "it holds more than tensors, and pickled code is never run"
    except ValueError as error:
        first = str(error)
    raise _broken(path, first, "torch.save(mel_tensor, path)")


def _read_h5(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise MelError(f"{path}: reading HDF5 needs h5py: pip install wavewn[h5]") from None
    try:
        with h5py.File(path, "r") as file:
            found = {k: v for k, v in file.items() if isinstance(v, h5py.Dataset)}
            floats = {k: v for k, v in found.items() if v.dtype.kind == "f" and v.shape is not None}
            _check_size(sum(v.nbytes for v in floats.values()), path)
            return {k: v[()] if k in floats else np.empty(0, v.dtype) for k, v in found.items()}
    except H5_ERRORS as error:
        raise _broken(path, error, "h5py, with a dataset called 'mel'") from None


def _check_size(size: int, path: Path) -> None:
    if size > LARGEST:
        raise MelError(f"{path}: holds {size} bytes, a mel at most {LARGEST}; is it one?")


def _broken(path: Path, error: object, how: str) -> MelError:
    return MelError(f"{path}: cannot be read ({error}); save it again with {how}")


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
}
