"""Box AP as Ultralytics' own validator computes it, for comparison with what its users have seen.

It differs from COCO's (`coco_box`) by the area under the curve: the envelope of precision over recall, interpolated
between its points at 101 recalls and integrated by the trapezoid rule, with nothing behind the last recall; and by
taking up to 300 detections of an image. Crowds are left out, as Ultralytics leaves them out of label files.
Rules: ``compute_ap``, ``ap_per_class`` and ``match_predictions`` of Ultralytics 8.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from objectives.tasks.detection.data.dataset import Annotation
from objectives.tasks.detection.metrics.metric import BOXES, LABELS, Targets
from objectives.tasks.detection.predictions import Predictions

Float = NDArray[np.float64]

_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)


class UltralyticsBox:
    """Ultralytics' box AP, each in [0, 1]; -1 where the images have no objects.

    ``map_50_95_ultralytics`` is averaged over IoU 0.50:0.95, ``map_50_ultralytics`` is at 0.50.
    """

    needs: ClassVar[frozenset[str]] = frozenset({BOXES, LABELS})
    yields: ClassVar[tuple[str, ...]] = ("map_50_95_ultralytics", "map_50_ultralytics")

    def __init__(self) -> None:
        self.reset()

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """As `Metric` says."""
        dataset = targets.dataset.matched(predictions.classes, predictions.class_count)
        categories = dataset.category_of_class(predictions.classes, predictions.class_count)
        labels: dict[int, list[Annotation]] = {image.id: [] for image in dataset.images}
        for box in dataset.annotations:
            if not box.iscrowd:
                labels[box.image_id].append(box)
                self._labels[box.category_id] = self._labels.get(box.category_id, 0) + 1
        for image, rows in zip(predictions.ids, predictions.detections, strict=True):
            if image not in labels:
                continue
            classes = rows[:, 5].astype(int)
            for index in np.unique(classes):
                category = categories[index] if 0 <= index < len(categories) else None
                if category is not None:
                    found = rows[classes == index].astype(np.float64)
                    given = [box.bbox for box in labels[image] if box.category_id == category]
                    self._scores.setdefault(category, []).append(found[:, 4])
                    self._right.setdefault(category, []).append(_matched(found, np.array(given, np.float64)))

    def compute(self) -> Mapping[str, float]:
        """As `Metric` says."""
        if not self._labels:
            return dict.fromkeys(self.yields, -1.0)
        precisions = np.zeros((len(self._labels), len(_IOUS)))
        for row, (category, count) in enumerate(self._labels.items()):
            if category in self._scores:
                order = np.argsort(-np.concatenate(self._scores[category]), kind="stable")
                right = np.concatenate(self._right[category])[order].cumsum(0)
                for column, hits in enumerate(right.T):
                    precisions[row, column] = _area(hits, count)
        means = precisions.mean(0)
        return dict(zip(self.yields, (float(means.mean()), float(means[0])), strict=True))

    def reset(self) -> None:
        """As `Metric` says."""
        self._labels: dict[int, int] = {}  # boxes per category
        self._scores: dict[int, list[Float]] = {}  # per category and image
        self._right: dict[int, list[NDArray[np.bool_]]] = {}  # shape (k, IoUs) each


def _matched(rows: Float, given: Float) -> NDArray[np.bool_]:
    """Which detections of one image and class are right, per IoU: the best first, each takes the nearest label left."""
    right = np.zeros((len(rows), len(_IOUS)), bool)
    if not len(given):
        return right
    boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1)
    overlaps = np.asarray(mask.iou(boxes, given, [0] * len(given)))
    for column, threshold in enumerate(_IOUS):
        left = np.ones(len(given), bool)
        for row in np.argsort(-rows[:, 4], kind="stable"):
            nearest = int(np.where(left, overlaps[row], 0.0).argmax())
            if left[nearest] and overlaps[row, nearest] >= threshold:
                right[row, column], left[nearest] = True, False
    return right


def _area(hits: NDArray[np.int_], count: int) -> float:
    """Area under precision over recall; `hits` are right detections among the first 1, 2, ..., of `count` labels."""
    recall, precision = hits / count, hits / np.arange(1, len(hits) + 1)
    at = np.concatenate([[0.0], recall, [recall[-1], 1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[1.0], precision, [0.0, 0.0]])[::-1])[::-1]
    heights = np.interp(_RECALLS, at, envelope)
    return float((heights[:-1] + heights[1:]).mean() / 2)  # they lie evenly between 0 and 1
