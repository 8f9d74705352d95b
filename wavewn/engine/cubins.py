"""Compiled kernels on disk, so that a model is compiled once on a machine.

One file a kernel, named by the hash of all that it was made from, so that no file is ever wrong,
only unused: the folder may be emptied at any time. Files are written beside and renamed; several
processes may do so at once, and the last one wins with the same content. A file that does not match
its checksum counts as none. Where the folder cannot be written, nothing is kept.

The kernels of models and versions that nobody runs any more would pile up: whoever writes one
leaves the `KEPT` that were used last. Whose kernel goes meanwhile compiles it anew.
"""

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

DIGEST = hashlib.sha256
DIGEST_BYTES = DIGEST().digest_size
KEPT = 32


def cubin_folder() -> Path:
    """Name the folder; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "wavewn" / "cubins"


def cubin_key(ingredients: Mapping[str, object]) -> str:
    """Hash what a kernel is made from; the order of the entries does not matter."""
    return DIGEST(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def read_cubin(key: str) -> bytes | None:
    """Return a kernel, or None where it is not there, cannot be read, or is damaged."""
    path = _path(key)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read (%s): compiling", path, error)
        return None
    digest, cubin = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if DIGEST(cubin).digest() != digest:
        logger.warning("%s is damaged: compiling anew", path)
        return None
    with contextlib.suppress(OSError):  # another one removes it, or it may only be read
        os.utime(path)
    return cubin


def write_cubin(key: str, cubin: bytes) -> None:
    """Keep a kernel; where that fails, the log says why."""
    path = _path(key)
    partial = path.with_name(f".{key}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(DIGEST(cubin).digest() + cubin)
        os.replace(partial, path)
    except OSError as error:
        logger.warning("the compiled kernel is not kept for the next start: %s", error)
        with contextlib.suppress(OSError):
            partial.unlink()
    else:
        with contextlib.suppress(OSError):  # somebody removed the folder itself
            _remove_all_but(KEPT, path.parent)


def _remove_all_but(kept: int, folder: Path) -> None:
    """Remove the files used longest ago, half written ones of killed processes among them."""
    used: list[tuple[int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # others remove files at the same time
            used.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(used)[:-kept]:
        with contextlib.suppress(OSError):
            path.unlink()


def _path(key: str) -> Path:
    return cubin_folder() / f"{key}.cubin"
