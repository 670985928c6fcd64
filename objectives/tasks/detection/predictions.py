"""Predictions: what one model detects on some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.masks import Rle

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Detections of one model.

    Attributes:
        ids: Image id of each image.
        detections: Per image an array (k, 6), float32: x1, y1, x2, y2 in pixels of the original image, score,
            class index; best first.
        classes: Class names by index; empty where the model has none.
        class_count: Number of classes; 0 where unknown.
        masks: Per image the mask of each detection; None where nobody asked for them.
        keypoints: Per image an array (k, points, 3), float32: x, y in pixels of the original image, score; None where
            nobody asked for them.
    """

    ids: tuple[int, ...]
    detections: tuple[Float, ...]
    classes: tuple[str, ...] = ()
    class_count: int = 0
    masks: tuple[tuple[Rle, ...], ...] | None = None
    keypoints: tuple[Float, ...] | None = None

    @property
    def holds(self) -> frozenset[str]:
        """What is known of each detection, in the words of `Metric.needs`."""
        have = {"boxes": self.detections, "masks": self.masks, "keypoints": self.keypoints}
        return frozenset(word for word, values in have.items() if values is not None)

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: set[int]) -> Predictions:
        """The predictions of some images."""
        return self.ordered([i for i in self.ids if i in ids])

    def ordered(self, ids: Sequence[int]) -> Predictions:
        """The predictions of some images, in that order."""
        place = {i: row for row, i in enumerate(self.ids)}
        rows = [place[i] for i in ids]
        return replace(
            self,
            ids=tuple(ids),
            detections=tuple(self.detections[row] for row in rows),
            masks=None if self.masks is None else tuple(self.masks[row] for row in rows),
            keypoints=None if self.keypoints is None else tuple(self.keypoints[row] for row in rows),
        )
