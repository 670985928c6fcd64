"""YOLOv8's head: (batch, 4 + classes, anchors), centre x, y, width, height in input pixels and class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.channels import ChannelOutput, DecodedChannels, channels_first, to_corners
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs, first_output
from objectives.tasks.detection.heads.suppression import suppress
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class ScoresHead:
    """Decoded boxes with class probabilities at every anchor.

    Attributes:
        output: Name of the output.
        preprocessing: Ultralytics'.
        class_count: Number of classes.
        transposed: Whether the output is (batch, anchors, 4 + classes).
    """

    output: str
    preprocessing: Preprocessing
    class_count: int
    transposed: bool = False

    one_to_one: ClassVar[bool] = False
    exported: ClassVar[bool] = True

    @classmethod
    def recognise(cls, model: Candidate) -> ScoresHead:
        """As `Head` says."""
        return first_output(model, lambda name, shape: cls._read(model, name, shape))

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> ScoresHead:
        found = ChannelOutput.of(model, output, shape)
        count, named = found.channels - 4, len(model.classes)
        if not model.asked:
            if found.sigmoid is False:
                raise NotThisHead(f"the classes of {output} are logits")
            if found.sigmoid is None and count != named:
                raise NotThisHead(f"{output}: neither the structure nor class names tell boxes from classes")
            if not found.strides:
                raise NotThisHead(f"{output}: its {found.anchors} rows are not on an anchor grid")
        if named and named != count:
            raise NotThisHead(
                f"{output} has {count} classes but there are {named} class names; see --classes (model.classes)"
            )
        return cls(output, Preprocessing(model.image_size), count, found.transposed)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output,)

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says; boxes that overlap a better one are suppressed."""
        return [_decode(channels, thresholds) for channels in channels_first(outputs[0], self.transposed)]

    def dense(self, graph: ModelGraph) -> DecodedChannels:
        """The output itself."""
        return DecodedChannels(self.output, self.transposed, False, self.class_count, self.preprocessing.size)


def _decode(channels: Float, thresholds: Thresholds) -> Float:
    kept = np.flatnonzero((channels[4:] > thresholds.confidence).any(0))
    boxes, scores = to_corners(channels[:4, kept].T), channels[4:, kept]
    finite = np.isfinite(boxes).all(1)
    return suppress(boxes[finite], scores[:, finite], thresholds)
