"""What heads share that put out rows: a box, its objectness, and class probabilities, given that there is an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.boxes import to_corners
from objectives.tasks.detection.heads.columns import Columns, columns, first
from objectives.tasks.detection.heads.grid import anchor_strides
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.layout import BoxLayout
from objectives.tasks.detection.heads.suppression import suppress
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

_OBJECTNESS = 4  # the column
_FAR = 1e6  # pixels: beyond any image


@dataclass(frozen=True)
class ObjectRows:
    """An output (batch, rows, 5 + classes) that may hold objectness, as the graph shows it.

    Attributes:
        name: Of the output.
        rows: Their number; 0 where open.
        width: Number of columns.
        transposed: Whether it is (batch, 5 + classes, rows).
        box: What its box columns are made of.
        objectness: What the fifth column is made of.
        classes: What the others are made of.
        constant: Whether its objectness is the same everywhere: YOLOv6.
    """

    name: str
    rows: int
    width: int
    transposed: bool
    box: tuple[Columns, ...]
    objectness: Columns
    classes: tuple[Columns, ...]
    constant: bool

    @staticmethod
    def of(model: Candidate, name: str, shape: tuple[int, ...]) -> ObjectRows:
        """Reads an output.

        Raises:
            NotThisHead: It cannot hold a box, objectness and classes.
        """
        if len(shape) != 3:
            raise NotThisHead(f"{name} has {len(shape)} axes, not 3")
        wanted = 5 + len(model.classes) if model.classes else 0
        axes = sorted((2, 1), key=lambda axis: (shape[axis] != wanted, 0 < shape[3 - axis] < shape[axis]))
        axis = axes[0]
        width, rows = shape[axis], shape[3 - axis]
        parts = columns(model.graph, name, axis)
        if width < _OBJECTNESS + 2 or not parts:
            raise NotThisHead(f"{name} {shape_text(shape)} has no 4 + 1 + classes columns")
        objectness = first(parts, _OBJECTNESS, _OBJECTNESS + 1)[0]
        constant = objectness.source in model.graph.initializers
        found = first(parts, 0, _OBJECTNESS), objectness, first(parts, _OBJECTNESS + 1, width)
        return ObjectRows(name, rows, width, axis == 1, *found, constant)

    @property
    def apart(self) -> bool:
        """Whether a branch of the network makes the objectness alone, which no head without it has."""
        sources = {part.source for part in self.classes}
        return self.objectness.probability and self.objectness.source not in sources and self._classes_probable

    @property
    def together(self) -> bool:
        """Whether one layer makes objectness and classes."""
        sources = {part.source for part in self.classes}
        return self.objectness.probability and {self.objectness.source} == sources and self._classes_probable

    @property
    def box_operators(self) -> frozenset[str]:
        """What the box columns passed."""
        return frozenset(operator for part in self.box for operator in part.operators)

    @property
    def _classes_probable(self) -> bool:
        return len(self.classes) == 1 and self.classes[0].probability

    def strides(self, model: Candidate, per_cell: int) -> tuple[int, ...]:
        """Strides of the grid, where that many rows of each cell make up all; empty where none do."""
        return anchor_strides(self.rows // per_cell, model.image_size) if self.rows % per_cell == 0 else ()


def check_without_objectness(model: Candidate, name: str, shape: tuple[int, ...]) -> None:
    """Refuses an output that holds objectness, for the heads that know none.

    Raises:
        NotThisHead: It does.
    """
    try:
        found = ObjectRows.of(model, name, shape)
    except NotThisHead:
        return
    if found.apart or (found.constant and found.strides(model, 1)) or (found.together and found.strides(model, 3)):
        raise NotThisHead(f"{name} {shape_text(shape)} holds objectness")


class RowHead(ABC):
    """A head that reads rows; a frozen dataclass that has these attributes.

    Attributes:
        preprocessing: How images become input.
        class_count: Number of classes.
        strides: Pixels per cell, one per level, where the outputs hold encoded boxes; else empty.
        transposed: Whether the outputs are (batch, columns, rows).
    """

    preprocessing: Preprocessing
    class_count: int
    strides: tuple[int, ...]
    transposed: bool

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """As `Head` says."""

    @abstractmethod
    def rows(self, outputs: Outputs) -> Float:
        """Decoded rows (batch, k, 5 + classes): centre x, y, width, height in input pixels, probabilities."""

    @property
    def decoded(self) -> bool:
        """Whether the graph decodes boxes."""
        return not self.strides

    @property
    def layout(self) -> BoxLayout | None:
        """As `PlainHead` says."""
        if not self.decoded or len(self.outputs) != 1:
            return None
        return BoxLayout(
            self.outputs[0],
            self.transposed,
            corners=False,
            selected=False,
            objectness=True,
            normalised=False,
            suppressed=False,
        )

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says; boxes that overlap a better one are suppressed."""
        return [_decoded(rows, thresholds) for rows in self.rows(outputs)]

    def dense(self, graph: ModelGraph) -> DenseRows:
        """The outputs themselves."""
        return DenseRows(self)


def rows_first(output: NDArray[np.generic], transposed: bool) -> Float:
    """An output as (batch, rows, columns), float32."""
    found = np.asarray(output, np.float32)
    return found.transpose(0, 2, 1) if transposed else found


def _decoded(rows: Float, thresholds: Thresholds) -> Float:
    """Selects among the rows (k, 5 + classes) of one image; a score is objectness times class probability."""
    kept = rows[rows[:, _OBJECTNESS] > thresholds.confidence]
    kept = np.concatenate([np.clip(kept[:, :4], -_FAR, _FAR), kept[:, 4:]], 1)  # a size may have overflown
    kept = kept[np.isfinite(kept).all(1)]
    scores = kept[:, _OBJECTNESS + 1 :] * kept[:, _OBJECTNESS, None]
    some = (scores > thresholds.confidence).any(1)
    return suppress(to_corners(kept[some, :4]), np.ascontiguousarray(scores[some].T), thresholds)


@dataclass(frozen=True)
class DenseRows:
    """The dense outputs of a head that reads rows.

    Attributes:
        head: The head.
    """

    head: RowHead

    @property
    def tensors(self) -> tuple[str, ...]:
        """The outputs."""
        return self.head.outputs

    def probabilities(self, outputs: Outputs, anchors: NDArray[np.intp] | None = None) -> Float:
        """As `DenseOutputs` says: those of objects of a class."""
        rows = self.head.rows(outputs)[0]
        chosen = rows if anchors is None else rows[anchors]
        return np.ascontiguousarray((chosen[:, _OBJECTNESS + 1 :] * chosen[:, _OBJECTNESS, None]).T)

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DenseOutputs` says."""
        return to_corners(self.head.rows(outputs)[0][anchors, :4])

    def factors(self) -> tuple[Float | None, ...]:
        """Boxes as fractions of the image; None where they are encoded."""
        if not self.head.decoded:
            return tuple(None for _ in self.tensors)
        factors = np.ones(_OBJECTNESS + 1 + self.head.class_count, np.float32)
        height, width = self.head.preprocessing.size
        factors[:4] = 1 / np.array([width, height, width, height], np.float32)
        return (factors.reshape((1, -1, 1) if self.head.transposed else (1, 1, -1)),)
