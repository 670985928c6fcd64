"""COCO's mask AP and keypoint AP, by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask
from pycocotools.cocoeval import COCOeval

from objectives.tasks.detection.data.dataset import Annotation, CocoDataset
from objectives.tasks.detection.data.outlines import outline_mask
from objectives.tasks.detection.metrics.bootstrap import resampled
from objectives.tasks.detection.metrics.coco import Kind, evaluation, joined, match_table, summary, table_of
from objectives.tasks.detection.metrics.metric import BOXES, KEYPOINTS, LABELS, MASKS, Targets
from objectives.tasks.detection.predictions import Predictions
from search_spaces.errors import InputError

_COCO_POINTS = 17


class CocoMask:
    """COCO's mask AP, each in [0, 1]; -1 where the images have no such objects; sizes as of ``coco_box``.

    Of a head with oriented boxes the masks are these boxes, drawn on the pixels of the image.
    """

    needs: ClassVar[frozenset[str]] = frozenset({BOXES, LABELS, MASKS})
    yields: ClassVar[tuple[str, ...]] = (
        "map_50_95_mask",
        "map_50_mask",
        "map_75_mask",
        "map_small_mask",
        "map_medium_mask",
        "map_large_mask",
    )

    def __init__(self) -> None:
        self._seen: list[tuple[Predictions, CocoDataset]] = []

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """As `Metric` says."""
        if any(label.outline is None for label in targets.dataset.annotations):
            raise InputError(f"{targets.dataset.source}: read without outlines, which the metric coco_segm needs")
        unsized = [image.path.name for image in targets.dataset.images if not (image.width and image.height)]
        if unsized:
            raise InputError(
                f"{targets.dataset.source}: gives no width and height of {unsized[0]!r}, which coco_segm needs"
            )
        self._seen.append((predictions, targets.dataset))

    def compute(self) -> Mapping[str, float]:
        """As `Metric` says."""
        return dict(zip(self.yields, summary(evaluation(*joined(self._seen), _MASK)), strict=False))

    def resampled(self, predictions: Predictions, targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
        """As `Resampled` says: mAP50-95 of masks, 0 of a sample without objects."""
        return resampled(match_table(targets.dataset, predictions, _MASK), samples, seed)

    def reset(self) -> None:
        """As `Metric` says."""
        self._seen.clear()


class CocoKeypoints:
    """COCO's keypoint AP, each in [0, 1]; -1 where the images have no such objects.

    Keypoints are near by their distance over the object's area, as labelled (object keypoint similarity): with COCO's
    own tolerances for its 17, with 1 / count for others, as Ultralytics has it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({BOXES, LABELS, KEYPOINTS})
    yields: ClassVar[tuple[str, ...]] = (
        "map_50_95_keypoints",
        "map_50_keypoints",
        "map_75_keypoints",
        "map_medium_keypoints",
        "map_large_keypoints",
    )

    def __init__(self) -> None:
        self._seen: list[tuple[Predictions, CocoDataset]] = []

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """As `Metric` says."""
        self._seen.append((predictions, targets.dataset))

    def compute(self) -> Mapping[str, float]:
        """As `Metric` says."""
        return dict(zip(self.yields, summary(_posed(*joined(self._seen))), strict=False))

    def resampled(self, predictions: Predictions, targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
        """As `Resampled` says: mAP50-95 of keypoints, 0 of a sample without objects."""
        return resampled(table_of(_posed(targets.dataset, predictions)), samples, seed)

    def reset(self) -> None:
        """As `Metric` says."""
        self._seen.clear()


def _posed(dataset: CocoDataset, predictions: Predictions) -> COCOeval:
    count = _point_count(dataset, predictions)
    matching = evaluation(dataset, predictions, _keypoint_kind(count))
    if count != _COCO_POINTS:
        matching.params.kpt_oks_sigmas = np.full(count, 1 / count)
    return matching


def _mask_of(label: Annotation, size: tuple[int, int]) -> dict[str, Any]:
    assert label.outline is not None
    return {"segmentation": outline_mask(label.outline, *size).coco}


def _found_mask(predictions: Predictions, place: int, row: int) -> dict[str, Any]:
    assert predictions.masks is not None
    found = predictions.masks[place][row].coco
    return {"segmentation": found, "area": float(mask.area(found))}


_MASK = Kind("segm", _mask_of, _found_mask)


def _keypoint_kind(count: int) -> Kind:
    def label(label: Annotation, size: tuple[int, int]) -> dict[str, Any]:
        points = label.keypoints or (0.0,) * 3 * count
        return {"keypoints": list(points), "num_keypoints": sum(value > 0 for value in points[2::3])}

    def result(predictions: Predictions, place: int, row: int) -> dict[str, Any]:
        assert predictions.keypoints is not None
        points = predictions.keypoints[place][row].astype(float)
        width, height = np.ptp(points[:, 0]), np.ptp(points[:, 1])  # pycocotools' own area of a detected pose
        return {"keypoints": points.ravel().tolist(), "area": float(width * height)}

    return Kind("keypoints", label, result)


def _point_count(dataset: CocoDataset, predictions: Predictions) -> int:
    """Keypoints of an object.

    Raises:
        InputError: The labels have none, or the model gives another number.
    """
    labelled = {len(label.keypoints) // 3 for label in dataset.annotations if label.keypoints}
    if not labelled:
        raise InputError(f"{dataset.source}: no object has keypoints, which the metric coco_keypoints needs")
    given = _shapes(predictions.keypoints or ())
    if len(labelled | given) > 1:
        shown = ", ".join(map(str, sorted(given))) or "none"
        raise InputError(
            f"{dataset.source}: objects have {', '.join(map(str, sorted(labelled)))} keypoints, the model gives "
            f"{shown}; give the labels that it was trained on"
        )
    return labelled.pop()


def _shapes(points: Sequence[np.ndarray[Any, Any]]) -> set[int]:
    return {rows.shape[1] for rows in points if len(rows)}
