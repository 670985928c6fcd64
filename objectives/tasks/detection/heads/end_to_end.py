"""YOLOv10's end-to-end head: (batch, k, 6), the best boxes, nothing left to suppress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import DecodedChannels, refuse_other_tasks
from objectives.tasks.detection.heads.columns import boxes_are_shares, columns, first
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.layout import BoxLayout, selected_rows
from objectives.tasks.detection.heads.one_output import OneOutput
from objectives.tasks.detection.heads.selection import best_rows
from objectives.tasks.detection.heads.structure import dense_head, suppresses
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class EndToEndHead(OneOutput):
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
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> EndToEndHead:
        if len(shape) != 3:
            raise NotThisHead(f"{output} has {len(shape)} axes, not 3")
        if shape[2] != 6 and not (model.asked and shape[2] == 0):
            raise NotThisHead(f"the last axis of {output} {shape_text(shape)} is not 6")
        if not model.asked and suppresses(model.graph):
            raise NotThisHead(f"the graph of {output} suppresses boxes")
        if not model.asked and _has_dense_classes(model, output):
            raise NotThisHead(f"the last column of {output} {shape_text(shape)} is a probability, not a class")
        if not model.asked and boxes_are_shares(model.graph, output, 2):
            raise NotThisHead(f"the boxes of {output} are within 0..1, not in pixels")
        refuse_other_tasks(model, output)
        dense = dense_head(model.graph)
        found, named = dense.classes if dense else 0, len(model.classes)
        if found:
            model.check_class_count(output, found)
        return cls(output, model.preprocessing(), named or found)

    @property
    def layout(self) -> BoxLayout:
        """As `PlainHead` says."""
        return selected_rows(self.output)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        return [best_rows(rows, thresholds) for rows in np.asarray(outputs[0], np.float32)]

    def dense(self, graph: ModelGraph) -> DecodedChannels | None:
        """What precedes the selection; None where no tensor of 4 box channels with sigmoid classes does."""
        found = dense_head(graph)
        if found is None:
            return None
        size = self.preprocessing.size
        return DecodedChannels(found.tensor, found.transposed, found.corners, self.class_count, size)


def _has_dense_classes(model: Candidate, output: str) -> bool:
    """Whether the last column is a probability: a row is not selected, but holds two classes, or objectness and one."""
    last = first(columns(model.graph, output, 2), 5, 6)
    return bool(last) and last[0].probability
