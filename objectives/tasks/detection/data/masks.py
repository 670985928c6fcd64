"""Masks of detected objects, encoded as COCO does, on the pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from objectives.tasks.detection.data.letterbox import Placement

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Rle:
    """A mask in COCO's compressed run-length encoding.

    Attributes:
        height: Of the image, pixels.
        width: Of the image, pixels.
        counts: The runs.
    """

    height: int
    width: int
    counts: bytes

    @property
    def coco(self) -> dict[str, Any]:
        """As pycocotools takes it."""
        return {"size": [self.height, self.width], "counts": self.counts}


class Masks(Protocol):
    """Masks of the detections of one image, as a model gives them."""

    def encoded(self, boxes: Float, place: Placement) -> tuple[Rle, ...]:
        """Masks on the original image.

        Args:
            boxes: Shape (k, 4), float32: x1, y1, x2, y2 in pixels of the original image.
            place: Where the image lies in the model's input.
        """


@dataclass(frozen=True)
class CellMasks:
    """Masks on a grid of cells over the model's input, each cut to its box.

    Between the centres of cells values are linear. A pixel belongs to the mask if the value at its centre is above the
    floor and its corner lies in the box, as in Ultralytics 8.4 (``process_mask_native`` and ``crop_mask``).

    Attributes:
        basis: Shape (c, rows, columns), float32.
        weights: Shape (k, c), float32: a mask is the weighted sum of the basis; None where the basis is the masks.
        cell: Input pixels per cell, along a row and along a column.
        floor: Value that a pixel of the mask exceeds.
    """

    basis: Float
    weights: Float | None
    cell: tuple[float, float]
    floor: float = 0.0

    def encoded(self, boxes: Float, place: Placement) -> tuple[Rle, ...]:
        """As `Masks` says."""
        return tuple(self._encoded(index, box, place) for index, box in enumerate(boxes))

    def _encoded(self, index: int, box: Float, place: Placement) -> Rle:
        left, top, right, bottom = (int(value) for value in np.ceil(box))
        canvas = np.zeros((place.height, place.width), np.uint8, order="F")
        if right > left and bottom > top:
            weights = self.weights
            values = self.basis[index] if weights is None else np.tensordot(weights[index], self.basis, 1)
            steps = place.scale_x / self.cell[0], place.scale_y / self.cell[1]  # cells per image pixel
            # Pixel (x, y) of the cut has its centre at (left + x + 0.5, top + y + 0.5) of the image.
            offset_x = (left + 0.5) * steps[0] + place.pad_left / self.cell[0] - 0.5
            offset_y = (top + 0.5) * steps[1] + place.pad_top / self.cell[1] - 0.5
            columns = (np.arange(right - left) * steps[0] + offset_x).astype(np.float32)
            rows = (np.arange(bottom - top) * steps[1] + offset_y).astype(np.float32)
            at = np.meshgrid(columns, rows)
            found = cv2.remap(values.astype(np.float32), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            canvas[top:bottom, left:right] = found > self.floor
        return _encode(canvas)


@dataclass(frozen=True)
class PolygonMasks:
    """Masks that are polygons: the corners of oriented boxes.

    Attributes:
        corners: Shape (k, points, 2), float32: x, y in input pixels.
    """

    corners: Float

    def encoded(self, boxes: Float, place: Placement) -> tuple[Rle, ...]:
        """As `Masks` says; what leaves the image is cut off."""
        points = place.points_to_image(self.corners.reshape(-1, 2)).reshape(len(boxes), -1)
        return tuple(polygon([one.tolist()], place.height, place.width) for one in points)


def polygon(parts: list[list[float]], height: int, width: int) -> Rle:
    """The union of polygons, each x1, y1, x2, y2, ..., as pycocotools draws it."""
    return _of(mask.merge(mask.frPyObjects(parts, height, width)))


def _encode(canvas: NDArray[np.uint8]) -> Rle:
    return _of(mask.encode(canvas))


def _of(found: Any) -> Rle:
    height, width = (int(side) for side in found["size"])
    return Rle(height, width, bytes(found["counts"]))
