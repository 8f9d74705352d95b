"""How torch is set up while an engine calls it, and left as it was.

cuDNN's convolutions round the inputs of float32 to TensorFloat-32, 10 bits, unless told otherwise,
and products of matrices do where a program asked for it. That is a thousand times more than what
streams of float32 may differ by. torch keeps both switches for the whole process; so whoever needs
them off is counted here, and the last one puts them back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Tf32Switch:
    """Counts those who need TensorFloat-32 off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers = 0
        self._before = (False, False)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Keep it off for a while; calls may overlap in any order."""
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        with self._lock:
            if not self._callers:
                self._before = cudnn.allow_tf32, matmul.allow_tf32
                cudnn.allow_tf32 = matmul.allow_tf32 = False
            self._callers += 1
        try:
            yield
        finally:
            with self._lock:
                self._callers -= 1
                if not self._callers:
                    cudnn.allow_tf32, matmul.allow_tf32 = self._before


TF32 = Tf32Switch()  # one for the process, as what it switches


@contextmanager
def torch_setting(device: torch.device, threads: int = 1) -> Iterator[None]:
    """Compute as asked: no autocast, float32 whole on a GPU, so many threads on the CPU."""
    narrowed, cpu = torch.is_autocast_enabled(device.type), device.type == "cpu"
    if cpu and not narrowed and torch.get_num_threads() == threads:
        yield
        return
    with torch.autocast(device.type, enabled=False):
        with _threads(threads) if cpu else TF32.off():
            yield


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
