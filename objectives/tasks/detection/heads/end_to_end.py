"""YOLOv10's end-to-end head: (batch, k, 6), the best boxes, nothing left to suppress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import DecodedChannels, refuse_other_tasks
from objectives.tasks.detection.heads.grid import anchor_strides
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, first_output, shape_text
from objectives.tasks.detection.heads.structure import channel_parts, dense_head
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class EndToEndHead:
    """Rows of x1, y1, x2, y2 in input pixels, score, class.

    Attributes:
        output: Name of the output.
        preprocessing: Ultralytics'.
        class_count: Number of classes; 0 where nothing says.
    """

    output: str
    preprocessing: Preprocessing
    class_count: int

    one_to_one: ClassVar[bool] = True
    exported: ClassVar[bool] = True

    @classmethod
    def recognise(cls, model: Candidate) -> EndToEndHead:
        """As `Head` says."""
        return first_output(model, lambda name, shape: cls._read(model, name, shape))

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> EndToEndHead:
        if len(shape) != 3:
            raise NotThisHead(f"{output} has {len(shape)} axes, not 3")
        if shape[2] != 6 and not (model.asked and shape[2] == 0):
            raise NotThisHead(f"the last axis of {output} {shape_text(shape)} is not 6")
        refuse_other_tasks(model, output)
        if not model.asked and _is_grid(model, output, shape):
            raise NotThisHead(f"{output} {shape_text(shape)} has two classes at every anchor")
        dense = dense_head(model.graph)
        found, named = dense.classes if dense else 0, len(model.classes)
        if named and found and named != found:
            raise NotThisHead(
                f"{output} has {found} classes but there are {named} class names; see --classes (model.classes)"
            )
        return cls(output, Preprocessing(model.image_size), named or found)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output,)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        return [_select(rows, thresholds) for rows in np.asarray(outputs[0], np.float32)]

    def dense(self, graph: ModelGraph) -> DecodedChannels | None:
        """What precedes the selection; None where no tensor of 4 box channels with sigmoid classes does."""
        found = dense_head(graph)
        if found is None:
            return None
        size = self.preprocessing.size
        return DecodedChannels(found.tensor, found.transposed, found.corners, self.class_count, size)


def _is_grid(model: Candidate, output: str, shape: tuple[int, ...]) -> bool:
    """Tells a transposed output of two classes, (N, anchors, 4 + 2), from (N, k, 6)."""
    if shape[1] == 0 or not anchor_strides(shape[1], model.image_size):
        return False
    parts = channel_parts(model.graph, output)
    return parts is not None and parts.boxes + parts.classes == 6


def _select(rows: Float, thresholds: Thresholds) -> Float:
    rows = rows[np.isfinite(rows).all(1)]
    rows = rows[rows[:, 4] > thresholds.confidence]
    return rows[np.argsort(-rows[:, 4], kind="stable")][: thresholds.max_detections]
