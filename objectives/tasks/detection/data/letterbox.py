"""Letterbox: fits an image into the model's input as Ultralytics does, and maps boxes back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PADDING = 114


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the model's input.

    Attributes:
        scale: Input pixels per image pixel.
        pad_left: Padding left of the image, pixels.
        pad_top: Padding above the image, pixels.
        width: Width of the original image, pixels.
        height: Height of the original image, pixels.
    """

    scale: float
    pad_left: int
    pad_top: int
    width: int
    height: int

    @staticmethod
    def of(width: int, height: int, size: tuple[int, int]) -> Letterbox:
        """Places an image of `width` x `height` in an input of ``size = (H, W)``."""
        scale = min(size[0] / height, size[1] / width)
        scaled_width, scaled_height = round(width * scale), round(height * scale)
        return Letterbox(
            scale=scale,
            pad_left=round((size[1] - scaled_width) / 2 - 0.1),
            pad_top=round((size[0] - scaled_height) / 2 - 0.1),
            width=width,
            height=height,
        )

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps boxes from input pixels to pixels of the original image, clipped to it.

        Args:
            boxes: Shape (k, 4), float32: x1, y1, x2, y2.
        """
        pads = np.array([self.pad_left, self.pad_top] * 2, np.float32)
        mapped = (boxes - pads) / np.float32(self.scale)
        limits = np.array([self.width, self.height] * 2, np.float32)
        clipped: NDArray[np.float32] = np.clip(mapped, 0, limits)
        return clipped


def letterbox(image_bgr: NDArray[np.uint8], size: tuple[int, int]) -> tuple[NDArray[np.uint8], Letterbox]:
    """Scales an image to fit, centres it on grey padding and turns it to RGB planes.

    Args:
        image_bgr: Shape (h, w, 3), uint8, BGR as OpenCV reads it.
        size: Input height and width, pixels.

    Returns:
        The input image, shape (3, H, W), uint8 RGB (divide by 255 to feed it), and its placement.
    """
    height, width = image_bgr.shape[:2]
    place = Letterbox.of(width, height, size)
    scaled = (max(1, round(width * place.scale)), max(1, round(height * place.scale)))
    if scaled != (width, height):
        image_bgr = cv2.resize(image_bgr, scaled, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    canvas = np.full((3, *size), PADDING, np.uint8)
    rows = slice(place.pad_top, place.pad_top + scaled[1])
    columns = slice(place.pad_left, place.pad_left + scaled[0])
    canvas[:, rows, columns] = image_bgr[:, :, ::-1].transpose(2, 0, 1)
    return canvas, place
