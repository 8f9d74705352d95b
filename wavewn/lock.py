"""One writer at a time: what two processes would mix, the second is refused.

The lock is the kernel's (POSIX record locks): it ends with the process that holds it, however that
ends, and forked workers do not inherit it. Threads of one process are not kept apart.
"""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wavewn.errors import WavewnError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` meanwhile; it is removed afterwards.

    Where the system knows no such locks, nothing is locked, and the log says so.

    Raises:
        WavewnError: Another process holds it.
        OSError: The lock file cannot be made.
    """
    if fcntl is None:
        logger.info("%s: this system has no file locks, two writers would mix", path)
        yield
        return
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # before the lock ends: then it may be another's
            os.close(descriptor)


def _acquire(path: Path) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our opening and our locking it.
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno in HELD:
                raise WavewnError(
                    f"another process is writing into {path.parent}; wait for it, or choose "
                    "another --out"
                ) from None
            if error.errno not in UNSUPPORTED:
                raise
            logger.info("%s: %s, two writers would mix", path, error)
            return None
        os.close(descriptor)
