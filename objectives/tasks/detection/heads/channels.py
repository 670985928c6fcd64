"""What heads share that put out one tensor of channels, boxes first, for every anchor of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.heads.boxes import to_corners, to_pixels
from objectives.tasks.detection.heads.grid import anchor_strides, default_strides
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs
from objectives.tasks.detection.heads.rows import check_without_objectness
from objectives.tasks.detection.heads.structure import ChannelParts, channel_parts, instance_parts


@dataclass(frozen=True)
class ChannelOutput:
    """An output (batch, channels, anchors), as the graph shows it.

    Attributes:
        name: Of the output.
        channels: Their number.
        anchors: Their number; 0 where open.
        transposed: Whether it is (batch, anchors, channels).
        parts: Its box and class parts; None where the structure does not show them.
        strides: Pixels per anchor cell, one per level; empty where the anchors are on no usual grid.
    """

    name: str
    channels: int
    anchors: int
    transposed: bool
    parts: ChannelParts | None
    strides: tuple[int, ...]

    @staticmethod
    def of(model: Candidate, name: str, shape: tuple[int, ...]) -> ChannelOutput:
        """Reads an output.

        Raises:
            NotThisHead: It cannot hold boxes and classes.
        """
        if len(shape) != 3:
            raise NotThisHead(f"{name} has {len(shape)} axes, not 3")
        if not model.asked:
            check_without_objectness(model, name, shape)
        refuse_other_tasks(model, name)
        if not model.asked and _has_partner(model, name, shape):
            raise NotThisHead(f"{name}: boxes and classes of every row are in two outputs")
        parts = channel_parts(model.graph, name)
        transposed = _is_transposed(shape, parts, model.image_size, len(model.classes))
        channels, anchors = (shape[2], shape[1]) if transposed else (shape[1], shape[2])
        if channels == 0:
            channels = parts.boxes + parts.classes if parts else 0
        if channels < 5:
            raise NotThisHead(f"{name} has {channels or 'an open number of'} channels, fewer than 4 + 1 class")
        strides = anchor_strides(anchors, model.image_size) if anchors else default_strides(model.graph)
        return ChannelOutput(name, channels, anchors, transposed, parts, strides)

    @property
    def sigmoid(self) -> bool | None:
        """Whether its classes are probabilities; None where the structure does not show it."""
        parts = self.parts
        return parts.sigmoid if parts is not None and (parts.boxes == 4 or not parts.sigmoid) else None


@dataclass(frozen=True)
class DecodedChannels:
    """Dense outputs in one tensor: 4 channels of a box in input pixels, then class probabilities.

    Attributes:
        tensor: Its name.
        transposed: Whether it is (1, anchors, channels).
        corners: Whether boxes are x1, y1, x2, y2 instead of centre, width, height.
        class_count: Number of classes.
        image_size: Input height and width, pixels.
        normalised: Whether boxes are shares of the input instead of pixels.
        extra: Per further channel, which stands behind the classes, its factor.
    """

    tensor: str
    transposed: bool
    corners: bool
    class_count: int
    image_size: tuple[int, int]
    normalised: bool = False
    extra: tuple[float, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The one tensor."""
        return (self.tensor,)

    def probabilities(self, outputs: Outputs, anchors: NDArray[np.intp] | None = None) -> Float:
        """As `DenseOutputs` says."""
        channels = channels_first(outputs[0], self.transposed)[0]
        scores: Float = channels[4 : len(channels) - len(self.extra)]
        return scores if anchors is None else scores[:, anchors]

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DenseOutputs` says."""
        found = channels_first(outputs[0], self.transposed)[0][:4, anchors].T
        if self.normalised:
            found = to_pixels(found, self.image_size)
        return np.ascontiguousarray(found) if self.corners else to_corners(found)

    def factors(self) -> tuple[Float | None, ...]:
        """Boxes as fractions of the image."""
        factors = np.array([1.0] * (4 + self.class_count) + [*self.extra], np.float32)
        height, width = self.image_size
        if not self.normalised:
            factors[:4] = 1 / np.array([width, height, width, height], np.float32)
        return (factors.reshape((1, 1, -1) if self.transposed else (1, -1, 1)),)


def refuse_other_tasks(model: Candidate, name: str) -> None:
    """Sees to it that mask coefficients, keypoints and angles are not read as classes.

    Raises:
        NotThisHead: Metadata or structure show that the model says more of an anchor than box and classes.
    """
    task = model.graph.metadata.get("task", "")
    if not model.asked and (task not in ("", "detect") or instance_parts(model.graph) is not None):
        raise NotThisHead(f"{name} holds more than boxes and classes{f' (task {task!r})' if task else ''}")


def channels_first(output: NDArray[np.generic], transposed: bool) -> Float:
    """An output as (batch, channels, anchors), float32."""
    found = np.asarray(output, np.float32)
    return found.transpose(0, 2, 1) if transposed else found


def _has_partner(model: Candidate, name: str, shape: tuple[int, ...]) -> bool:
    """Whether another output has as many rows, and one of the two is boxes alone, as in the DETR family."""
    others = [other for key, other in model.graph.outputs.items() if key != name and len(other) == 3]
    return any(other[1] == shape[1] and 4 in (other[2], shape[2]) for other in others)


def _is_transposed(shape: tuple[int, ...], parts: ChannelParts | None, size: tuple[int, int], named: int) -> bool:
    """Whether channels are the last axis: by the structure, else the class names, else the anchor grid."""
    counts = [parts.boxes + parts.classes] if parts is not None else []
    counts += [4 + named] if named else []
    for count in counts:
        if count in shape[1:] and shape[1] != shape[2]:
            return shape[2] == count
    return bool(shape[1] and anchor_strides(shape[1], size) and not anchor_strides(shape[2], size))
