"""Label-free agreement of two models' detections: far less noisy than mAP on a few images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from objectives.tasks.detection.metrics.bootstrap import draws
from objectives.tasks.detection.metrics.metric import BOXES, REFERENCE, Targets
from objectives.tasks.detection.predictions import Predictions
from search_spaces.errors import InputError

Float = NDArray[np.float32]

_TOP = 100
_CONFIDENCE = 0.05


class Agreement:
    """Agreement with the reference model's detections as a figure: ``agreement``, in [0, 1], 1 for the same ones."""

    needs: ClassVar[frozenset[str]] = frozenset({BOXES, REFERENCE})
    yields: ClassVar[tuple[str, ...]] = ("agreement",)

    def __init__(self) -> None:
        self.reset()

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """As `Metric` says."""
        agreed, weight = self._by_image(predictions, targets)
        self._agreed += float(agreed.sum())
        self._weight += float(weight.sum())

    def compute(self) -> Mapping[str, float]:
        """As `Metric` says."""
        return {"agreement": float(_share(self._agreed, self._weight))}

    def reset(self) -> None:
        """As `Metric` says."""
        self._agreed = self._weight = 0.0

    def resampled(self, predictions: Predictions, targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
        """As `Resampled` says."""
        agreed, weight = self._by_image(predictions, targets)
        counts = [np.ones((len(agreed), 1)), *draws(len(agreed), samples, seed)]
        return np.concatenate([_share(agreed @ count, weight @ count) for count in counts])

    def _by_image(self, predictions: Predictions, targets: Targets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if targets.reference is None:
            raise InputError("metric 'agreement': needs the reference model's detections; leave it out")
        ids = [image.id for image in targets.dataset.images]
        return _agreed(predictions.ordered(ids), targets.reference.ordered(ids), _TOP, _CONFIDENCE)


def asked(predictions: Predictions) -> int:
    """How many detections are asked for a partner: where a reference has none, nothing can be told by agreement."""
    return sum(int((rows[:_TOP, 4] >= _CONFIDENCE).sum()) for rows in predictions.detections)


def agreement(
    candidate: Predictions, reference: Predictions, *, top: int = _TOP, confidence: float = _CONFIDENCE
) -> float:
    """How far two models find the same boxes with the same scores.

    Every detection takes its best partner of the same class in the other model's detections of that image;
    its agreement is IoU x (1 - difference of the scores). The result is the mean over both models'
    detections, weighted by their scores, so that lost, moved and invented boxes all count.

    Args:
        candidate: Detections of one model.
        reference: Detections of the other, on the same images.
        top: Best detections per image that are compared.
        confidence: Detections below this score are not asked for a partner (but can be one).

    Returns:
        In [0, 1]; 1 for identical detections, also where both find nothing.

    Raises:
        ValueError: The predictions are of different images.
    """
    agreed, weight = _agreed(candidate, reference, top, confidence)
    return float(_share(agreed.sum(), weight.sum()))


def paired_iou(first: Float, second: Float) -> Float:
    """IoU of the i-th box of each, shape (k,); boxes x1, y1, x2, y2, shape (k, 4)."""
    return _iou(first, second)


def _agreed(
    candidate: Predictions, reference: Predictions, top: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per image, agreement summed over detections with their scores as weights, and the sum of the weights."""
    if candidate.ids != reference.ids:
        raise ValueError("the predictions are of different images")
    agreed, weight = np.zeros(len(candidate)), np.zeros(len(candidate))
    for image, (mine, theirs) in enumerate(zip(candidate.detections, reference.detections, strict=True)):
        similarity = _similarity(mine[:top], theirs[:top])
        for axis, rows in ((1, mine[:top]), (0, theirs[:top])):
            asked_for = np.where(rows[:, 4] >= confidence, rows[:, 4], 0)
            best = similarity.max(axis, initial=0)
            agreed[image] += float((asked_for * best).sum())
            weight[image] += float(asked_for.sum())
    return agreed, weight


def _share(agreed: ArrayLike, weight: ArrayLike) -> NDArray[np.float64]:
    """Agreed shares of weights; 1 where there is nothing to agree on."""
    whole = np.asarray(weight, np.float64)
    return np.minimum(1.0, np.where(whole > 0, np.asarray(agreed) / np.where(whole > 0, whole, 1.0), 1.0))


def _similarity(mine: Float, theirs: Float) -> Float:
    """Shape (len(mine), len(theirs)): IoU x score similarity of boxes of one class, 0 elsewhere."""
    iou = _iou(mine[:, None, :4], theirs[None, :, :4])
    close = 1 - np.abs(mine[:, None, 4] - theirs[None, :, 4])
    return np.where(mine[:, None, 5] == theirs[None, :, 5], iou * close, 0).astype(np.float32)


def _iou(first: Float, second: Float) -> Float:
    corner = np.minimum(first[..., 2:4], second[..., 2:4]) - np.maximum(first[..., :2], second[..., :2])
    overlap = np.prod(np.maximum(corner, 0), -1)
    areas = np.prod(np.maximum(first[..., 2:4] - first[..., :2], 0), -1)
    others = np.prod(np.maximum(second[..., 2:4] - second[..., :2], 0), -1)
    same = np.all(first[..., :4] == second[..., :4], -1)  # a box without area is still identical to itself
    union = areas + others - overlap
    return np.where(same, 1, overlap / np.maximum(union, 1e-9)).astype(np.float32)
