"""RT-DETR's head as Ultralytics exports it: one row per query, centre x, y, width, height as shares of the input.

A row goes on with the probabilities of all classes, (batch, queries, 4 + classes), or, by later versions, with a
score and a class, (batch, k, 6), the best first. Images are stretched, not letterboxed. Nothing is left to suppress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from objectives.tasks.detection.heads.boxes import to_corners, to_pixels
from objectives.tasks.detection.heads.columns import boxes_are_shares, columns, first
from objectives.tasks.detection.heads.grid import anchor_strides
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.one_output import OneOutput
from objectives.tasks.detection.heads.rows import check_without_objectness, rows_first
from objectives.tasks.detection.heads.selection import best_pairs, best_rows
from objectives.tasks.detection.heads.structure import classes_behind
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

_DECODER = "RTDETRDecoder"  # the entry `head` of Ultralytics' metadata


@dataclass(frozen=True)
class RtDetrHead(OneOutput):
    """Rows of queries.

    Attributes:
        output: Name of the output.
        preprocessing: Ultralytics' for this family.
        class_count: Number of classes; 0 where nothing says.
        selected: Whether a row holds the one score and class of a selected pair.
        transposed: Whether the output is (batch, columns, queries).
    """

    output: str
    preprocessing: Preprocessing
    class_count: int
    selected: bool
    transposed: bool = False

    one_to_one: ClassVar[bool] = True
    exported: ClassVar[bool] = False

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> RtDetrHead:
        if len(shape) != 3:
            raise NotThisHead(f"{output} has {len(shape)} axes, not 3")
        wanted = 4 + len(model.classes) if model.classes else 0
        axis = 1 if shape[1] and (shape[1] == wanted != shape[2] or (not wanted and shape[1] < shape[2])) else 2
        width, queries = shape[axis], shape[3 - axis]
        if width < 5:
            raise NotThisHead(f"{output} {shape_text(shape)} has no 4 + classes columns")
        known = model.graph.metadata.get("head") == _DECODER
        if not model.asked:
            check_without_objectness(model, output, shape)
        if not model.asked and not known:
            if not boxes_are_shares(model.graph, output, axis):
                raise NotThisHead(f"the boxes of {output} are not certain to be within 0..1")
            if queries and anchor_strides(queries, model.image_size):
                raise NotThisHead(f"{output} has a row for every cell of an anchor grid")
        scores = first(columns(model.graph, output, axis), 4, 6)
        selected = width == 6 and wanted != 6 and not (scores and scores[-1].probability)
        count = width - 4
        if selected:
            count = classes_behind(model.graph, scores[0].source) or len(model.classes) if scores else 0
        if count:
            model.check_class_count(output, count)
        return cls(output, model.preprocessing(Fit.STRETCHED), count, selected, axis == 1)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        return [self._decode(rows, thresholds) for rows in rows_first(outputs[0], self.transposed)]

    def dense(self, graph: ModelGraph) -> None:
        """None: which proposal becomes which query is selected inside, so that two models' queries do not pair."""

    def _decode(self, rows: Float, thresholds: Thresholds) -> Float:
        boxes = to_pixels(to_corners(rows[:, :4]), self.preprocessing.size)
        if self.selected:
            return best_rows(np.concatenate([boxes, rows[:, 4:]], 1), thresholds)
        return best_pairs(boxes, rows[:, 4:], thresholds)
