"""What every runtime offers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
