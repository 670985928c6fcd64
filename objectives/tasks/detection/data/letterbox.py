"""Fits an image into the model's input, as its preprocessing says, and maps boxes there and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the model's input.

    Attributes:
        scale_x: Input pixels per image pixel, along a row.
        scale_y: The same along a column.
        pad_left: Padding left of the image, pixels.
        pad_top: Padding above the image, pixels.
        width: Width of the original image, pixels.
        height: Height of the original image, pixels.
    """

    scale_x: float
    scale_y: float
    pad_left: int
    pad_top: int
    width: int
    height: int

    @staticmethod
    def of(width: int, height: int, preprocessing: Preprocessing) -> Placement:
        """Places an image of `width` x `height`."""
        rows, columns = preprocessing.size
        if preprocessing.fit is Fit.STRETCHED:
            return Placement(columns / width, rows / height, 0, 0, width, height)
        scale = min(rows / height, columns / width)
        left = top = 0
        if preprocessing.fit is Fit.CENTRED:
            left = round((columns - round(width * scale)) / 2 - 0.1)  # as Ultralytics shares out an odd pixel
            top = round((rows - round(height * scale)) / 2 - 0.1)
        return Placement(scale, scale, left, top, width, height)

    @property
    def scaled(self) -> tuple[int, int]:
        """Width and height of the image in the input, pixels."""
        return max(1, round(self.width * self.scale_x)), max(1, round(self.height * self.scale_y))

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps boxes from input pixels to pixels of the original image, clipped to it.

        Args:
            boxes: Shape (k, 4), float32: x1, y1, x2, y2.
        """
        mapped = (boxes - self._pads) / self._scales
        limits = np.array([self.width, self.height] * 2, np.float32)
        clipped: NDArray[np.float32] = np.clip(mapped, 0, limits)
        return clipped

    def points_to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps points from input pixels to pixels of the original image, not clipped; shape (k, 2), float32: x, y."""
        mapped: NDArray[np.float32] = (points - self._pads[:2]) / self._scales[:2]
        return mapped

    def to_input(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps boxes from pixels of the original image to input pixels; shape (k, 4), float32: x1, y1, x2, y2."""
        mapped: NDArray[np.float32] = boxes * self._scales + self._pads
        return mapped

    @property
    def _pads(self) -> NDArray[np.float32]:
        return np.array([self.pad_left, self.pad_top] * 2, np.float32)

    @property
    def _scales(self) -> NDArray[np.float32]:
        return np.array([self.scale_x, self.scale_y] * 2, np.float32)


def letterbox(image_bgr: NDArray[np.uint8], preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], Placement]:
    """Scales an image, puts it beside its padding and turns it to colour planes.

    Args:
        image_bgr: Shape (h, w, 3), uint8, BGR as OpenCV reads it.
        preprocessing: Of the model.

    Returns:
        The input image, shape (3, H, W), uint8 (`Preprocessing.feed` makes input of it), and its placement.
    """
    height, width = image_bgr.shape[:2]
    place = Placement.of(width, height, preprocessing)
    scaled = place.scaled
    if scaled != (width, height):
        image_bgr = cv2.resize(image_bgr, scaled, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    canvas = np.full((3, *preprocessing.size), preprocessing.padding, np.uint8)
    rows = slice(place.pad_top, place.pad_top + scaled[1])
    columns = slice(place.pad_left, place.pad_left + scaled[0])
    planes = image_bgr[:, :, ::-1] if preprocessing.channels == "rgb" else image_bgr
    canvas[:, rows, columns] = planes.transpose(2, 0, 1)
    return canvas, place
