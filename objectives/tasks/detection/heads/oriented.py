"""Ultralytics' -obb head: boxes, classes and the angle of every anchor; boxes are those before they are turned.

Scored as the upright boxes around them, which is what the labels' boxes are too; their corners are masks.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.masks import PolygonMasks
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import DecodedChannels, channels_first
from objectives.tasks.detection.heads.head import Candidate, Float, Outputs
from objectives.tasks.detection.heads.instance_output import InstanceOutput
from objectives.tasks.detection.heads.instances import MASKS, Instances
from objectives.tasks.detection.heads.rotated import box_corners, hulls, suppress_rotated
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class OrientedHead:
    """Decoded boxes with class probabilities and an angle.

    Attributes:
        output: Of the instances; the angle stands behind the classes.
        preprocessing: Ultralytics'.
    """

    output: InstanceOutput
    preprocessing: Preprocessing

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = True
    gives: ClassVar[Set[str]] = frozenset({MASKS})

    @classmethod
    def recognise(cls, model: Candidate) -> OrientedHead:
        """As `Head` says."""
        return cls(InstanceOutput.of(model, "obb", 1), model.preprocessing())

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output.name,)

    @property
    def class_count(self) -> int:
        """As `Head` says."""
        return self.output.classes

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        return [found.rows for found in self.instances(outputs, thresholds)]

    def instances(self, outputs: Outputs, thresholds: Thresholds) -> list[Instances]:
        """As `InstanceHead` says; masks are the oriented boxes."""
        found = []
        for rows in self.output.rows(outputs, thresholds, _turned):
            boxes = rows[:, [0, 1, 2, 3, 6]]
            upright = np.concatenate([hulls(boxes), rows[:, 4:6]], 1)
            found.append(Instances(upright, PolygonMasks(box_corners(boxes))))
        return found

    def dense(self, graph: ModelGraph) -> OrientedChannels | None:
        """As `Head` says."""
        dense = self.output.dense(graph, self.preprocessing.size, 1.0)
        return OrientedChannels(**vars(dense)) if dense is not None else None


@dataclass(frozen=True)
class OrientedChannels(DecodedChannels):
    """Dense outputs of oriented boxes: the angle is the last channel."""

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DenseOutputs` says: the upright boxes around the oriented ones."""
        channels = channels_first(outputs[0], self.transposed)[0][:, anchors]
        return hulls(channels[[0, 1, 2, 3, -1]].T)


def _turned(boxes: Float, values: Float, scores: Float, thresholds: Thresholds) -> tuple[Float, NDArray[np.intp]]:
    """Oriented boxes that overlap a better one of their class are suppressed; rows keep their own form of the box."""
    labelled, index = suppress_rotated(np.concatenate([boxes, values[:, :1]], 1), scores, thresholds)
    return np.concatenate([boxes[index], labelled], 1), index
