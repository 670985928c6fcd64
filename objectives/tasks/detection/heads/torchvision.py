"""Torchvision's detectors, SSD, RetinaNet, FCOS, Faster, Mask and Keypoint R-CNN: boxes, labels, scores of one image.

They resize and normalise pixels of 0..1 themselves, suppress themselves, and put out as many rows as they find.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import TensorProto

from objectives.tasks.detection.data.masks import CellMasks
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from objectives.tasks.detection.heads.coco_ids import names_of
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs
from objectives.tasks.detection.heads.instances import KEYPOINTS, MASKS, Instances
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph
from search_spaces.onnx_file import dims

_MASKED = 0.5  # probability from which torchvision's users take a pixel for one of the mask
_OPEN = np.zeros(1, np.int64)
_BACKGROUNDS = ("__background__", "background")


@dataclass(frozen=True)
class TorchvisionHead:
    """Boxes (k, 4), x1, y1, x2, y2 in input pixels, labels (k,) and scores (k,).

    Attributes:
        boxes: Name of the output.
        labels: Name of the output.
        scores: Name of the output.
        preprocessing: Pixels of 0..1.
        class_count: Number of classes, without the background; 0 where nothing says.
        first: Label of the first class: 1 behind a background.
        classes: Their names; empty where nothing says.
        masks: Name of the output (k, 1, H, W); None where there is none.
        keypoints: Name of the output (k, points, 3); None where there is none.
    """

    boxes: str
    labels: str
    scores: str
    preprocessing: Preprocessing
    class_count: int
    first: int
    classes: tuple[str, ...] = ()
    masks: str | None = None
    keypoints: str | None = None

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = False

    @classmethod
    def recognise(cls, model: Candidate) -> TorchvisionHead:
        """As `Head` says."""
        shapes = {value.name: dims(value) for value in model.graph.model.graph.output}
        whole = {
            value.name
            for value in model.graph.model.graph.output
            if value.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)
        }
        boxes = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] == 4]
        labels = [name for name, shape in shapes.items() if len(shape) == 1 and name in whole]
        scores = [name for name, shape in shapes.items() if len(shape) == 1 and name not in whole]
        if not boxes or not len(labels) == len(scores) == 1:  # boxes come first; scores of 4 keypoints look alike
            name, shape = next(iter(shapes.items()), ("the graph", ()))
            raise NotThisHead(f"{name} has {len(shape)} axes: the outputs are not boxes (k, 4), labels (k), scores (k)")
        count, anchored, background = _classes(model.graph)
        classes, first = _named(model.classes, count, background, scores[0])
        return cls(
            boxes[0],
            labels[0],
            scores[0],
            model.preprocessing(Fit.STRETCHED if anchored else Fit.TOP_LEFT),
            len(classes) or max(count - first, 0),
            first,
            classes,
            next((name for name, shape in shapes.items() if len(shape) == 4 and shape[1] == 1), None),
            next((name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 3), None),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Boxes, labels, scores, and masks and keypoints where there are any."""
        further = (name for name in (self.masks, self.keypoints) if name is not None)
        return self.boxes, self.labels, self.scores, *further

    @property
    def gives(self) -> Set[str]:
        """As `InstanceHead` says."""
        have = {MASKS: self.masks, KEYPOINTS: self.keypoints}
        return frozenset(word for word, name in have.items() if name is not None)

    @property
    def note(self) -> str:
        """How labels are read."""
        behind = "label 0 is the background" if self.first else "label 0 is the first class"
        return f"read as torchvision's: {behind}; pixels 0..1, {self.preprocessing.fit.value}"

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says; of one image."""
        return [self._rows(outputs, thresholds)[0]]

    def instances(self, outputs: Outputs, thresholds: Thresholds) -> list[Instances]:
        """As `InstanceHead` says."""
        rows, order = self._rows(outputs, thresholds)
        named = {name: np.asarray(values, np.float32) for name, values in zip(self.outputs, outputs, strict=True)}
        masks = points = None
        if self.masks is not None:
            planes = named[self.masks][order, 0]
            height, width = self.preprocessing.size
            cell = width / planes.shape[2], height / planes.shape[1]
            masks = CellMasks(planes, None, cell, _MASKED)
        if self.keypoints is not None:
            points = named[self.keypoints][order]
        return [Instances(rows, masks, points)]

    def dense(self, graph: ModelGraph) -> None:
        """None: what is there for every anchor lies before a selection of the model's own."""

    def _rows(self, outputs: Outputs, thresholds: Thresholds) -> tuple[Float, np.ndarray]:
        boxes, labels, scores = (np.asarray(output, np.float32) for output in outputs[:3])
        found = np.column_stack([boxes, scores, labels - self.first]).astype(np.float32)
        kept = np.flatnonzero(np.isfinite(found).all(1) & (found[:, 4] > thresholds.confidence) & (found[:, 5] >= 0))
        order = kept[np.argsort(-found[kept, 4], kind="stable")][: thresholds.max_detections]
        return found[order], order


def _classes(graph: ModelGraph) -> tuple[int, bool, bool]:
    """Number of scores of a box, 0 where open; whether they are of all anchors at once (SSD); whether of a softmax."""
    shapes = {value.name: dims(value) for value in graph.model.graph.value_info}
    for node in graph.nodes():
        shape = shapes.get(node.output[0], ())
        if node.op_type == "Softmax" and len(shape) < 4:
            linear = graph.producer.get(node.input[0])
            biases = [graph.initializers[name] for name in linear.input if name in graph.initializers] if linear else []
            count = shape[-1] if shape and shape[-1] else next((len(b) for b in biases if b.ndim == 1), 0)
            return count, len(shape) == 3, True
    return next(filter(None, (_planes(graph, node) for node in graph.nodes())), 0), False, False


def _planes(graph: ModelGraph, node: onnx.NodeProto) -> int:
    """Classes where a Reshape parts channels into (N, anchors, classes, H, W), as RetinaNet does; else 0.

    That of the classes comes first, those of boxes and centreness behind it.
    """
    if node.op_type != "Reshape":
        return 0
    maker = graph.producer.get(node.input[1])
    if maker is None or maker.op_type != "Concat":
        parts = [int(value) for value in graph.initializers.get(node.input[1], _OPEN).ravel()]
    else:
        known = [graph.initializers.get(name, _OPEN) for name in maker.input]
        parts = [int(part.ravel()[0]) for part in known] if all(part.size == 1 for part in known) else []
    return parts[2] if len(parts) == 5 and parts[1] == -1 and parts[2] > 0 else 0


def _named(given: tuple[str, ...], count: int, background: bool, output: str) -> tuple[tuple[str, ...], int]:
    """Class names without the background, and the label of the first."""
    if given and given[0].casefold() in _BACKGROUNDS:
        given, count = given[1:], count - 1 if count else 0
        if count in (0, len(given)):
            return given, 1
    elif not given:
        names = names_of(count, ())
        return names, 0 if names else int(background)
    elif not count:
        return given, 1
    elif len(given) in (count, count - 1):
        return given, count - len(given)
    raise NotThisHead(
        f"{output} has {count} classes but there are {len(given)} class names; see --classes (model.classes)"
    )
