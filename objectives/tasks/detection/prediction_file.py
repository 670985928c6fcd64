"""Keeps predictions in a file, so that no image is ever run twice through the same artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from objectives.tasks.detection.data.masks import Rle
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
            **_details(predictions),
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
            masks, keypoints = _masks(data, len(ids)), None
            if "keypoints" in data:
                keypoints = tuple(np.split(data["keypoints"], np.cumsum(data["counts"])[:-1])) if ids else ()
            return Predictions(ids, tuple(rows), tuple(classes), int(count), masks, keypoints)
    except Exception:  # zip, zlib, NumPy and JSON raise a dozen classes of their own; all mean that it is damaged
        return None


def merge_predictions(first: Predictions, second: Predictions) -> Predictions:
    """Predictions of one artifact on two disjoint sets of images, as one."""
    masks = keypoints = None
    if first.masks is not None and second.masks is not None:
        masks = first.masks + second.masks
    if first.keypoints is not None and second.keypoints is not None:
        keypoints = first.keypoints + second.keypoints
    ids, detections = first.ids + second.ids, first.detections + second.detections
    return Predictions(ids, detections, first.classes, first.class_count, masks, keypoints)


def _details(predictions: Predictions) -> dict[str, Any]:
    """Masks and keypoints as arrays, one row per detection of all images; nothing where there are none."""
    found: dict[str, Any] = {}
    if predictions.masks is not None:
        masks = [mask for image in predictions.masks for mask in image]
        found["mask_sizes"] = np.array([(m.height, m.width, len(m.counts)) for m in masks], np.int64).reshape(-1, 3)
        found["mask_runs"] = np.frombuffer(b"".join(m.counts for m in masks), np.uint8)
    if predictions.keypoints is not None:
        points = [rows for rows in predictions.keypoints if len(rows)]
        found["keypoints"] = np.concatenate(points) if points else np.zeros((0, 0, 3), np.float32)
    return found


def _masks(data: Any, images: int) -> tuple[tuple[Rle, ...], ...] | None:
    if "mask_sizes" not in data:
        return None
    sizes, runs = data["mask_sizes"].tolist(), data["mask_runs"].tobytes()
    ends = np.cumsum([length for _, _, length in sizes]).tolist()
    masks = [Rle(h, w, runs[end - n : end]) for (h, w, n), end in zip(sizes, ends, strict=True)]
    firsts = np.cumsum([0, *data["counts"].tolist()])
    return tuple(tuple(masks[firsts[row] : firsts[row + 1]]) for row in range(images))
