"""The head of YOLOv5 and YOLOv7: three anchors at every cell, each a box, objectness and class probabilities.

Decoded in the graph it is one output (batch, rows, 5 + classes); YOLOv6 puts out the same for one anchor, its
objectness always 1. Cut before that, it is (batch, 3, height, width, 5 + classes) per level, or (batch, 3 x (5 +
classes), height, width), or the rows of all levels: a box is then relative to its cell and to an anchor, whose size the
graph does not tell (YOLOv5's architecture summary, "Eliminate Grid Sensitivity").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.grid import anchor_points
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, first_output
from objectives.tasks.detection.heads.levels import Levels
from objectives.tasks.detection.heads.logits import sigmoid
from objectives.tasks.detection.heads.rows import ObjectRows, RowHead, rows_first

_PER_CELL = 3
_USUAL_LEVELS = 3  # with fewer, another number of rows may be three for each cell by chance

#: Widths and heights, pixels: per stride three pairs.
Anchors = dict[int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True)
class Yolov5Head(RowHead):
    """Rows of three anchors per cell.

    Attributes:
        names: Of the outputs.
        preprocessing: Ultralytics'.
        class_count: Number of classes.
        strides: Pixels per cell, one per level, where boxes are not decoded; else empty.
        logits: Whether what is not decoded has not passed its Sigmoid.
        transposed: Whether decoded rows are (batch, 5 + classes, rows).
    """

    names: tuple[str, ...]
    preprocessing: Preprocessing
    class_count: int
    strides: tuple[int, ...] = ()
    logits: bool = False
    transposed: bool = False

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = False
    #: Of the family's models as published.
    anchors: ClassVar[Anchors] = {
        8: ((10, 13), (16, 30), (33, 23)),
        16: ((30, 61), (62, 45), (59, 119)),
        32: ((116, 90), (156, 198), (373, 326)),
    }

    @classmethod
    def recognise(cls, model: Candidate) -> Yolov5Head:
        """As `Head` says."""
        levels = Levels.of(model, _PER_CELL)
        if levels is not None and not any(len(shape) == 3 for shape in model.graph.outputs.values()):
            cls._check_anchors(model, levels.names[0], levels.strides)
            count = levels.width - 5
            model.check_class_count(levels.names[0], count)
            return cls(levels.names, model.preprocessing(), count, levels.strides, levels.logits)
        return first_output(model, lambda name, shape: cls._read(model, name, shape))

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> Yolov5Head:
        found = ObjectRows.of(model, output, shape)
        strides, count = found.strides(model, _PER_CELL), found.width - 5
        logits = found.objectness.maker == "Conv" and not found.objectness.operators
        likely = found.together or logits or (len(strides) >= _USUAL_LEVELS and not found.apart)
        if not model.asked and not (strides and likely) and not (found.constant and found.strides(model, 1)):
            raise NotThisHead(f"{output}: its {found.rows} rows are not three with objectness for each cell of a grid")
        model.check_class_count(output, count)
        encoded = logits or (found.together and all(part.operators == ("Sigmoid",) for part in found.box))
        if encoded:
            cls._check_anchors(model, output, strides)
        return cls((output,), model.preprocessing(), count, strides if encoded else (), logits, found.transposed)

    @classmethod
    def _check_anchors(cls, model: Candidate, output: str, strides: tuple[int, ...]) -> None:
        if not model.asked:
            raise NotThisHead(
                f"{output} holds boxes relative to anchors that the graph does not tell; give --head yolov5 or "
                "--head yolov7 for those of that family, or export with decoded boxes",
                near=True,
            )
        if not strides or not set(strides) <= set(cls.anchors):
            raise NotThisHead(
                f"{output}: its rows are not three for each cell at strides {', '.join(map(str, cls.anchors))}; "
                "export with decoded boxes"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output, or one of each level."""
        return self.names

    def rows(self, outputs: Outputs) -> Float:
        """As `RowHead` says."""
        width = 5 + self.class_count
        if np.ndim(outputs[0]) == 3:
            rows = rows_first(outputs[0], self.transposed)
        else:
            rows = np.concatenate([Levels.rows(output, _PER_CELL, width) for output in outputs], 1)
        if self.decoded:
            return rows
        shares = sigmoid(rows) if self.logits else rows
        centres, steps, sizes = self._places()
        centre = (2 * shares[..., :2] - 1) * steps[:, None] + centres
        found: Float = np.concatenate([centre, (2 * shares[..., 2:4]) ** 2 * sizes, shares[..., 4:]], -1)
        return found

    def _places(self) -> tuple[Float, Float, Float]:
        """Centre, stride and anchor size of every row: level by level, anchor by anchor, cell by cell."""
        parts = []
        for stride in self.strides:
            centres, steps = anchor_points(self.preprocessing.size, (stride,))
            for size in self.anchors[stride]:
                parts.append((centres, steps, np.tile(np.array(size, np.float32), (len(centres), 1))))
        centres, steps, sizes = (np.concatenate(each) for each in zip(*parts, strict=True))
        return centres, steps, sizes
