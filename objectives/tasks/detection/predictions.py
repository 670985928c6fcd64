"""Predictions: what one model detects on some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    ids: tuple[int, ...]
    detections: tuple[Float, ...]
    classes: tuple[str, ...] = ()
    class_count: int = 0

    @property
    def holds(self) -> frozenset[str]:
        """What is known of each detection, in the words of `Metric.needs`."""
        return frozenset({"boxes"})

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: set[int]) -> Predictions:
        """The predictions of some images."""
        kept = [(i, d) for i, d in zip(self.ids, self.detections, strict=True) if i in ids]
        return Predictions(tuple(i for i, _ in kept), tuple(d for _, d in kept), self.classes, self.class_count)

    def ordered(self, ids: Sequence[int]) -> Predictions:
        """The predictions of some images, in that order."""
        held = dict(zip(self.ids, self.detections, strict=True))
        return Predictions(tuple(ids), tuple(held[i] for i in ids), self.classes, self.class_count)
