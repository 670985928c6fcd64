"""Turns a detector's outputs into boxes: three head layouts, one result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.contract import END_TO_END, RAW, DetectorContract, Thresholds, cells
from objectives.tasks.detection.heads.suppression import suppress

Float = NDArray[np.float32]


def decode(outputs: Sequence[NDArray[np.generic]], contract: DetectorContract, thresholds: Thresholds) -> list[Float]:
    """Decodes one batch.

    Args:
        outputs: The model's outputs in graph order, each (batch, ...).
        contract: How to read them.
        thresholds: How to select detections.

    Returns:
        Per image an array (k, 6), float32: x1, y1, x2, y2, score, class; x and y in input pixels, best first.
        Rows that hold NaN or infinity are left out.
    """
    output = np.asarray(outputs[contract.output_index], np.float32)
    if contract.layout == END_TO_END:
        return [_select(rows, thresholds) for rows in output]
    if contract.transposed:
        output = output.transpose(0, 2, 1)
    return [_decode_dense(channels, contract, thresholds) for channels in output]


def raw_probabilities(channels: Float, contract: DetectorContract) -> Float:
    """Class probabilities of a `raw` output: (4 x reg_max + classes, anchors) to (classes, anchors)."""
    return sigmoid(channels[4 * contract.reg_max :])


def raw_boxes(bins: Float, anchors: NDArray[np.intp], contract: DetectorContract) -> Float:
    """Decodes the distance bins of some anchors.

    Args:
        bins: Shape (4 x reg_max, k), logits.
        anchors: Shape (k,), which anchors they are.
        contract: A `raw` contract.

    Returns:
        Shape (k, 4): x1, y1, x2, y2 in input pixels.
    """
    centres, strides = anchor_points(contract.image_size, contract.strides)
    logits = bins.reshape(4, contract.reg_max, -1)
    if contract.reg_max > 1:
        weights = np.exp(logits - logits.max(1, keepdims=True))
        ramp = np.arange(contract.reg_max, dtype=np.float32)[:, None]
        distances = (weights * ramp).sum(1) / weights.sum(1)
    else:
        distances = logits[:, 0]
    points, stride = centres[anchors], strides[anchors, None]
    top_left, bottom_right = distances[:2].T * stride, distances[2:].T * stride
    return np.concatenate([points - top_left, points + bottom_right], 1).astype(np.float32)


@lru_cache(maxsize=16)
def anchor_points(image_size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Float, Float]:
    """Centres (anchors, 2) and strides (anchors,) of all anchors, input pixels, level by level, by rows."""
    centres, steps = [], []
    for stride in strides:
        rows, columns = cells(image_size, stride)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centres.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(np.full(rows * columns, stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(steps).astype(np.float32)


def sigmoid(x: Float) -> Float:
    """Logistic function without overflow."""
    result: Float = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def to_corners(boxes: Float) -> Float:
    """Centre x, y, width, height to x1, y1, x2, y2; shape (k, 4)."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def _decode_dense(channels: Float, contract: DetectorContract, thresholds: Thresholds) -> Float:
    raw = contract.layout == RAW
    split = 4 * contract.reg_max if raw else 4
    scores = channels[split:]
    floor = _logit(thresholds.confidence) if raw else thresholds.confidence
    kept = np.flatnonzero((scores > floor).any(0))
    scores = sigmoid(scores[:, kept]) if raw else scores[:, kept]
    found = channels[:split, kept]
    boxes = raw_boxes(found, kept, contract) if raw else to_corners(found.T)
    finite = np.isfinite(boxes).all(1)
    return suppress(boxes[finite], scores[:, finite], thresholds)


def _select(rows: Float, thresholds: Thresholds) -> Float:
    rows = rows[np.isfinite(rows).all(1)]
    rows = rows[rows[:, 4] > thresholds.confidence]
    return rows[np.argsort(-rows[:, 4], kind="stable")][: thresholds.max_detections]


def _logit(probability: float) -> float:
    if probability <= 0:
        return -np.inf
    return float(np.log(probability) - np.log1p(-probability)) if probability < 1 else np.inf
