"""The head of YOLOv8 cut before its decoding: (batch, 4 x bins + classes, anchors), logits.

The bins of a box side are a distribution over distances from the anchor's centre, in strides (Li et al., "Generalized
Focal Loss", 2020, section 3.2): the side lies at the expected distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import ChannelOutput, channels_first
from objectives.tasks.detection.heads.grid import anchor_points
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs
from objectives.tasks.detection.heads.logits import logit, sigmoid
from objectives.tasks.detection.heads.one_output import OneOutput
from objectives.tasks.detection.heads.suppression import suppress
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

_DEFAULT_REG_MAX = 16


@dataclass(frozen=True)
class RawHead(OneOutput):
    """Distance bins and class logits at every anchor.

    Attributes:
        output: Name of the output.
        preprocessing: Ultralytics'.
        class_count: Number of classes.
        reg_max: Bins per box side; 1 where the distance itself is there.
        strides: Pixels per anchor cell, one per level.
        transposed: Whether the output is (batch, anchors, channels).
    """

    output: str
    preprocessing: Preprocessing
    class_count: int
    reg_max: int
    strides: tuple[int, ...]
    transposed: bool = False

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = False

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> RawHead:
        found = ChannelOutput.of(model, output, shape)
        channels, named = found.channels, len(model.classes)
        if not model.asked:
            if found.sigmoid:
                raise NotThisHead(f"the classes of {output} are probabilities")
            if found.sigmoid is None and not (named and channels > 4 + named and (channels - named) % 4 == 0):
                raise NotThisHead(f"{output}: neither the structure nor class names tell boxes from classes")
        count = (found.parts.classes if found.parts else 0) or named or channels - 4 * _DEFAULT_REG_MAX
        if count < 1 or channels - count < 4 or (channels - count) % 4:
            raise NotThisHead(
                f"{output}: {channels} channels are not 4 x bins + {count} classes; see --classes (model.classes)"
            )
        model.check_class_count(output, count)
        if not found.strides:
            size = " x ".join(map(str, model.image_size))
            raise NotThisHead(f"{output} has {found.anchors} anchors, which no usual strides give for {size}")
        preprocessing, reg_max = model.preprocessing(), (channels - count) // 4
        return cls(output, preprocessing, count, reg_max, found.strides, found.transposed)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says; boxes that overlap a better one are suppressed."""
        return [self._decode(channels, thresholds) for channels in channels_first(outputs[0], self.transposed)]

    def dense(self, graph: ModelGraph) -> DenseBins:
        """The output itself."""
        return DenseBins(self)

    def corners(self, bins: Float, anchors: NDArray[np.intp]) -> Float:
        """Decodes the distance bins of some anchors.

        Args:
            bins: Shape (4 x reg_max, k), logits.
            anchors: Shape (k,), which anchors they are.

        Returns:
            Shape (k, 4): x1, y1, x2, y2 in input pixels.
        """
        centres, strides = anchor_points(self.preprocessing.size, self.strides)
        logits = bins.reshape(4, self.reg_max, -1)
        if self.reg_max > 1:
            weights = np.exp(logits - logits.max(1, keepdims=True))
            ramp = np.arange(self.reg_max, dtype=np.float32)[:, None]
            distances = (weights * ramp).sum(1) / weights.sum(1)
        else:
            distances = logits[:, 0]
        points, stride = centres[anchors], strides[anchors, None]
        top_left, bottom_right = distances[:2].T * stride, distances[2:].T * stride
        return np.concatenate([points - top_left, points + bottom_right], 1).astype(np.float32)

    def _decode(self, channels: Float, thresholds: Thresholds) -> Float:
        split = 4 * self.reg_max
        kept = np.flatnonzero((channels[split:] > logit(thresholds.confidence)).any(0))
        boxes, scores = self.corners(channels[:split, kept], kept), sigmoid(channels[split:, kept])
        finite = np.isfinite(boxes).all(1)
        return suppress(boxes[finite], scores[:, finite], thresholds)


@dataclass(frozen=True)
class DenseBins:
    """The dense outputs of a raw head.

    Attributes:
        head: The head.
    """

    head: RawHead

    @property
    def tensors(self) -> tuple[str, ...]:
        """The one output."""
        return self.head.outputs

    def probabilities(self, outputs: Outputs, anchors: NDArray[np.intp] | None = None) -> Float:
        """As `DenseOutputs` says."""
        logits = channels_first(outputs[0], self.head.transposed)[0, 4 * self.head.reg_max :]
        return sigmoid(logits if anchors is None else logits[:, anchors])

    def boxes(self, outputs: Outputs, anchors: NDArray[np.intp]) -> Float:
        """As `DenseOutputs` says."""
        channels = channels_first(outputs[0], self.head.transposed)[0]
        return self.head.corners(channels[: 4 * self.head.reg_max, anchors], anchors)

    def factors(self) -> tuple[Float | None, ...]:
        """None: bins and classes are logits alike."""
        return (None,)
