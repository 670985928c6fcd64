"""Forms of boxes."""

from __future__ import annotations

import numpy as np

from objectives.tasks.detection.heads.head import Float


def to_pixels(boxes: Float, image_size: tuple[int, int]) -> Float:
    """Boxes (k, 4), in whatever form, from shares of the input to its pixels."""
    height, width = image_size
    return boxes * np.array([width, height, width, height], np.float32)


def to_corners(boxes: Float) -> Float:
    """Centre x, y, width, height to x1, y1, x2, y2; shape (k, 4)."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
