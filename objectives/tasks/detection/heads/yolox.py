"""YOLOX's head: (batch, anchors, 5 + classes), a box, objectness and class probabilities at every anchor.

Boxes are decoded in the graph, or are offsets to the cell and logarithms of sizes, in strides (Ge et al., "YOLOX:
Exceeding YOLO Series in 2021", section 2.1). Images are BGR in 0..255, at the top left of the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from objectives.tasks.detection.heads.grid import anchor_points
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.one_output import OneOutput
from objectives.tasks.detection.heads.rows import ObjectRows, RowHead, rows_first


@dataclass(frozen=True)
class YoloxHead(OneOutput, RowHead):
    """Rows of one anchor per cell.

    Attributes:
        output: Name of the output.
        preprocessing: YOLOX's.
        class_count: Number of classes.
        strides: Pixels per anchor cell, one per level, where boxes are not decoded; else empty.
        transposed: Whether the output is (batch, 5 + classes, anchors).
    """

    output: str
    preprocessing: Preprocessing
    class_count: int
    strides: tuple[int, ...] = ()
    transposed: bool = False

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = False
    overflows: ClassVar[bool] = True

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> YoloxHead:
        found = ObjectRows.of(model, output, shape)
        in_place = found.objectness.maker == "ScatterND" and bool(found.strides(model, 1))
        if not model.asked and in_place and not model.classes:
            raise NotThisHead(
                f"{output} {shape_text(shape)} is decoded in place, which hides whether it holds objectness; give "
                "--head yolox if it does, or --classes",
                near=True,
            )
        if not model.asked and not found.apart and not (in_place and found.width == 5 + len(model.classes)):
            raise NotThisHead(f"{output} has no objectness from a layer of its own")
        count, decoded = found.width - 5, "Exp" in found.box_operators or found.box[0].maker != "Conv"
        model.check_class_count(output, count)
        strides = found.strides(model, 1)
        if not strides and not (decoded and model.asked):
            raise NotThisHead(f"{output}: its {found.rows} rows are not one for each cell of a grid")
        how = Preprocessing(model.image_size, Fit.TOP_LEFT, channels="bgr", divisor=1.0)
        return cls(output, how, count, () if decoded else strides, found.transposed)

    def rows(self, outputs: Outputs) -> Float:
        """As `RowHead` says."""
        rows = rows_first(outputs[0], self.transposed)
        if self.decoded:
            return rows
        centres, strides = anchor_points(self.preprocessing.size, self.strides)
        corner = (rows[..., :2] - np.float32(0.5)) * strides[:, None] + centres
        with np.errstate(over="ignore"):  # a size beyond float32 is infinite, and its row is left out
            size = np.exp(rows[..., 2:4]) * strides[:, None]
        found: Float = np.concatenate([corner, size, rows[..., 4:]], -1)
        return found
