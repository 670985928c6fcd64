"""Metric: figures of predictions. Adding one is a file and a line of the registry, or an entry point elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.predictions import Predictions

#: What a metric may need: of each detection its box, labels, and the reference model's detections on the same images.
BOXES, LABELS, REFERENCE = "boxes", "labels", "reference"
#: What else it may need of each detection and of the labels.
MASKS, KEYPOINTS = "masks", "keypoints"


@dataclass(frozen=True)
class Targets:
    """What predictions are compared with.

    Attributes:
        dataset: The labels.
        reference: The unquantized model's detections on the same images; None where there are none.
    """

    dataset: CocoDataset
    reference: Predictions | None = None


class Metric(Protocol):
    """Figures of one model's predictions, gathered image set by image set; made without arguments.

    Attributes:
        needs: What must be known: `BOXES`, `LABELS`, `REFERENCE`, `MASKS`, `KEYPOINTS`, or a further word that
            `Predictions.holds` may tell.
        yields: Names of its figures, e.g. ``map_50_95``; names that begin with ``map_`` are average precisions.
    """

    needs: ClassVar[frozenset[str]]
    yields: ClassVar[tuple[str, ...]]

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """Adds images.

        Args:
            predictions: On these images, and perhaps on others. Images without predictions count as images without
                detections.
            targets: Of these images; each image is given once.

        Raises:
            InputError: The predictions do not fit the labels.
        """

    def compute(self) -> Mapping[str, float]:
        """The figures of all images so far, one per name of `yields`."""

    def reset(self) -> None:
        """Forgets all images."""


@runtime_checkable
class Resampled(Protocol):
    """A metric that can tell how far its first figure is a matter of which images were taken: that of an accuracy."""

    def resampled(self, predictions: Predictions, targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
        """The first figure on the images, and on each bootstrap sample of them, shape ``(1 + samples,)``.

        Samples of one seed are the same images for every model, so that the results of two are paired.
        """
