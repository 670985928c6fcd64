"""Preprocessing: what becomes of an image before the model sees it; a head says how its family was trained."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Per colour, red first, of pixels in 0..1: what most backbones that were trained on ImageNet take off and divide by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Fit(Enum):
    """How an image is brought to the size of the input."""

    CENTRED = "letterbox"  #: Scaled to fit, in the middle of the padding: Ultralytics.
    TOP_LEFT = "letterbox_top_left"  #: Scaled to fit, padding to its right and below it: YOLOX.
    STRETCHED = "stretch"  #: Scaled to the whole input, each axis by its own factor: RT-DETR.


@dataclass(frozen=True)
class Preprocessing:
    """How images become input: ``(pixel / divisor - mean) / std``, planes of one colour after the other.

    Attributes:
        size: Input height and width, pixels.
        fit: How an image is brought to that size.
        padding: Level of the pixels beside the image, 0 to 255.
        channels: Order of the colour planes.
        divisor: Of the levels 0 to 255; 1 where the model takes them as they are.
        mean: Per plane, subtracted after the division.
        std: Per plane, divided by at last.
    """

    size: tuple[int, int]
    fit: Fit = Fit.CENTRED
    padding: int = 114
    channels: Literal["rgb", "bgr"] = "rgb"
    divisor: float = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def key(self) -> str:
        """Names it in the keys of caches; two that give other input have other keys."""
        shape = f"{self.size[0]}x{self.size[1]}"
        if self == Preprocessing(self.size):
            return shape
        others = (self.padding, self.channels, self.divisor, self.mean, self.std)
        return ":".join([shape, self.fit.value, *map(str, others)])

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Levels to input: shape (n, 3, H, W), uint8, to the same shape in float32."""
        scaled: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(self.divisor)
        if any(self.mean):
            scaled -= np.array(self.mean, np.float32).reshape(3, 1, 1)
        if self.std != (1.0, 1.0, 1.0):
            scaled /= np.array(self.std, np.float32).reshape(3, 1, 1)
        return scaled
