"""Label-free divergence of a detector's dense output on the reference's best anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.heads.head import DenseOutputs, DetailedOutputs, Outputs
from objectives.tasks.detection.metrics.agreement import paired_iou

Float = NDArray[np.float32]

TOP_ANCHORS = 100
_FLOOR = 1e-4  # probabilities below it are alike: ten times less than the confidence threshold


@dataclass(frozen=True)
class AnchorTargets:
    """What the reference says at its best anchors of one image.

    Attributes:
        anchors: Shape (k,), indices.
        probabilities: Shape (classes, k).
        boxes: Shape (k, 4).
        details: Shape (k, values); None where there are none.
    """

    anchors: NDArray[np.intp]
    probabilities: Float
    boxes: Float
    details: Float | None = None


def targets(dense: DenseOutputs, outputs: Outputs, top: int = TOP_ANCHORS) -> AnchorTargets:
    """Takes the reference's `top` anchors with the highest class probability; outputs of one image."""
    probabilities = dense.probabilities(outputs)
    best = np.argsort(-probabilities.max(0), kind="stable")[:top]
    details = dense.details(outputs, best) if isinstance(dense, DetailedOutputs) else None
    return AnchorTargets(best, probabilities[:, best], dense.boxes(outputs, best), details)


def divergence(dense: DenseOutputs, outputs: Sequence[Outputs], wanted: Sequence[AnchorTargets]) -> float:
    """Divergence of a candidate, averaged over images; 0 for the reference itself.

    Per image: the Bernoulli KL divergence reference || candidate of the class probabilities, summed over
    classes and averaged over the anchors, plus 1 - IoU of the boxes, averaged with the reference's scores as
    weights; plus, where there are masks or keypoints, the share of them that changed, averaged alike.

    Args:
        dense: How to read the outputs.
        outputs: Per image the dense outputs, each (1, ...).
        wanted: Per image what the reference says.
    """
    return float(np.mean([_one(dense, output, target) for output, target in zip(outputs, wanted, strict=True)]))


def _one(dense: DenseOutputs, outputs: Outputs, target: AnchorTargets) -> float:
    found = np.nan_to_num(dense.probabilities(outputs, target.anchors), nan=0.0)
    p = np.clip(target.probabilities.astype(np.float64), _FLOOR, 1 - _FLOOR)
    q = np.clip(found.astype(np.float64), _FLOOR, 1 - _FLOOR)
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(0).mean()
    overlap = np.nan_to_num(paired_iou(dense.boxes(outputs, target.anchors), target.boxes), nan=0.0)
    weights = target.probabilities.max(0)
    lost = 1 - overlap
    if target.details is not None and isinstance(dense, DetailedOutputs):
        now = np.nan_to_num(dense.details(outputs, target.anchors), nan=0.0)
        changed = np.abs(now - target.details).sum(1) / np.maximum(np.abs(target.details).sum(1), 1e-9)
        lost = lost + np.minimum(changed, 1)
    loss = (weights * lost).sum() / max(float(weights.sum()), 1e-9)
    return float(kl + loss)
