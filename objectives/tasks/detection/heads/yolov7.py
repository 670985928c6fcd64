"""YOLOv7's own anchors, for outputs that are not decoded in the graph; decoded ones are read as YOLOv5's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from objectives.tasks.detection.heads.head import Candidate, NotThisHead
from objectives.tasks.detection.heads.yolov5 import Anchors, Yolov5Head


@dataclass(frozen=True)
class Yolov7Head(Yolov5Head):
    """As YOLOv5's; only by name, for nothing in a graph tells whose anchors it was trained with."""

    anchors: ClassVar[Anchors] = {
        8: ((12, 16), (19, 36), (40, 28)),
        16: ((36, 75), (76, 55), (72, 146)),
        32: ((142, 110), (192, 243), (459, 401)),
    }

    @classmethod
    def recognise(cls, model: Candidate) -> Yolov5Head:
        """As `Head` says."""
        if not model.asked:
            raise NotThisHead(f"{next(iter(model.graph.outputs), 'no output')} tells nothing of its anchors")
        return super().recognise(model)
