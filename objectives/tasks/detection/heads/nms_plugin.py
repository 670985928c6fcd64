"""Exports that end in one of TensorRT's suppression plugins: number, boxes, scores and classes of what it kept.

EfficientNMS_TRT (YOLOv7's ``--end2end``, and what people append with graph surgery) and its predecessors BatchedNMS_TRT
and BatchedNMSDynamic_TRT: (batch, 1), (batch, k, 4) x1, y1, x2, y2, (batch, k), (batch, k). Only TensorRT runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.boxes import to_corners, to_pixels
from objectives.tasks.detection.heads.columns import boxes_are_shares
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs
from objectives.tasks.detection.heads.logits import sigmoid
from objectives.tasks.detection.heads.nms import SUPPRESSES
from objectives.tasks.detection.heads.selection import best_rows
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph, attribute

_PLUGINS = ("EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT")
_PASSING = ("Identity", "Cast")


@dataclass(frozen=True)
class NmsPluginHead:
    """The four outputs of a plugin.

    Attributes:
        outputs: Their names: number, boxes, scores, classes.
        preprocessing: Ultralytics'.
        class_count: Number of classes; 0 where nothing says.
        normalised: Whether boxes are shares of the input instead of its pixels.
        inputs: What the plugin reads; None where that has another form than one box for all classes.
    """

    outputs: tuple[str, ...]
    preprocessing: Preprocessing
    class_count: int
    normalised: bool
    inputs: PluginInputs | None

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = False
    note: ClassVar[str] = SUPPRESSES

    @classmethod
    def recognise(cls, model: Candidate) -> NmsPluginHead:
        """As `Head` says."""
        graph = model.graph
        first = next(iter(graph.outputs), "no output")
        found = [node for node in graph.nodes() if node.op_type in _PLUGINS]
        if len(found) != 1:
            raise NotThisHead(f"{first} is not made by one of {', '.join(_PLUGINS)}")
        origins = {_origin(graph, name): name for name in graph.outputs}
        missing = [name for name in found[0].output if name not in origins]
        if missing or len(found[0].output) != 4:
            raise NotThisHead(f"{first}: {found[0].op_type} has no output for each of number, boxes, scores, classes")
        names = tuple(origins[name] for name in found[0].output)
        count = graph.shapes.get(found[0].input[1], (0,))[-1]
        if count:
            model.check_class_count(names[2], count)
        inputs = PluginInputs.of(model, found[0])
        normalised = boxes_are_shares(graph, found[0].input[0], len(graph.shapes.get(found[0].input[0], (0,))) - 1)
        return cls(names, model.preprocessing(), len(model.classes) or count, normalised, inputs)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        return [self._decode(parts, thresholds) for parts in zip(*outputs, strict=True)]

    def dense(self, graph: ModelGraph) -> PluginInputs | None:
        """What the plugin reads."""
        return self.inputs

    def _decode(self, parts: Outputs, thresholds: Thresholds) -> Float:
        kept = int(np.reshape(parts[0], -1)[0])
        boxes, scores, classes = (np.asarray(part, np.float32)[:kept].reshape(kept, -1) for part in parts[1:])
        if self.normalised:
            boxes = to_pixels(boxes, self.preprocessing.size)
        return best_rows(np.concatenate([boxes, scores, classes], 1), thresholds)


@dataclass(frozen=True)
class PluginInputs:
    """The dense outputs before a plugin: boxes (1, k, 4) or (1, k, 1, 4), and scores (1, k, classes).

    Attributes:
        tensors: Their names.
        size: Input height and width, pixels.
        centre: Whether boxes are centre x, y, width, height.
        normalised: Whether boxes are shares of the input.
        logits: Whether the plugin itself makes probabilities of the scores.
    """

    tensors: tuple[str, str]
    size: tuple[int, int]
    centre: bool
    normalised: bool
    logits: bool

    @staticmethod
    def of(model: Candidate, node: onnx.NodeProto) -> PluginInputs | None:
        """What a plugin reads; None where its shapes are open, or where each class has a box of its own."""
        names, shapes = (node.input[0], node.input[1]), model.graph.shapes
        boxes, scores = (shapes.get(name, ()) for name in names)
        if len(scores) != 3 or not (len(boxes) == 3 or (len(boxes) == 4 and boxes[2] == 1)) or boxes[-1] != 4:
            return None
        centre, logits = bool(attribute(node, "box_coding", 0)), bool(attribute(node, "score_activation", 0))
        normalised = boxes_are_shares(model.graph, names[0], len(boxes) - 1)
        return PluginInputs(names, model.image_size, centre, normalised, logits)

    def probabilities(self, outputs: Outputs, anchors: NDArray[np.intp] | None = None) -> Float:
        """As `DenseOutputs` says."""
        scores = np.asarray(outputs[1], np.float32)[0]
        chosen = (scores if anchors is None else scores[anchors]).T
        return sigmoid(chosen) if self.logits else np.ascontiguousarray(chosen)

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DenseOutputs` says."""
        boxes = np.asarray(outputs[0], np.float32).reshape(-1, 4)[anchors]
        boxes = to_pixels(boxes, self.size) if self.normalised else boxes
        return to_corners(boxes) if self.centre else boxes

    def factors(self) -> tuple[Float | None, ...]:
        """Boxes as fractions of the image."""
        if self.normalised:
            return None, None
        height, width = self.size
        return np.float32(1) / np.array([width, height, width, height], np.float32), None


def _origin(graph: ModelGraph, tensor: str) -> str:
    """The tensor that an output repeats, perhaps in another type."""
    node = graph.producer.get(tensor)
    while node is not None and node.op_type in _PASSING:
        tensor = node.input[0]
        node = graph.producer.get(tensor)
    return tensor
