"""Scores that another run made of the same artifacts: their accuracy holds on this device, their latency does not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from objectives.scores import Accuracy, Scores
from objectives.tasks.detection.prediction_file import load_predictions
from objectives.tasks.detection.predictions import Predictions


@dataclass(frozen=True)
class Known:
    """What one artifact detected in another run.

    Attributes:
        found: Its detections on the search images.
        accuracy: Their accuracy.
        agreement: With the reference's detections, in [0, 1].
        run: Id of the run.
    """

    found: Predictions
    accuracy: Accuracy
    agreement: float
    run: str


def find_known(folder: Path | None, name: str, artifact: str, images: Iterable[int]) -> Known | None:
    """Looks up an artifact among known scores; a line in the log says why one that is there does not hold.

    Args:
        folder: Holds ``<name>.json``, scores that name their run in `reused`, and ``<name>.npz``, the detections.
        name: Digest of the allocation, or the reference's name.
        artifact: SHA-256 of the model that was materialized here.
        images: Ids of the search images.
    """
    path = folder / f"{name}.json" if folder is not None else None
    if path is None or not path.is_file():
        return None
    scores = Scores.from_json(json.loads(path.read_text(encoding="utf-8")))
    found = load_predictions(path.with_suffix(".npz"))
    if scores.artifact != artifact:
        reason = f"its artifact was {scores.artifact[:16]} there and is {artifact[:16]} here"
    elif found is None or set(found.ids) != set(images):
        reason = "its detections are damaged or of other images"
    else:
        return Known(found, scores.accuracy, scores.agreement, scores.reused)
    print(f"{name[:16]}: accuracy of run {scores.reused} not reused, scored again: {reason}", flush=True)
    return None
