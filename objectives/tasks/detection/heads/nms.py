"""Exports that end in ONNX's NonMaxSuppression: rows of what it kept.

Ultralytics' ``nms=True`` puts out (batch, k, 6): x1, y1, x2, y2, score, class, filled up with zeros. YOLOv7's
``--end2end`` for ONNX Runtime puts out (k, 7): number of the image, x1, y1, x2, y2, class, score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import DecodedChannels
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.layout import BoxLayout, selected_rows
from objectives.tasks.detection.heads.one_output import OneOutput
from objectives.tasks.detection.heads.selection import best_rows
from objectives.tasks.detection.heads.structure import dense_head, suppressed_classes, suppresses
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

_WIDTHS = {3: 6, 2: 7}  # columns by the number of axes
_AS_ROWS = [1, 2, 3, 4, 6, 5]  # columns of (k, 7) in the order of a head's rows

#: What a person should know who scores such a model.
SUPPRESSES = (
    "suppresses boxes itself, with a score threshold of its own: what lies below it is lost, and mAP with it; export "
    "without NMS to score as other models are"
)


@dataclass(frozen=True)
class NmsHead(OneOutput):
    """Rows of detections.

    Attributes:
        output: Name of the output.
        preprocessing: Ultralytics'.
        class_count: Number of classes; 0 where nothing says.
        numbered: Whether a row begins with the number of its image, of which there is one.
    """

    output: str
    preprocessing: Preprocessing
    class_count: int
    numbered: bool

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = False
    note: ClassVar[str] = SUPPRESSES

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> NmsHead:
        if not model.asked and not suppresses(model.graph):
            raise NotThisHead(f"the graph of {output} suppresses nothing")
        if len(model.graph.outputs) > 1 or not shape or shape[-1] not in (_WIDTHS.get(len(shape)), 0):
            raise NotThisHead(f"{output} has {len(shape)} axes {shape_text(shape)}, not (N, k, 6) or (k, 7) alone")
        count = suppressed_classes(model.graph)
        if count:
            model.check_class_count(output, count)
        return cls(output, model.preprocessing(), len(model.classes) or count, len(shape) == 2)

    @property
    def layout(self) -> BoxLayout | None:
        """As `PlainHead` says."""
        return None if self.numbered else selected_rows(self.output)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        found = np.asarray(outputs[0], np.float32)
        images = [found[:, _AS_ROWS]] if self.numbered else list(found)
        return [best_rows(rows, thresholds) for rows in images]

    def dense(self, graph: ModelGraph) -> DecodedChannels | None:
        """What precedes the suppression; None where no tensor of 4 box channels with sigmoid classes does."""
        found = dense_head(graph)
        if found is None:
            return None
        size = self.preprocessing.size
        return DecodedChannels(found.tensor, found.transposed, found.corners, found.classes, size)
