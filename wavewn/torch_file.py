"""Files of `torch.save` from strangers: nothing in them runs, and none grows in memory.

`weights_only` keeps code from running. It does not keep a small file from claiming much memory:
records may be compressed or share their bytes, and a tensor may repeat one number along an axis of
any length. Here every record has its own bytes in the file, and every tensor its own numbers.
"""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ERRORS = (  # what torch.load raises on files that are cut or edited
    RuntimeError,
    EOFError,
    struct.error,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    RecursionError,
)


def load_torch_file(path: Path) -> Any:
    """Read tensors and plain values onto the CPU.

    Raises:
        pickle.UnpicklingError: It is no file of torch.save, or holds more than that.
        ValueError: It is broken or claims memory that it does not fill; one line says how.
    """
    try:
        _check_records(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(content)
    except pickle.UnpicklingError:
        raise
    except ERRORS as error:
        # torch's own message advises to switch the protection off; ours keeps its first line.
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None
    return content


def _check_records(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as records:
            claimed = sum(record.file_size for record in records.infolist())
    except (zipfile.BadZipFile, zlib.error, NotImplementedError):
        return  # the format before zip, or none: torch will say
    if claimed > path.stat().st_size:
        raise ValueError(f"its records claim {claimed} bytes, more than the file has")


def _check_tensors(content: Any) -> None:
    waiting, seen = [content], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            if one.layout != torch.strided or one.device.type != "cpu" or one.is_quantized:
                raise ValueError(f"a tensor is {one.layout} on {one.device}, expected a plain one")
            if one.numel() * one.element_size() > one.untyped_storage().nbytes():
                raise ValueError(f"a tensor {list(one.shape)} repeats its numbers")
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, Iterable) and not isinstance(one, (str, bytes, bytearray)):
            waiting += one
