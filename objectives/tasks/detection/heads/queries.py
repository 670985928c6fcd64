"""What the heads of the DETR family share: class logits and boxes of every query, in two outputs.

Boxes are centre x, y, width, height as shares of the input, which is stretched to its size. What the logits mean and
how pixels were normalised differs from family to family; `Family` tells from the graph which one it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Fit, Preprocessing
from objectives.tasks.detection.heads.boxes import to_corners
from objectives.tasks.detection.heads.coco_ids import names_of
from objectives.tasks.detection.heads.columns import columns
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.input_scale import normalises_itself
from objectives.tasks.detection.heads.logits import sigmoid
from objectives.tasks.detection.heads.structure import PASSING, passed_sigmoid
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

_PATCH = 8  # kernel of a first convolution that cuts an image into patches: 12 to 16; of a CNN: 3 to 7


class Family(Enum):
    """How a model of the DETR family was trained."""

    NO_OBJECT = "a class 'no object' behind the others, by softmax"  #: DETR, YOLOS, Table Transformer.
    REFINED = "independent classes, trained with ImageNet's mean"  #: Deformable and Conditional DETR, DINO, RF-DETR.
    REAL_TIME = "independent classes, trained on pixels of 0..1"  #: RT-DETR, RT-DETRv2, D-FINE.

    @staticmethod
    def of(graph: ModelGraph, boxes: str) -> Family:
        """Tells the family from the operators; `boxes` is the output of the boxes.

        A decoder that refines boxes takes the inverse sigmoid of a reference (Log), samples features there (GridSample)
        or starts from the best of the encoder's own boxes (TopK); DETR's does none of it, but puts its boxes out by a
        linear layer and a sigmoid. RT-DETR selects by TopK from a convolutional encoder; where the encoder samples too,
        or is a vision transformer, pixels are normalised by ImageNet's mean.
        """
        kinds = [node.op_type for node in graph.nodes()]
        if not {"GridSample", "TopK", "Log"} & set(kinds) and _is_linear(graph, boxes):
            return Family.NO_OBJECT
        if "TopK" not in kinds or "GridSample" in kinds[: kinds.index("TopK")] or _cuts_patches(graph):
            return Family.REFINED
        return Family.REAL_TIME


@dataclass(frozen=True)
class QueryHead:
    """Logits (batch, queries, classes) and boxes (batch, queries, 4).

    Attributes:
        logits: Name of the output.
        boxes: Name of the other output.
        preprocessing: The image is stretched.
        class_count: Number of classes, without the one for no object.
        classes: Their names; empty where nothing says.
    """

    logits: str
    boxes: str
    preprocessing: Preprocessing
    class_count: int
    classes: tuple[str, ...] = ()

    family: ClassVar[Family]
    one_to_one: ClassVar[bool] = True
    exported: ClassVar[bool] = False

    @classmethod
    def recognise(cls, model: Candidate) -> QueryHead:
        """As `Head` says."""
        logits, boxes = two_outputs(model)
        made = columns(model.graph, logits, 2)
        if made and all(part.shares for part in made) and not model.asked:
            raise NotThisHead(f"{logits} holds probabilities, not logits")
        family, count = Family.of(model.graph, boxes), model.graph.outputs[logits][2]
        named, spare = len(model.classes), count - 1
        if family is not Family.NO_OBJECT or model.asked:
            family = cls.family if model.asked else family
        elif named and named == count:
            family = Family.REFINED  # no class is left for 'no object'
        if family is not cls.family:
            raise NotThisHead(f"{logits}: {family.value}, by the graph's operators")
        fitting: tuple[int, ...] = (spare,) if family is Family.NO_OBJECT else (count,)
        if family is Family.REFINED and _cuts_patches(model.graph):
            fitting = (count, spare)  # RF-DETR puts out one class more than it was trained on
        if count and named and named not in fitting:
            raise NotThisHead(
                f"{logits} has {fitting[0]} classes but there are {named} class names; see --classes (model.classes)"
            )
        classes = named or (fitting[0] if count else 0)
        if not classes:
            raise NotThisHead(f"{logits} {shape_text(model.graph.outputs[logits])} has an open number of classes")
        return cls(logits, boxes, cls._pixels(model), classes, names_of(classes, model.classes))

    @classmethod
    def _pixels(cls, model: Candidate) -> Preprocessing:
        plain = model.preprocessing(Fit.STRETCHED)
        if cls.family is Family.REAL_TIME or normalises_itself(model.graph):
            return plain
        return Preprocessing(model.image_size, fit=Fit.STRETCHED, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Logits, then boxes."""
        return self.logits, self.boxes

    @property
    def note(self) -> str:
        """What was told from the operators alone."""
        how = "ImageNet's mean and deviation" if any(self.preprocessing.mean) else "0..1 alone"
        return (
            f"read as {self.family.value}; pixels by {how}, image stretched: told by the graph's operators; "
            "another family of this form: --head detr, deformable_detr or dfine (model.head)"
        )

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says; a query is one object."""
        pairs = zip(*(np.asarray(output, np.float32) for output in outputs), strict=True)
        return [self._decode(logits, boxes, thresholds) for logits, boxes in pairs]

    def dense(self, graph: ModelGraph) -> DenseQueries | None:
        """The outputs; None where the model itself selects its queries, so that the i-th of two models differ."""
        return None if any(node.op_type == "TopK" for node in graph.nodes()) else DenseQueries(self)

    def probabilities(self, logits: Float) -> Float:
        """Shape (queries, classes), of logits (queries, classes and perhaps more)."""
        if self.family is not Family.NO_OBJECT:
            return sigmoid(logits[:, : self.class_count])
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        found: Float = shifted[:, : self.class_count] / shifted.sum(1, keepdims=True)
        return found

    def corners(self, boxes: Float) -> Float:
        """Boxes of the output as x1, y1, x2, y2 in input pixels; shape (k, 4)."""
        height, width = self.preprocessing.size
        return to_corners(boxes * np.array([width, height, width, height], np.float32))

    def _decode(self, logits: Float, boxes: Float, thresholds: Thresholds) -> Float:
        finite = np.isfinite(logits).all(1) & np.isfinite(boxes).all(1)
        scores, boxes = self.probabilities(logits[finite]), self.corners(boxes[finite])
        if self.family is Family.NO_OBJECT:  # a query is the best of its classes, and of no other
            scores = np.where(scores == scores.max(1, keepdims=True), scores, 0)
        queries, classes = np.nonzero(scores > thresholds.confidence)
        found = scores[queries, classes]
        order = np.argsort(-found, kind="stable")[: thresholds.max_detections]
        rows = np.column_stack([boxes[queries[order]], found[order], classes[order]])
        return rows.astype(np.float32)


@dataclass(frozen=True)
class DenseQueries:
    """The dense outputs of a head whose queries are always the same.

    Attributes:
        head: The head.
    """

    head: QueryHead

    @property
    def tensors(self) -> tuple[str, ...]:
        """Logits and boxes."""
        return self.head.outputs

    def probabilities(self, outputs: Outputs, anchors: NDArray[np.intp] | None = None) -> Float:
        """As `DenseOutputs` says."""
        logits = np.asarray(outputs[0], np.float32)[0]
        found: Float = self.head.probabilities(logits if anchors is None else logits[anchors]).T
        return found

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DenseOutputs` says."""
        return self.head.corners(np.asarray(outputs[1], np.float32)[0][anchors])

    def factors(self) -> tuple[Float | None, ...]:
        """None: boxes are shares already."""
        return None, None


def two_outputs(model: Candidate) -> tuple[str, str]:
    """Names of the logits and the boxes among the outputs.

    Raises:
        NotThisHead: There is no such pair, or more than one.
    """
    shapes = {name: shape for name, shape in model.graph.outputs.items() if len(shape) == 3}
    pairs = [
        (logits, boxes)
        for boxes, at in shapes.items()
        for logits, shape in shapes.items()
        if boxes != logits and at[2] == 4 and shape[1] == at[1] and shape[2] != 1
    ]
    if len(pairs) == 2:  # four logits as well: the names tell, else that boxes have passed a sigmoid
        told = [pair for pair in pairs if _says_box(pair[1]) and not _says_box(pair[0])]
        pairs = told or [pair for pair in pairs if passed_sigmoid(model.graph, pair[1])]
    if len(pairs) != 1:
        first, shape = next(iter(model.graph.outputs.items()), ("the graph", ()))
        raise NotThisHead(
            f"{first} has {len(shape)} axes: the outputs are not logits (N, k, classes) and boxes (N, k, 4)"
        )
    return pairs[0]


def _says_box(name: str) -> bool:
    """Whether an output is named as exporters name boxes: RF-DETR calls them ``dets``."""
    return any(word in name.lower() for word in ("box", "dets", "coord"))


def _is_linear(graph: ModelGraph, boxes: str) -> bool:
    """Whether boxes are the sigmoid of a linear layer: nothing but its bias is added."""
    node = graph.producer.get(boxes)
    while node is not None and node.op_type in PASSING | {"Sigmoid", "Add", "Gather"}:
        if node.op_type == "Add" and all(_axes(graph, name) != 1 for name in node.input):
            return False
        made = (name for name in node.input if name in graph.producer and not _axes(graph, name))
        node = next((graph.producer[name] for name in made), None)
    return node is not None and node.op_type in ("MatMul", "Gemm", "Conv")


def _axes(graph: ModelGraph, tensor: str) -> int:
    """Axes of a constant, perhaps a quantized one; 0 of anything else."""
    node = graph.producer.get(tensor)
    if node is not None and node.op_type == "DequantizeLinear":
        tensor = node.input[0]
    return graph.initializers[tensor].ndim if tensor in graph.initializers else 0


def _cuts_patches(graph: ModelGraph) -> bool:
    """Whether the first convolution has the large kernel of a vision transformer's patches."""
    first = next((layer for layer in graph.layers if layer.op == "Conv"), None)
    return first is not None and len(first.weight_shape) == 4 and min(first.weight_shape[2:]) >= _PATCH
