"""Head: what one family of detectors puts out, and how it is read. Adding one is a file and a line of the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from objectives.tasks.detection.heads.input_levels import takes_levels
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

Float = NDArray[np.float32]
Outputs = Sequence[NDArray[np.generic]]
T = TypeVar("T")


class NotThisHead(Exception):
    """Why a model does not end in some head: one clause that names the output.

    Args:
        reason: The clause.
        near: Whether the model is of this family all the same, and `reason` says what its user can do.
    """

    def __init__(self, reason: str, near: bool = False) -> None:
        super().__init__(reason)
        self.near = near


@dataclass(frozen=True)
class Candidate:
    """A model that may end in a head.

    Attributes:
        graph: The model.
        image_size: Input height and width, pixels.
        classes: Class names by index; empty where neither the model nor the study names them.
        asked: Whether the user named this very head, so that shapes alone need not tell it from others.
    """

    graph: ModelGraph
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    asked: bool = False

    def preprocessing(self, fit: Fit = Fit.CENTRED) -> Preprocessing:
        """Ultralytics' preprocessing: RGB in 0..1, or in 0..255 where the graph itself begins with a division."""
        return Preprocessing(self.image_size, fit, divisor=1.0 if takes_levels(self.graph) else 255.0)

    def check_class_count(self, output: str, count: int) -> None:
        """Refuses an output that has another number of classes than there are names.

        Raises:
            NotThisHead: It has.
        """
        if self.classes and len(self.classes) != count:
            raise NotThisHead(
                f"{output} has {count} classes but there are {len(self.classes)} class names; "
                "see --classes (model.classes)",
                near=True,
            )


class DenseOutputs(Protocol):
    """What a model says at every anchor (or query) before anything is selected: two models compare there.

    Outputs are of one image, (1, ...), in the order of `tensors`.
    """

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors, whether outputs of the graph or inside it."""

    def probabilities(self, outputs: Outputs, anchors: NDArray[np.intp] | None = None) -> Float:
        """Class probabilities of some anchors, None for all: shape (classes, k)."""

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """Boxes of some anchors: shape (k, 4), x1, y1, x2, y2 in input pixels."""

    def factors(self) -> tuple[Float | None, ...]:
        """Per tensor what it is multiplied by, broadcast, so that boxes do not outweigh classes in a squared error."""


@runtime_checkable
class DetailedOutputs(DenseOutputs, Protocol):
    """Dense outputs of masks or keypoints too, which would count for nothing if boxes and classes alone compared."""

    def details(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """What is said of some anchors besides box and classes, as values that compare by their share: (k, values)."""


class Head(Protocol):
    """The head of one model, recognised: a frozen, picklable description that can read its outputs.

    Attributes:
        one_to_one: Whether training assigned one anchor to an object, so that nothing is suppressed afterwards. Of a
            checkpoint that holds such a head and a one-to-many head, the graph then holds the first.
        exported: Whether an Ultralytics checkpoint can be exported with this head.

    A head may say ``overflows = True``, where sizes are exponentials, which may be infinite: such a box is cut to the
    image like any that is too large. Infinity in the outputs of other heads, and NaN in all, is an error.
    """

    one_to_one: ClassVar[bool]
    exported: ClassVar[bool]

    @classmethod
    def recognise(cls, model: Candidate) -> Head:
        """Finds this head in a model.

        Raises:
            NotThisHead: The model does not end in it.
        """

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph outputs that `decode` reads."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the model's input."""

    @property
    def class_count(self) -> int:
        """Number of classes; 0 where nothing says."""

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """Decodes one batch.

        Args:
            outputs: Those named by `outputs`, in that order, each (batch, ...).
            thresholds: How to select detections.

        Returns:
            Per image an array (k, 6), float32: x1, y1, x2, y2, score, class; x and y in input pixels, best first.
            Rows that hold NaN or infinity are left out.
        """

    def dense(self, graph: ModelGraph) -> DenseOutputs | None:
        """Where the model's dense outputs are; None where it has none that can be read."""


def first_output(model: Candidate, read: Callable[[str, tuple[int, ...]], T]) -> T:
    """Returns what `read` makes of the first output, by name and shape, that it does not refuse.

    Raises:
        NotThisHead: It refuses them all; says why of the first.
    """
    refusals: list[NotThisHead] = []
    for name, shape in model.graph.outputs.items():
        try:
            return read(name, shape)
        except NotThisHead as refusal:
            refusals.append(refusal)
    raise refusals[0] if refusals else NotThisHead("the graph has no output")


def shape_text(shape: Sequence[int]) -> str:
    """A shape as messages show it, open sizes as ``?``."""
    return "(" + ", ".join(str(size) if size else "?" for size in shape) + ")"
