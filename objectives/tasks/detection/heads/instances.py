"""Instances: what heads give that say more of an object than its box."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from objectives.tasks.detection.data.masks import Masks
from objectives.tasks.detection.heads.head import Float, Head, Outputs
from objectives.tasks.detection.thresholds import Thresholds

#: What a head may give of every detection besides its box, in the words of `Metric.needs`.
MASKS, KEYPOINTS = "masks", "keypoints"


@dataclass(frozen=True)
class Instances:
    """Detections of one image.

    Attributes:
        rows: As of `Head.decode`.
        masks: Of each row; None where the head has none, or nobody asked.
        keypoints: Shape (k, points, 3), float32: x, y in input pixels, score; None where the head has none.
    """

    rows: Float
    masks: Masks | None = None
    keypoints: Float | None = None


@runtime_checkable
class InstanceHead(Head, Protocol):
    """A head that may give masks or keypoints too."""

    @property
    def gives(self) -> Set[str]:
        """`MASKS`, `KEYPOINTS`, both or none."""

    def instances(self, outputs: Outputs, thresholds: Thresholds) -> Sequence[Instances]:
        """Decodes one batch, as `decode` does, with all that it gives."""
