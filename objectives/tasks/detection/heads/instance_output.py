"""What Ultralytics' -seg, -pose and -obb models share: further values of every anchor behind box and classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.heads.boxes import to_corners
from objectives.tasks.detection.heads.channels import DecodedChannels, channels_first
from objectives.tasks.detection.heads.grid import anchor_strides
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, first_output, shape_text
from objectives.tasks.detection.heads.selection import best_rows
from objectives.tasks.detection.heads.structure import InstanceParts, instance_parts
from objectives.tasks.detection.heads.suppression import suppressed
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

#: Boxes (k, 4), further values (k, extra) and scores (classes, k) to rows of box, score and class, and which of the
#: boxes each row is.
Suppression = Callable[[Float, Float, Float, Thresholds], tuple[Float, NDArray[np.intp]]]


@dataclass(frozen=True)
class InstanceOutput:
    """An output whose anchors, or best instances, say more than box and classes.

    Attributes:
        name: Of the output.
        classes: Number of classes; 0 where nothing says.
        extra: Values beside box and classes.
        selected: Whether it is (batch, k, 6 + extra), box, score, class and the values of the best, nothing left to
            suppress; else it is (batch, 4 + classes + extra, anchors).
        transposed: Whether it is (batch, anchors, 4 + classes + extra).
    """

    name: str
    classes: int
    extra: int
    selected: bool
    transposed: bool

    @staticmethod
    def of(
        model: Candidate, task: str, extra: int | None, sure: bool = False, decoded: bool | None = None
    ) -> InstanceOutput:
        """Finds the output.

        Args:
            model: The model.
            task: Its name in Ultralytics' metadata.
            extra: Values beside box and classes; None where only the structure says.
            sure: Whether the other outputs show that it is one of this task.
            decoded: Whether the values are decoded, where the structure alone tells the task; None of either kind.

        Raises:
            NotThisHead: The model is of another task, or nothing shows that it is of this one.
        """
        told = model.graph.metadata.get("task", "")
        parts = instance_parts(model.graph)
        if told and told != task and not model.asked:
            raise NotThisHead(f"{next(iter(model.graph.outputs), 'it')} is of task {told!r}, as the metadata says")
        planes = any(len(shape) == 4 for shape in model.graph.outputs.values())
        by_shape = (
            parts is not None and extra in (None, parts.extra) and not planes and decoded in (None, not parts.plain)
        )
        if not (told == task or model.asked or sure or by_shape):
            name, shape = next(iter(model.graph.outputs.items()), ("the graph", ()))
            axes = f"{name} has {len(shape)} axes, not 3" if len(shape) != 3 else name
            raise NotThisHead(f"{axes}: neither structure nor metadata show values beside box and classes")
        return first_output(model, lambda name, shape: _read(model, name, shape, parts, extra))

    def rows(self, outputs: Outputs, thresholds: Thresholds, suppression: Suppression) -> list[Float]:
        """Per image shape (k, 6 + extra), float32: what the output calls the box, score, class, the further values."""
        found = np.asarray(outputs[0], np.float32)
        if self.selected:
            return [best_rows(rows, thresholds) for rows in found]
        return [self._rows(channels, thresholds, suppression) for channels in channels_first(found, self.transposed)]

    def dense(self, graph: ModelGraph, size: tuple[int, int], factors: float) -> DecodedChannels | None:
        """Where box, classes and values of all anchors are; `factors` is what the values are multiplied by."""
        extra = (factors,) * self.extra
        if not self.selected:
            return DecodedChannels(self.name, self.transposed, False, self.classes, size, extra=extra)
        parts = instance_parts(graph)
        if parts is None or parts.extra != self.extra:
            return None
        return DecodedChannels(parts.tensor, parts.transposed, parts.corners, parts.classes, size, extra=extra)

    def _rows(self, channels: Float, thresholds: Thresholds, suppression: Suppression) -> Float:
        scores = channels[4 : 4 + self.classes]
        kept = np.flatnonzero((scores > thresholds.confidence).any(0) & np.isfinite(channels).all(0))
        boxes, values = channels[:4, kept].T, channels[4 + self.classes :, kept].T
        rows, index = suppression(boxes, values, scores[:, kept], thresholds)
        return np.concatenate([rows, values[index]], 1)


def upright(boxes: Float, values: Float, scores: Float, thresholds: Thresholds) -> tuple[Float, NDArray[np.intp]]:
    """Boxes of centre form, of which those are suppressed that overlap a better one of their class."""
    return suppressed(to_corners(boxes), scores, thresholds)


def _read(
    model: Candidate, name: str, shape: tuple[int, ...], parts: InstanceParts | None, extra: int | None
) -> InstanceOutput:
    if len(shape) != 3:
        raise NotThisHead(f"{name} has {len(shape)} axes, not 3")
    named, counted = len(model.classes), parts.classes if parts else 0
    if extra is None:
        extra = parts.extra if parts else _rest(shape, named)
    if extra is None or extra < 1:
        raise NotThisHead(f"{name} {shape_text(shape)}: the number of values beside box and classes is not known")
    output = InstanceOutput(name, counted or named, extra, True, False)
    if shape[2] == 6 + extra and not (parts is not None and name == parts.tensor) and not _on_grid(model, shape[1]):
        found = output
    else:
        transposed = bool(counted or named) and shape[2] == 4 + (counted or named) + extra
        channels = shape[2] if transposed else shape[1]
        classes = channels - 4 - extra if channels else counted or named
        found = replace(output, classes=classes, selected=False, transposed=transposed)
        if classes < 1:
            raise NotThisHead(f"{name} {shape_text(shape)} is not 4 + classes + {extra} channels")
    if found.classes:
        model.check_class_count(name, found.classes)
    return found


def _rest(shape: tuple[int, ...], named: int) -> int | None:
    """Values beside box and classes, by the number of class names."""
    channels = shape[1] if shape[2] > shape[1] > 0 else shape[2]
    return channels - 4 - named if named and channels else None


def _on_grid(model: Candidate, count: int) -> bool:
    return bool(count and anchor_strides(count, model.image_size))
