"""Draws detections on images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.618034  # steps of the hue: neighbouring classes differ
_TITLE_SHARE = 0.06


def draw(
    image_bgr: Image, detections: NDArray[np.float32], class_names: Sequence[str], confidence: float = 0.25
) -> Image:
    """Returns a copy of an image with boxes, class names and scores.

    Args:
        image_bgr: Shape (h, w, 3), uint8.
        detections: Shape (k, 6): x1, y1, x2, y2 in image pixels, score, class index.
        class_names: By index; where empty the index itself is written.
        confidence: Lower scores are not drawn.
    """
    canvas: Image = image_bgr.copy()
    width = max(1, round(min(canvas.shape[:2]) / 320))
    scale = max(0.35, min(canvas.shape[:2]) / 1100)
    for x1, y1, x2, y2, score, index in detections[::-1].tolist():
        if score < confidence:
            continue
        name = class_names[int(index)] if int(index) < len(class_names) else str(int(index))
        colour = _colour(int(index))
        corner = (round(x1), round(y1))
        cv2.rectangle(canvas, corner, (round(x2), round(y2)), colour, width)
        text = f"{name} {score:.2f}"
        (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, scale, width)
        top = max(corner[1] - text_height - baseline, 0)
        left = max(min(corner[0], canvas.shape[1] - 1 - text_width), 0)
        cv2.rectangle(canvas, (left, top), (left + text_width, top + text_height + baseline), colour, -1)
        ink = (0, 0, 0) if 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140 else (255, 255, 255)
        cv2.putText(canvas, text, (left, top + text_height), _FONT, scale, ink, width, cv2.LINE_AA)
    return canvas


def side_by_side(left: Image, right: Image, titles: tuple[str, str]) -> Image:
    """Returns two images of one height next to each other under their titles.

    Raises:
        ValueError: The heights differ.
    """
    if left.shape[0] != right.shape[0]:
        raise ValueError(f"heights differ: {left.shape[0]} and {right.shape[0]}")
    bar = max(18, round(left.shape[0] * _TITLE_SHARE))
    titled = []
    for image, title in zip((left, right), titles, strict=True):
        strip = np.full((bar, image.shape[1], 3), 32, np.uint8)
        scale = bar / 40
        (width, _), _ = cv2.getTextSize(title, _FONT, scale, 1)
        scale *= min(1.0, 0.96 * image.shape[1] / max(width, 1))
        cv2.putText(strip, title, (4, round(bar * 0.72)), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
        titled.append(np.concatenate([strip, image]))
    gap = np.full((titled[0].shape[0], 4, 3), 255, np.uint8)
    joined: Image = np.concatenate([titled[0], gap, titled[1]], 1)
    return joined


def write_picture(path: Path, image: Image) -> bool:
    """Writes an image in the format of its suffix; returns whether that was possible."""
    try:
        return bool(cv2.imwrite(str(path), image))
    except cv2.error:  # no format of that suffix
        return False


def _colour(index: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN) % 1, 0.85, 0.95)
    return round(255 * blue), round(255 * green), round(255 * red)
