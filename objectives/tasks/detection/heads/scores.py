"""YOLOv8's head: (batch, 4 + classes, anchors), centre x, y, width, height in input pixels and class probabilities.

Some exporters divide the boxes by the size of the input: `NormalisedScoresHead`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.boxes import to_corners, to_pixels
from objectives.tasks.detection.heads.channels import (
    ChannelOutput,
    DecodedChannels,
    channels_first,
)
from objectives.tasks.detection.heads.columns import boxes_are_shares, columns, first
from objectives.tasks.detection.heads.head import Candidate, Float, NotThisHead, Outputs
from objectives.tasks.detection.heads.layout import BoxLayout
from objectives.tasks.detection.heads.one_output import OneOutput
from objectives.tasks.detection.heads.suppression import suppress
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class ScoresHead(OneOutput):
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
    #: Whether boxes are shares of the input instead of its pixels.
    normalised: ClassVar[bool] = False

    @classmethod
    def _read(cls, model: Candidate, output: str, shape: tuple[int, ...]) -> ScoresHead:
        found = ChannelOutput.of(model, output, shape)
        count, named, axis = found.channels - 4, len(model.classes), 2 if found.transposed else 1
        if not model.asked:
            if found.sigmoid is False:
                raise NotThisHead(f"the classes of {output} are logits")
            parts = columns(model.graph, output, axis)
            classes, sources = first(parts, 4, found.channels), {part.source for part in first(parts, 0, 4)}
            probable = len(classes) == 1 and classes[0].probability and classes[0].source not in sources
            if cls.normalised and not probable:
                raise NotThisHead(f"{output}: no layer of their own makes its classes")
            if found.sigmoid is None and count != named and not probable:
                raise NotThisHead(f"{output}: neither the structure nor class names tell boxes from classes")
            if not found.strides:
                raise NotThisHead(f"{output}: its {found.anchors} rows are not on an anchor grid")
            if boxes_are_shares(model.graph, output, axis) != cls.normalised:
                where = "in pixels, not in" if cls.normalised else "within"
                raise NotThisHead(f"the boxes of {output} are {where} 0..1")
        model.check_class_count(output, count)
        return cls(output, model.preprocessing(), count, found.transposed)

    @property
    def layout(self) -> BoxLayout:
        """As `PlainHead` says."""
        return BoxLayout(
            self.output,
            not self.transposed,
            corners=False,
            selected=False,
            objectness=False,
            normalised=self.normalised,
            suppressed=False,
        )

    def decode(self, outputs: Outputs, thresholds: Thresholds) -> list[Float]:
        """As `Head` says; boxes that overlap a better one are suppressed."""
        return [self._decode(channels, thresholds) for channels in channels_first(outputs[0], self.transposed)]

    def dense(self, graph: ModelGraph) -> DecodedChannels:
        """The output itself."""
        size = self.preprocessing.size
        return DecodedChannels(self.output, self.transposed, False, self.class_count, size, self.normalised)

    def _decode(self, channels: Float, thresholds: Thresholds) -> Float:
        kept = np.flatnonzero((channels[4:] > thresholds.confidence).any(0))
        boxes, scores = to_corners(channels[:4, kept].T), channels[4:, kept]
        if self.normalised:
            boxes = to_pixels(boxes, self.preprocessing.size)
        finite = np.isfinite(boxes).all(1)
        return suppress(boxes[finite], scores[:, finite], thresholds)
