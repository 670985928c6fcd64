"""Reads the structure of a detection head: box and class channels, the dense head before a selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from search_spaces.model_graph import ModelGraph, attribute
from search_spaces.onnx_file import dims

#: Operators whose first input carries the same values; what quantizes them leaves them what they are.
PASSING = {"Reshape", "Transpose", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze"} | {
    "QuantizeLinear",
    "DequantizeLinear",
}
_DEPTH = 12


@dataclass(frozen=True)
class ChannelParts:
    """The channels that a head concatenates.

    Attributes:
        boxes: Channels of the box part.
        classes: Channels of the class part.
        sigmoid: Whether the class part has passed a Sigmoid.
        tensor: The concatenated tensor.
    """

    boxes: int
    classes: int
    sigmoid: bool
    tensor: str


@dataclass(frozen=True)
class InstanceParts:
    """The channels of a head that says more of every anchor than box and classes: boxes, classes, further values.

    Attributes:
        classes: Channels of the class part, probabilities.
        extra: Channels behind it.
        tensor: The concatenated tensor.
        transposed: Whether it is (1, anchors, channels) instead of (1, channels, anchors).
        corners: Whether boxes are x1, y1, x2, y2 instead of centre x, y, width, height.
        plain: Whether the further values are as a layer made them, like coefficients of masks; keypoints are decoded.
    """

    classes: int
    extra: int
    tensor: str
    transposed: bool
    corners: bool
    plain: bool


@dataclass(frozen=True)
class DenseHead:
    """The tensor that holds every anchor's box and class probabilities, before any selection.

    Attributes:
        tensor: Its name.
        classes: Number of classes.
        anchors: Number of anchors.
        transposed: Whether it is (1, anchors, 4 + classes) instead of (1, 4 + classes, anchors).
        corners: Whether boxes are x1, y1, x2, y2 instead of centre x, y, width, height.
    """

    tensor: str
    classes: int
    anchors: int
    transposed: bool
    corners: bool


def channel_parts(graph: ModelGraph, tensor: str) -> ChannelParts | None:
    """Finds the concatenation of boxes and classes that ends in `tensor`.

    It may lie behind reshapes, transposes and the concatenation of levels. Returns None where there is none.
    """
    for _ in range(_DEPTH):
        node = graph.producer.get(tensor)
        if node is None:
            return None
        if node.op_type == "Concat":
            parts = _parts_of(graph, node)
            if parts is not None:
                return parts
        elif node.op_type not in PASSING:
            return None
        tensor = node.input[0]
    return None


def dense_head(graph: ModelGraph) -> DenseHead | None:
    """Finds the last concatenation of 4 box channels with sigmoid class channels, e.g. before a TopK."""
    for node in reversed(list(graph.nodes())):
        if node.op_type != "Concat" or len(graph.shapes.get(node.output[0], ())) != 3:
            continue
        parts = _parts_of(graph, node)
        if parts is None or not parts.sigmoid or parts.boxes != 4:
            continue
        shape = graph.shapes[node.output[0]]
        transposed = shape[2] == 4 + parts.classes and shape[1] != 4 + parts.classes
        anchors = shape[1] if transposed else shape[2]
        corners = _are_corners(graph, node.input[0])
        return DenseHead(node.output[0], parts.classes, anchors, transposed, corners)
    return None


def suppresses(graph: ModelGraph) -> bool:
    """Whether a graph itself drops boxes that overlap better ones."""
    return any(node.op_type == "NonMaxSuppression" for node in graph.nodes())


def suppressed_classes(graph: ModelGraph) -> int:
    """Number of classes of the scores that a graph suppresses boxes by; 0 where the structure does not show it."""
    node = next((node for node in graph.nodes() if node.op_type == "NonMaxSuppression"), None)
    if node is None:
        return 0
    shape = graph.shapes.get(node.input[1], ())
    return shape[1] if len(shape) == 3 and shape[1] > 1 else classes_behind(graph, node.input[1])


def classes_behind(graph: ModelGraph, score: str) -> int:
    """Number of classes that selected scores were selected among; 0 where the structure does not show it.

    Args:
        graph: The model.
        score: A tensor of selected scores, behind a Sigmoid of all classes (1, rows, classes).
    """
    shapes = {value.name: dims(value) for value in graph.model.graph.value_info}
    classes = 0
    for _ in range(_DEPTH):
        node = graph.producer.get(score)
        if node is None or not node.input or node.op_type == "Sigmoid":
            return classes if node is not None and node.op_type == "Sigmoid" else 0
        score = node.input[0]
        shape = shapes.get(score, ())
        classes = classes or (shape[2] if len(shape) == 3 and shape[2] > 1 else 0)
    return 0


def instance_parts(graph: ModelGraph) -> InstanceParts | None:
    """Finds the last concatenation of 4 box channels, sigmoid class channels and further ones; None where none is.

    Boxes and classes may have been concatenated before.
    """
    for node in reversed(list(graph.nodes())):
        rank = len(graph.shapes.get(node.output[0], ())) if node.op_type == "Concat" else 0
        axis = int(attribute(node, "axis", 0)) % 3
        if rank != 3 or not axis:
            continue
        names = _joined(graph, list(node.input), axis)
        shapes = [graph.shapes.get(name, ()) for name in names]
        if len(names) < 3 or any(len(shape) != 3 for shape in shapes):
            continue
        boxes, classes, *extra = (shape[axis] for shape in shapes)
        makers = {node.op_type if node else "" for name in names[2:] for node in _made_by(graph, name)}
        if boxes == 4 and passed_sigmoid(graph, names[1]) and makers != {"Sigmoid"}:
            corners, plain = _are_corners(graph, names[0]), makers == {"Conv"}
            return InstanceParts(classes, sum(extra), node.output[0], axis == 2, corners, plain)
    return None


def _joined(graph: ModelGraph, names: list[str], axis: int) -> list[str]:
    """What is concatenated along an axis, with what of it was concatenated along the same axis before."""
    for _ in range(_DEPTH):
        node, shape = graph.producer.get(names[0]), graph.shapes.get(names[0], ())
        inner = node is not None and node.op_type == "Concat" and int(attribute(node, "axis", 0)) % 3 == axis
        if node is None or not inner or len(shape) != 3 or shape[axis] <= 4:
            break
        names = [*node.input, *names[1:]]
    return names


def _are_corners(graph: ModelGraph, boxes: str) -> bool:
    """Whether decoded boxes are corners: anchors minus and plus distances, not a mean and a difference."""
    for _ in range(_DEPTH):
        node = graph.producer.get(boxes)
        if node is None:
            break
        if node.op_type == "Concat" and len(node.input) == 2:
            first, second = (_skip(graph, name) for name in node.input)
            return not (second is not None and second.op_type == "Sub" and first is not None)
        if node.op_type not in PASSING | {"Mul"}:
            break
        boxes = next(name for name in node.input if name not in graph.initializers)
    return True


def _parts_of(graph: ModelGraph, node: onnx.NodeProto) -> ChannelParts | None:
    """Reads a Concat whose last input is the class part and whose other inputs are boxes."""
    shapes = [graph.shapes.get(name, ()) for name in node.input]
    if len(shapes) < 2 or any(len(shape) != len(shapes[0]) or not shape for shape in shapes):
        return None
    axis = int(attribute(node, "axis", 0)) % len(shapes[0])
    if axis == 0:
        return None
    sizes = [shape[axis] for shape in shapes]
    boxes, classes = sum(sizes[:-1]), sizes[-1]
    if boxes % 4 or boxes < 4 or classes < 1 or (len(sizes) > 2 and boxes != 4):
        return None
    if len(shapes[0]) == 3 and axis == 2 and _is_level_concat(graph, node):
        return None
    return ChannelParts(boxes, classes, passed_sigmoid(graph, node.input[-1]), node.output[0])


def _is_level_concat(graph: ModelGraph, node: onnx.NodeProto) -> bool:
    """Whether a Concat joins pyramid levels: each input is, behind reshapes, itself a Concat of channels."""
    behind = [_skip(graph, name) for name in node.input]
    return all(found is not None and found.op_type == "Concat" for found in behind)


def _skip(graph: ModelGraph, tensor: str) -> onnx.NodeProto | None:
    for _ in range(_DEPTH):
        node = graph.producer.get(tensor)
        if node is None or node.op_type not in PASSING:
            return node
        tensor = node.input[0]
    return None


def passed_sigmoid(graph: ModelGraph, tensor: str) -> bool:
    """Whether a tensor is, through reshapes or a concatenation of levels, the output of Sigmoids, or a share of it."""
    return all(_is_probable(graph, node) for node in _made_by(graph, tensor))


def _made_by(graph: ModelGraph, tensor: str) -> list[onnx.NodeProto | None]:
    """What made a tensor, behind reshapes and a concatenation of levels; None where none did."""
    node = _skip(graph, tensor)
    return [_skip(graph, name) for name in node.input] if node is not None and node.op_type == "Concat" else [node]


def _is_probable(graph: ModelGraph, node: onnx.NodeProto | None) -> bool:
    """Whether a node is a Sigmoid, or takes a share of one (a score that is calibrated or weighted by level)."""
    while node is not None and node.op_type == "Mul":
        data = [name for name in node.input if name not in graph.initializers]
        shares = [np.asarray(graph.initializers[name], float) for name in node.input if name in graph.initializers]
        if len(data) != 1 or not all(((share > 0) & (share <= 1)).all() for share in shares):
            return False
        node = _skip(graph, data[0])
    return node is not None and node.op_type == "Sigmoid"
