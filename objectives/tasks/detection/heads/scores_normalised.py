"""YOLOv8's head with boxes as shares of the input, 0..1, as some exporters write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from objectives.tasks.detection.heads.scores import ScoresHead


@dataclass(frozen=True)
class NormalisedScoresHead(ScoresHead):
    """As `ScoresHead`, but for the unit of the boxes."""

    exported: ClassVar[bool] = False
    normalised: ClassVar[bool] = True
