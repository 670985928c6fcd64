"""Logits and probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def sigmoid(x: Float) -> Float:
    """Logistic function without overflow."""
    result: Float = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def logit(probability: float) -> float:
    """Inverse of `sigmoid`; infinite outside (0, 1)."""
    if probability <= 0:
        return -np.inf
    return float(np.log(probability) - np.log1p(-probability)) if probability < 1 else np.inf
