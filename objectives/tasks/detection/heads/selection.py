"""What heads share that select by themselves: the best rows, or (row, class) pairs, without any suppression."""

from __future__ import annotations

import numpy as np

from objectives.tasks.detection.heads.head import Float
from objectives.tasks.detection.thresholds import Thresholds


def best_rows(rows: Float, thresholds: Thresholds) -> Float:
    """Selects among rows (k, 6 or more) of x1, y1, x2, y2, score, class, ...: finite, confident enough, best first."""
    rows = rows[np.isfinite(rows).all(1)]
    rows = rows[rows[:, 4] > thresholds.confidence]
    return rows[np.argsort(-rows[:, 4], kind="stable")][: thresholds.max_detections]


def best_pairs(boxes: Float, scores: Float, thresholds: Thresholds) -> Float:
    """Selects among the pairs of a box and a class.

    Args:
        boxes: Shape (k, 4): x1, y1, x2, y2.
        scores: Shape (k, classes).
        thresholds: Confidence and count.

    Returns:
        Shape (n, 6), as `best_rows`.
    """
    row, label = np.nonzero(scores > thresholds.confidence)
    found = np.concatenate([boxes[row], scores[row, label, None], label[:, None].astype(np.float32)], 1)
    return best_rows(found, thresholds)
