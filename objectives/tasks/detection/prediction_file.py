"""Keeps predictions in a file, so that no image is ever run twice through the same artifact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from objectives.tasks.detection.predictions import Predictions
from search_spaces.durable import durable_file


def save_predictions(predictions: Predictions, path: Path) -> None:
    """Writes predictions, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = predictions.detections or (np.zeros((0, 6), np.float32),)
    with durable_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.array(predictions.ids, np.int64),
            counts=np.array([len(d) for d in predictions.detections], np.int64),
            rows=np.concatenate(rows).astype(np.float32),
            classes=np.array(json.dumps([list(predictions.classes), predictions.class_count])),
        )


def load_predictions(path: Path) -> Predictions | None:
    """Reads what `save_predictions` wrote; None where there is no such file or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as data:
            ids = tuple(int(i) for i in data["ids"])
            rows = np.split(data["rows"], np.cumsum(data["counts"])[:-1]) if ids else []
            classes, count = json.loads(str(data["classes"]))
            shaped = all(part.ndim == 2 and part.shape[1] == 6 and np.isfinite(part).all() for part in rows)
            if not shaped or len(rows) != len(ids) or not all(isinstance(name, str) for name in classes):
                return None
            return Predictions(ids, tuple(rows), tuple(classes), int(count))
    except Exception:  # zip, zlib, NumPy and JSON raise a dozen classes of their own; all mean that it is damaged
        return None


def merge_predictions(first: Predictions, second: Predictions) -> Predictions:
    """Predictions of one artifact on two disjoint sets of images, as one."""
    return Predictions(first.ids + second.ids, first.detections + second.detections, first.classes, first.class_count)
