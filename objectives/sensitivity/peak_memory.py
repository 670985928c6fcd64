"""Peak memory of a stretch of work: resident on the CPU, allocated on a GPU."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

_INTERVAL_S = 0.05


class PeakMemory:
    """Watches memory while it is open.

    Args:
        device: ``cpu``, where this process's resident memory is sampled 20 times a second, or a CUDA device, where
            PyTorch counts what it allocates.

    Attributes:
        mib: The peak, MiB; 0 before it is closed.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.mib = 0.0
        self._device = device
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if self._device == "cpu":
            self._thread.start()
        else:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device == "cpu":
            self._done.set()
            self._thread.join()
        else:
            import torch

            self.mib = torch.cuda.max_memory_allocated(self._device) / 2**20

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.mib = max(self.mib, process.memory_info().rss / 2**20)
            if self._done.wait(_INTERVAL_S):
                return
