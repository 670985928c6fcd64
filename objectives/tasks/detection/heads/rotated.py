"""Oriented boxes: centre x, y, width, height, angle in radians, clockwise on the screen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.heads.head import Float
from objectives.tasks.detection.thresholds import Thresholds

_TINY = 1e-7


def box_corners(boxes: Float) -> Float:
    """Corners of oriented boxes, shape (k, 5), in turn: shape (k, 4, 2)."""
    centre, half, angle = boxes[:, :2], boxes[:, 2:4] / 2, boxes[:, 4]
    cosine, sine = np.cos(angle), np.sin(angle)
    along = np.stack([cosine * half[:, 0], sine * half[:, 0]], 1)
    across = np.stack([-sine * half[:, 1], cosine * half[:, 1]], 1)
    found: Float = np.stack([centre + along + across, centre + along - across, centre - along - across,
                             centre - along + across], 1).astype(np.float32)  # fmt: skip
    return found


def hulls(boxes: Float) -> Float:
    """The upright boxes around oriented ones, shape (k, 5): x1, y1, x2, y2, shape (k, 4)."""
    corners = box_corners(boxes)
    return np.concatenate([corners.min(1), corners.max(1)], 1)


def suppress_rotated(boxes: Float, scores: Float, thresholds: Thresholds) -> tuple[Float, NDArray[np.intp]]:
    """Keeps the best of overlapping oriented boxes of one class.

    Args:
        boxes: Shape (k, 5).
        scores: Shape (classes, k).
        thresholds: Confidence, overlap by `likeness`, and counts.

    Returns:
        Score and class, shape (n, 2), best first, and which of the boxes each is, shape (n,).
    """
    classes, index = np.nonzero(scores > thresholds.confidence)
    values = scores[classes, index]
    order = np.argsort(-values, kind="stable")[: thresholds.max_candidates]
    kept: list[int] = []
    for label in np.unique(classes[order]):
        left = order[classes[order] == label]
        for _ in range(thresholds.max_detections):
            if not len(left):
                break
            kept.append(int(left[0]))
            alike = likeness(boxes[index[left[0]]], boxes[index[left[1:]]])
            left = left[1:][alike <= thresholds.iou]
    chosen = np.array(kept, np.intp)
    chosen = chosen[np.argsort(-values[chosen], kind="stable")][: thresholds.max_detections]
    return np.stack([values[chosen], classes[chosen]], 1).astype(np.float32), index[chosen]


def likeness(one: Float, others: Float) -> Float:
    """How far oriented boxes overlap, as Gaussians: 1 minus their Hellinger distance, shape (k,).

    Args:
        one: Shape (5,).
        others: Shape (k, 5).

    Source: Murrugarra-Llerena et al., "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object
    Detection", 2021, equations 3 to 10; what Ultralytics suppresses oriented boxes by.
    """
    x, y = others[:, 0] - one[0], others[:, 1] - one[1]
    first, second = _covariance(one[None]), _covariance(others)
    a, b, c = first + second
    area = np.maximum(a * b - c * c, _TINY)
    distance = (a * y * y + b * x * x - 2 * c * x * y) / (4 * area)
    shape = [np.maximum(f[0] * f[1] - f[2] * f[2], _TINY) for f in (first, second)]
    distance = distance + 0.5 * np.log(np.maximum(area / (4 * np.sqrt(shape[0] * shape[1])), 1))
    found: Float = (1 - np.sqrt(1 - np.exp(-distance))).astype(np.float32)
    return found


def _covariance(boxes: Float) -> NDArray[np.float64]:
    """Variances along x and y, and their covariance, of uniform densities over boxes: shape (3, k)."""
    w, h = (boxes[:, 2:4].astype(np.float64) ** 2 / 12).T
    cosine, sine = np.cos(boxes[:, 4].astype(np.float64)), np.sin(boxes[:, 4].astype(np.float64))
    return np.stack([w * cosine**2 + h * sine**2, w * sine**2 + h * cosine**2, (w - h) * cosine * sine])
