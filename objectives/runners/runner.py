"""What every runtime offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

#: Waits for one inference and returns its seconds.
Ticket = Callable[[], float]


class RuntimeUnavailable(RuntimeError):
    """The environment lacks what the runtime needs; the command line exits with 3."""


class Runner(Protocol):
    """One loaded model on one runtime."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(N, 3, H, W)``; 0 where the model leaves a dimension open."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in graph order."""

    def infer(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Runs one batch.

        Args:
            images: ``(N, 3, H, W)`` float32 in [0, 1].

        Returns:
            The outputs, in graph order.
        """


@runtime_checkable
class DeviceTimed(Protocol):
    """A runner whose device times its own work, so that the host's launches do not count.

    Attributes:
        burst: Inferences that may be under way before the first ticket is called.
        method: How it times, e.g. ``cuda graph``.
    """

    burst: int

    @property
    def method(self) -> str:
        """How it times, e.g. ``cuda graph``."""

    def launcher(self, image: NDArray[np.float32]) -> Callable[[], Ticket]:
        """Puts a batch on the device; the result starts one inference of it and returns its ticket."""
