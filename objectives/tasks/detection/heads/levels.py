"""Outputs of one level each, some anchors at every cell, as rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.heads.columns import columns
from objectives.tasks.detection.heads.grid import cells
from objectives.tasks.detection.heads.head import Candidate, Float

_NARROWEST = 6  # 4 for the box, objectness, 1 class


@dataclass(frozen=True)
class Levels:
    """Outputs (batch, per cell, height, width, columns), or (batch, per cell x columns, height, width).

    Attributes:
        names: Of the outputs, by stride.
        strides: Pixels per cell.
        width: Columns of a row.
        logits: Whether they have not passed a Sigmoid.
    """

    names: tuple[str, ...]
    strides: tuple[int, ...]
    width: int
    logits: bool

    @staticmethod
    def of(model: Candidate, per_cell: int) -> Levels | None:
        """Reads them; None where the outputs are something else."""
        found = []
        for name, shape in model.graph.outputs.items():
            if len(shape) not in (4, 5) or shape[1] % per_cell or (len(shape) == 5 and shape[1] != per_cell):
                continue
            width = shape[4] if len(shape) == 5 else shape[1] // per_cell
            stride = model.image_size[0] // shape[2] if shape[2] else 0
            if width >= _NARROWEST and stride and cells(model.image_size, stride) == shape[2:4]:
                found.append((stride, name, width))
        strides, names, widths = zip(*sorted(found), strict=True) if found else ((), (), ())
        if len(set(widths)) != 1 or len(set(strides)) != len(strides):
            return None
        rank = len(model.graph.outputs[names[0]])
        parts = columns(model.graph, names[0], 4 if rank == 5 else 1)
        return Levels(names, strides, widths[0], not any("Sigmoid" in part.operators for part in parts))

    @staticmethod
    def rows(output: NDArray[np.generic], per_cell: int, width: int) -> Float:
        """One level as rows (batch, per cell x height x width, columns), anchor by anchor, cell by cell."""
        values = np.asarray(output, np.float32)
        if values.ndim == 4:
            values = values.reshape(len(values), per_cell, width, *values.shape[2:]).transpose(0, 1, 3, 4, 2)
        return values.reshape(len(values), -1, width)
