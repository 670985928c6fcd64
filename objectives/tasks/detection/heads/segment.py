"""Ultralytics' -seg head: boxes, classes and mask coefficients of every anchor, and the basis of the masks.

A mask is the sum of the basis, weighted by the coefficients (Bolya et al., "YOLACT", 2019, section 3.2).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.masks import CellMasks
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import DecodedChannels, channels_first
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, shape_text
from objectives.tasks.detection.heads.instance_output import InstanceOutput, upright
from objectives.tasks.detection.heads.instances import MASKS, Instances
from objectives.tasks.detection.heads.logits import sigmoid
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class SegmentHead:
    """Decoded boxes with class probabilities and mask coefficients.

    Attributes:
        output: Of the instances; the coefficients stand behind the classes.
        basis: Name of the output (batch, coefficients, rows, columns) that masks are sums of; empty where the graph has
            none, so that it gives boxes alone.
        preprocessing: Ultralytics'.
    """

    output: InstanceOutput
    basis: str
    preprocessing: Preprocessing

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = True

    @classmethod
    def recognise(cls, model: Candidate) -> SegmentHead:
        """As `Head` says."""
        shapes = model.graph.outputs
        planes = {name: shape for name, shape in shapes.items() if len(shape) == 4 and shape[1] > 1}
        if len(shapes) == 1 and not planes:
            found = InstanceOutput.of(model, "segment", None, decoded=False)
            if found.extra == 1:
                raise NotThisHead(f"{found.name}: one value behind the classes is no coefficients of masks")
            return cls(found, "", model.preprocessing())
        if len(planes) != 1:
            name, shape = next(iter(shapes.items()), ("the graph", ()))
            axes = f"{name} has {len(shape)} axes, not 3" if len(shape) != 3 else name
            raise NotThisHead(f"{axes}: no output beside it is a basis of masks (N, coefficients, rows, columns)")
        ((basis, planar),) = planes.items()
        found = InstanceOutput.of(model, "segment", planar[1], sure=True)
        if found.name == basis:
            raise NotThisHead(f"{basis} {shape_text(planar)} is the only output")
        return cls(found, basis, model.preprocessing())

    @property
    def outputs(self) -> tuple[str, ...]:
        """The instances, then the basis."""
        return (self.output.name, self.basis) if self.basis else (self.output.name,)

    @property
    def gives(self) -> Set[str]:
        """As `InstanceHead` says."""
        return frozenset({MASKS}) if self.basis else frozenset()

    @property
    def note(self) -> str:
        """What is left out where the basis is."""
        text = f"{self.output.name} holds {self.output.extra} coefficients of masks, but no output is their basis"
        return "" if self.basis else f"{text}; boxes alone are read"

    @property
    def class_count(self) -> int:
        """As `Head` says."""
        return self.output.classes

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says."""
        return [rows[:, :6] for rows in self.output.rows(outputs, thresholds, upright)]

    def instances(self, outputs: Outputs, thresholds: Thresholds) -> list[Instances]:
        """As `InstanceHead` says."""
        if not self.basis:
            return [Instances(rows) for rows in self.decode(outputs, thresholds)]
        height, width = self.preprocessing.size
        found = []
        for rows, basis in zip(self.output.rows(outputs, thresholds, upright), outputs[1], strict=True):
            planes = np.asarray(basis, np.float32)
            cell = width / planes.shape[2], height / planes.shape[1]
            found.append(Instances(rows[:, :6], CellMasks(planes, rows[:, 6:], cell)))
        return found

    def dense(self, graph: ModelGraph) -> DecodedChannels | None:
        """As `Head` says; coefficients without a basis count for nothing."""
        dense = self.output.dense(graph, self.preprocessing.size, 1.0 if self.basis else 0.0)
        if not self.basis:
            return dense
        return MaskChannels(**vars(dense), basis=self.basis) if dense is not None else None


@dataclass(frozen=True)
class MaskChannels(DecodedChannels):
    """Dense outputs of masks: coefficients are the last channels, the basis is a tensor of its own.

    Attributes:
        basis: Name of that tensor.
    """

    basis: str = ""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Channels, then the basis."""
        return self.tensor, self.basis

    def details(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DetailedOutputs` says: probabilities of a mask's cells, 0 outside of its box."""
        weights = channels_first(outputs[0], self.transposed)[0][-len(self.extra) :, anchors]
        basis = np.asarray(outputs[1], np.float32)[0]
        rows, columns = basis.shape[1:]
        found = sigmoid(np.tensordot(weights.T, basis, 1))
        height, width = self.image_size
        boxes = self.boxes(outputs, anchors)[:, :, None, None]
        x = (np.arange(columns) + 0.5) * width / columns
        y = (np.arange(rows) + 0.5)[:, None] * height / rows
        inside = (x >= boxes[:, 0]) & (x <= boxes[:, 2]) & (y >= boxes[:, 1]) & (y <= boxes[:, 3])
        return np.where(inside, found, 0).reshape(len(anchors), -1).astype(np.float32)

    def factors(self) -> tuple[Float | None, ...]:
        """Boxes as fractions of the image; the basis as it is."""
        return (*super().factors(), None)
