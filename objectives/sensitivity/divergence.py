"""Label-free divergence of a detector's dense output on the reference's best anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.contract import END_TO_END, RAW, DetectorContract
from objectives.tasks.detection.heads.decode import raw_boxes, sigmoid, to_corners
from objectives.tasks.detection.heads.structure import dense_head
from objectives.tasks.detection.metrics.agreement import paired_iou
from search_spaces.model_graph import ModelGraph

Float = NDArray[np.float32]

TOP_ANCHORS = 100
_FLOOR = 1e-4  # probabilities below it are alike: ten times less than the confidence threshold


@dataclass(frozen=True)
class DenseTensor:
    """Where a model's dense output is and how to read it.

    Attributes:
        name: Tensor name.
        split: Box channels; the rest are classes.
        transposed: Whether it is (1, anchors, channels).
        contract: The detector's contract; `raw` means bins and logits, else boxes and probabilities.
        corners: Whether boxes are x1, y1, x2, y2 instead of centre, width, height.
    """

    name: str
    split: int
    transposed: bool
    contract: DetectorContract
    corners: bool

    def channels(self, output: NDArray[np.generic]) -> Float:
        """One image's output, (1, ...), as (channels, anchors)."""
        first = np.asarray(output, np.float32)[0]
        channels: Float = first.T if self.transposed else first
        return channels

    def probabilities(self, channels: Float) -> Float:
        """Class probabilities, (classes, anchors)."""
        scores = channels[self.split :]
        return sigmoid(scores) if self.contract.layout == RAW else scores

    def boxes(self, channels: Float, anchors: NDArray[np.intp]) -> Float:
        """Boxes of some anchors: (k, 4), x1, y1, x2, y2."""
        found = channels[: self.split, anchors]
        if self.contract.layout == RAW:
            return raw_boxes(found, anchors, self.contract)
        return np.ascontiguousarray(found.T) if self.corners else to_corners(found.T)


@dataclass(frozen=True)
class AnchorTargets:
    """What the reference says at its best anchors of one image.

    Attributes:
        anchors: Shape (k,), indices.
        probabilities: Shape (classes, k).
        boxes: Shape (k, 4).
    """

    anchors: NDArray[np.intp]
    probabilities: Float
    boxes: Float


def find_dense_tensor(graph: ModelGraph, contract: DetectorContract) -> DenseTensor | None:
    """Finds the dense output: the output itself, or for ``end_to_end`` what precedes the selection.

    Returns:
        None where an ``end_to_end`` model has no tensor of 4 box channels with sigmoid classes.
    """
    if contract.layout != END_TO_END:
        split = 4 * contract.reg_max if contract.layout == RAW else 4
        return DenseTensor(contract.output, split, contract.transposed, contract, corners=False)
    head = dense_head(graph)
    return None if head is None else DenseTensor(head.tensor, 4, head.transposed, contract, head.corners)


def targets(dense: DenseTensor, output: NDArray[np.generic], top: int = TOP_ANCHORS) -> AnchorTargets:
    """Takes the reference's `top` anchors with the highest class probability."""
    channels = dense.channels(output)
    probabilities = dense.probabilities(channels)
    best = np.argsort(-probabilities.max(0), kind="stable")[:top]
    return AnchorTargets(best, probabilities[:, best], dense.boxes(channels, best))


def divergence(dense: DenseTensor, outputs: Sequence[NDArray[np.generic]], wanted: Sequence[AnchorTargets]) -> float:
    """Divergence of a candidate, averaged over images; 0 for the reference itself.

    Per image: the Bernoulli KL divergence reference || candidate of the class probabilities, summed over
    classes and averaged over the anchors, plus 1 - IoU of the boxes, averaged with the reference's scores as
    weights.

    Args:
        dense: How to read the outputs.
        outputs: Per image the dense output, (1, ...).
        wanted: Per image what the reference says.
    """
    return float(np.mean([_one(dense, output, target) for output, target in zip(outputs, wanted, strict=True)]))


def _one(dense: DenseTensor, output: NDArray[np.generic], target: AnchorTargets) -> float:
    channels = dense.channels(output)
    found = np.nan_to_num(dense.probabilities(channels[:, target.anchors]), nan=0.0)
    p = np.clip(target.probabilities.astype(np.float64), _FLOOR, 1 - _FLOOR)
    q = np.clip(found.astype(np.float64), _FLOOR, 1 - _FLOOR)
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(0).mean()
    overlap = np.nan_to_num(paired_iou(dense.boxes(channels, target.anchors), target.boxes), nan=0.0)
    weights = target.probabilities.max(0)
    loss = (weights * (1 - overlap)).sum() / max(float(weights.sum()), 1e-9)
    return float(kl + loss)
