"""Steps of fixed work at fixed addresses, captured as CUDA graphs.

A step is a function without arguments and result that enqueues the same kernels on the same memory
whenever it is called. What it allocates on the way is dead when it ends.
"""

import threading
from collections.abc import Callable

import torch

from wavewn.engine.torch_setting import TF32

Step = Callable[[], None]

_CAPTURING = threading.Lock()  # torch allows one capture at a time in a process


class Capturer:
    """Captures steps that never run at once, and so may share their scratch memory.

    Args:
        device: Where they run. On any but a CUDA device a step stays as it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            self._side = torch.cuda.Stream(device)
            self._pool = torch.cuda.graph_pool_handle()

    def capture(self, step: Step) -> Step:
        """Run a step once, so that libraries make what they make at first use, and capture it.

        Returns:
            A function that replays it, on torch's stream of the time.
        """
        if self._device.type != "cuda":
            return step
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING, TF32.off(), torch.cuda.device(self._device):
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                step()
            # torch would share cuBLAS's work space with whatever runs on this stream later. So it
            # is dropped, and the graphs have one of their own, in their pool.
            torch._C._cuda_clearCublasWorkspaces()
            try:
                with torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=self._side,
                    capture_error_mode="thread_local",  # other threads may allocate meanwhile
                ):
                    step()
            finally:
                torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.current_stream().wait_stream(self._side)

        def replay() -> None:
            with torch.cuda.device(self._device):
                graph.replay()

        return replay
