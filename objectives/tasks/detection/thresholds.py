"""Thresholds: which of a model's boxes count as detections."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """How detections are selected; the defaults are Ultralytics' validation.

    Attributes:
        confidence: A (box, class) pair is a candidate if its score exceeds this.
        iou: Of two boxes of one class with a larger IoU only the better survives; not for heads that select by
            themselves.
        max_detections: Per image.
        max_candidates: Best pairs per image that enter non-maximum suppression.
    """

    confidence: float = 0.001
    iou: float = 0.7
    max_detections: int = 300
    max_candidates: int = 30000
