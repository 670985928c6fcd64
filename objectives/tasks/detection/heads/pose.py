"""Ultralytics' -pose head: boxes, classes and keypoints of every anchor, in input pixels."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import DecodedChannels, channels_first
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs
from objectives.tasks.detection.heads.instance_output import InstanceOutput, upright
from objectives.tasks.detection.heads.instances import KEYPOINTS, Instances
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph
from search_spaces.reading import literal


@dataclass(frozen=True)
class PoseHead:
    """Decoded boxes with class probabilities and keypoints.

    Attributes:
        output: Of the instances; keypoints stand behind the classes.
        preprocessing: Ultralytics'.
        dimensions: 3 where a keypoint is x, y, visibility; 2 without the last.
    """

    output: InstanceOutput
    preprocessing: Preprocessing
    dimensions: int = 3

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = True
    gives: ClassVar[Set[str]] = frozenset({KEYPOINTS})

    @classmethod
    def recognise(cls, model: Candidate) -> PoseHead:
        """As `Head` says."""
        form = literal(model.graph.metadata.get("kpt_shape", "None"))
        told = (
            form
            if isinstance(form, (list, tuple)) and len(form) == 2 and all(isinstance(n, int) for n in form)
            else None
        )
        found = InstanceOutput.of(model, "pose", told[0] * told[1] if told else None, decoded=True)
        dimensions = told[1] if told else 3 if found.extra % 3 == 0 else 2
        if dimensions not in (2, 3) or found.extra % dimensions:
            raise NotThisHead(f"{found.name}: {found.extra} values are not keypoints of 2 or 3 numbers")
        return cls(found, model.preprocessing(), dimensions)

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
        return [rows[:, :6] for rows in self.output.rows(outputs, thresholds, upright)]

    def instances(self, outputs: Outputs, thresholds: Thresholds) -> list[Instances]:
        """As `InstanceHead` says; where the model says nothing of a keypoint's visibility it is 1."""
        found = []
        for rows in self.output.rows(outputs, thresholds, upright):
            points = rows[:, 6:].reshape(len(rows), -1, self.dimensions)
            if self.dimensions == 2:
                points = np.concatenate([points, np.ones_like(points[:, :, :1])], 2)
            found.append(Instances(rows[:, :6], keypoints=points))
        return found

    def dense(self, graph: ModelGraph) -> KeypointChannels | None:
        """As `Head` says."""
        dense = self.output.dense(graph, self.preprocessing.size, 1 / max(self.preprocessing.size))
        return KeypointChannels(**vars(dense), dimensions=self.dimensions) if dense is not None else None


@dataclass(frozen=True)
class KeypointChannels(DecodedChannels):
    """Dense outputs of keypoints: they are the last channels.

    Attributes:
        dimensions: Numbers of a keypoint.
    """

    dimensions: int = 3

    def details(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DetailedOutputs` says: x, y from the corner of the box, as shares of the box's size."""
        values = channels_first(outputs[0], self.transposed)[0][-len(self.extra) :, anchors].T
        points = values.reshape(len(anchors), -1, self.dimensions)[:, :, :2]
        boxes = self.boxes(outputs, anchors)
        sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
        shares: Float = (points - boxes[:, None, :2]) / sizes[:, None]
        return shares.reshape(len(anchors), -1)
