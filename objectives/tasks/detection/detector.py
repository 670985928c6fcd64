"""Detector: how to feed a model and to read its outputs, read from the graph."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.head import Candidate, DenseOutputs, Head, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.instances import KEYPOINTS, MASKS, InstanceHead, Instances
from objectives.tasks.detection.heads.open_shapes import closed
from objectives.tasks.detection.heads.registry import HEADS
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.normalisations.image_size import LARGEST_SIDE, check_size, stated_size


@dataclass(frozen=True)
class Detector:
    """A recognised model; crosses to child processes.

    Attributes:
        name: Of its head, in `HEADS`.
        head: The head, which reads the outputs.
        classes: Class names by index; empty where the model has none.
        positions: Where the outputs that the head reads are among the graph's.
        details: What `instances` gives besides boxes, of what the head can give: masks take their time.
    """

    name: str
    head: Head
    classes: tuple[str, ...]
    positions: tuple[int, ...]
    details: frozenset[str] = frozenset()

    @property
    def gives(self) -> frozenset[str]:
        """What the head can give besides boxes, in the words of `Metric.needs`."""
        return frozenset(self.head.gives) if isinstance(self.head, InstanceHead) else frozenset()

    @property
    def note(self) -> str:
        """A line on what was told from the structure alone and may be told otherwise; empty where nothing was."""
        return str(getattr(self.head, "note", ""))

    def giving(self, words: Set[str], wanted_by: str) -> Detector:
        """The detector that gives those details with its boxes.

        Args:
            words: Of `gives`; others are not looked at.
            wanted_by: What wants them, for messages.

        Raises:
            InputError: Its head has no masks, or no keypoints.
        """
        details = words & {MASKS, KEYPOINTS}
        missing = sorted(details - self.gives)
        if missing:
            raise InputError(
                f"{wanted_by}: needs {', '.join(missing)}, which a model with the head {self.name!r} does not give; "
                "leave it out, or give a model that does"
            )
        return replace(self, details=frozenset(details))

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become input."""
        return self.head.preprocessing

    @property
    def image_size(self) -> tuple[int, int]:
        """Input height and width, pixels."""
        return self.head.preprocessing.size

    @property
    def class_count(self) -> int:
        """Number of classes; 0 where neither the model nor the study says."""
        return self.head.class_count

    def read(self, outputs: Outputs) -> tuple[NDArray[np.generic], ...]:
        """Of all outputs in graph order those that the head reads."""
        return tuple(np.asarray(outputs[position]) for position in self.positions)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[NDArray[np.float32]]:
        """Decodes one batch of all outputs in graph order, as `Head.decode` does those that it reads."""
        return self.head.decode(self.read(outputs), thresholds)

    def instances(self, outputs: Outputs, thresholds: Thresholds) -> list[Instances]:
        """Decodes one batch, with `details`."""
        if not self.details or not isinstance(self.head, InstanceHead):
            return [Instances(rows) for rows in self.decode(outputs, thresholds)]
        return list(self.head.instances(self.read(outputs), thresholds))

    def dense(self, graph: ModelGraph) -> DenseOutputs | None:
        """Where the dense outputs of its graph are; None where there are none."""
        return self.head.dense(graph)


def recognise(
    graph: ModelGraph,
    *,
    head: str | None = None,
    image_size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
) -> Detector:
    """Reads from a graph and its metadata what its outputs mean.

    Args:
        graph: The model.
        head: Name of its head, to override what the structure says.
        image_size: Input height and width; needed only where the model leaves them open.
        classes: Class names by index, to override the metadata.

    Raises:
        InputError: The model is not a detector of a known head, or an override contradicts it.
    """
    names = HEADS.names() if head is None else (HEADS.check(head),)
    size, labels = _image_size(graph, image_size), _class_names(graph, classes)
    graph = closed(graph, size)
    refusals: dict[str, NotThisHead] = {}
    for name in names:
        try:
            found = HEADS.get(name).recognise(Candidate(graph, size, labels, asked=head is not None))
        except NotThisHead as refusal:
            refusals[name] = refusal
        else:
            order = list(graph.outputs)
            known = tuple(getattr(found, "classes", labels))
            return Detector(name, found, known, tuple(order.index(output) for output in found.outputs))
    if head is not None:
        raise InputError(
            f"{graph.path}: model.head {head!r} does not fit: {refusals[head]}; leave it out, or give "
            "--classes (model.classes)"
        )
    near = next((refusal for refusal in refusals.values() if refusal.near), None)
    if near is not None:
        raise InputError(f"{graph.path}: {near}")
    shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in graph.outputs.items())
    alike: dict[str, list[str]] = {}
    for name, why in refusals.items():
        alike.setdefault(str(why), []).append(name)
    reasons = "; ".join(f"not {', '.join(heads)}: {reason}" for reason, heads in alike.items())
    raise InputError(
        f"{graph.path}: is not a detector of a known head: output {shapes}; {reasons}; "
        "give --head, --classes or --image-size (in a study: model.head, model.classes, model.image_size) where "
        "the graph does not say"
    )


def _image_size(graph: ModelGraph, given: tuple[int, int] | None) -> tuple[int, int]:
    shape = graph.input_shape
    if len(shape) != 4 or shape[1] != 3:
        raise InputError(
            f"{graph.path}: is not a detector of colour images: input {graph.input} is {shape_text(shape)}, "
            "not (N, 3, H, W)"
        )
    if given is not None:
        check_size(given)
    fixed = (shape[2], shape[3])
    wanted = given or stated_size(graph.metadata)
    height, width = (have or want for have, want in zip(fixed, wanted or (0, 0), strict=True))
    if given is not None and (height, width) != tuple(given):
        raise InputError(f"model.image_size: {list(given)} but the model takes {list(fixed)} only; leave it out")
    if max(height, width) > LARGEST_SIDE or min(height, width) < 0:
        raise InputError(
            f"{graph.path}: takes images of {height} x {width}; a side may have 1 to {LARGEST_SIDE} pixels, "
            "give --image-size (model.image_size)"
        )
    if not height or not width:
        raise InputError(
            f"{graph.path}: the input leaves height and width open; give --image-size, e.g. 640 (model.image_size)"
        )
    return height, width


def _class_names(graph: ModelGraph, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        names = tuple(given)
    else:
        found = graph.class_names
        names = tuple(found[index] for index in sorted(found)) if sorted(found) == list(range(len(found))) else ()
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled and given is not None:
        raise InputError(f"model.classes: {doubled[0]!r} occurs more than once; class names must differ")
    return names
