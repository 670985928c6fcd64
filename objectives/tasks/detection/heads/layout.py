"""How boxes lie in an output, for readers that are not ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class BoxLayout:
    """One output that holds all there is to know of the boxes: (batch, boxes, columns), or (batch, columns, boxes).

    The first four columns are the box. Then come, in this order, objectness where there is one, and either a
    probability for each class, or the score and the class alone.

    Attributes:
        output: Name of the output.
        boxes_last: Whether the boxes are its last axis.
        corners: Whether a box is x1, y1, x2, y2; else centre x, y, width, height.
        selected: Whether score and class stand behind the box, instead of all classes.
        objectness: Whether class probabilities are to be multiplied by the fifth column.
        normalised: Whether boxes are shares of the input; else its pixels.
        suppressed: Whether no two boxes of one object are left.
    """

    output: str
    boxes_last: bool
    corners: bool
    selected: bool
    objectness: bool
    normalised: bool
    suppressed: bool


def selected_rows(output: str) -> BoxLayout:
    """Rows of x1, y1, x2, y2 in input pixels, score and class, of which none is too many."""
    return BoxLayout(output, False, corners=True, selected=True, objectness=False, normalised=False, suppressed=True)


@runtime_checkable
class PlainHead(Protocol):
    """A head whose output can be read without knowing its family."""

    @property
    def layout(self) -> BoxLayout | None:
        """Its layout; None where this model's boxes are still to be decoded."""
