"""COCO scoring of predictions, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from objectives.scores import Accuracy
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.metrics.bootstrap import MatchTable, difference_interval

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Detections of one model.

    Attributes:
        ids: Image id of each image.
        detections: Per image an array (k, 6), float32: x1, y1, x2, y2 in pixels of the original image, score,
            class index; best first.
        classes: Class names by index; empty where the model has none.
        class_count: Number of classes; 0 where unknown.
    """

    ids: tuple[int, ...]
    detections: tuple[Float, ...]
    classes: tuple[str, ...] = ()
    class_count: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: set[int]) -> Predictions:
        """The predictions of some images."""
        kept = [(i, d) for i, d in zip(self.ids, self.detections, strict=True) if i in ids]
        return Predictions(tuple(i for i, _ in kept), tuple(d for _, d in kept), self.classes, self.class_count)

    def ordered(self, ids: Sequence[int]) -> Predictions:
        """The predictions of some images, in that order."""
        held = dict(zip(self.ids, self.detections, strict=True))
        return Predictions(tuple(ids), tuple(held[i] for i in ids), self.classes, self.class_count)


def score(dataset: CocoDataset, predictions: Predictions) -> Accuracy:
    """Scores predictions on all images of a dataset.

    Args:
        dataset: The labels. Images without predictions count as images without detections.
        predictions: May cover more images than the dataset.

    Raises:
        InputError: The model's classes do not fit the labels.
    """
    evaluation = _evaluation(dataset, predictions)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    mean, half, strict, small, medium, large = (float(value) for value in evaluation.stats[:6])
    return Accuracy(mean, half, strict, small, medium, large, len(dataset.images))


def bootstrap_difference(
    dataset: CocoDataset, candidate: Predictions, reference: Predictions, samples: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Paired bootstrap over images of the difference in mAP50-95, candidate minus reference.

    Args:
        dataset: The labels.
        candidate: Predictions of one model.
        reference: Predictions of the other, on the same images.
        samples: Resamples of the images.
        seed: Of the resampling.

    Returns:
        The difference on the images themselves, and the 95 % interval (low, high), all in [-1, 1].
    """
    tables = [match_table(dataset, predictions) for predictions in (candidate, reference)]
    return difference_interval(tables[0], tables[1], samples, seed)


def match_table(dataset: CocoDataset, predictions: Predictions) -> MatchTable:
    """Matches predictions to the labels once, so that mAP50-95 of any resample of the images is cheap."""
    evaluation = _evaluation(dataset, predictions)
    everything = evaluation.params.areaRng[:1]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = everything, ["all"]
    evaluation.params.maxDets = evaluation.params.maxDets[-1:]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return MatchTable.of(evaluation.evalImgs, len(evaluation.params.catIds), len(evaluation.params.imgIds))


def _evaluation(dataset: CocoDataset, predictions: Predictions) -> COCOeval:
    labels, found = COCO(), COCO()
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    images = [{"id": image.id} for image in dataset.images]
    labels.dataset = {
        "images": images,
        "categories": categories,
        "annotations": [
            {**vars(annotation), "bbox": list(annotation.bbox), "iscrowd": int(annotation.iscrowd)}
            for annotation in dataset.annotations
        ],
    }
    found.dataset = {
        "images": images,
        "categories": categories,
        "annotations": _results(dataset, predictions),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        labels.createIndex()
        found.createIndex()
        evaluation = COCOeval(labels, found, "bbox")
    # pycocotools lists every image and category of the labels itself; categories without objects add nothing.
    evaluation.params.imgIds = sorted(image.id for image in dataset.images)
    evaluation.params.catIds = list(dataset.category_ids)
    return evaluation


def _results(dataset: CocoDataset, predictions: Predictions) -> list[dict[str, Any]]:
    """Detections as COCO result annotations; classes that no label uses are left out."""
    categories = dataset.category_of_class(predictions.classes, predictions.class_count)
    wanted = {image.id for image in dataset.images}
    results: list[dict[str, Any]] = []
    for image, rows in zip(predictions.ids, predictions.detections, strict=True):
        if image not in wanted:
            continue
        for x1, y1, x2, y2, confidence, index in rows.astype(float).tolist():
            category = categories[int(index)] if 0 <= index < len(categories) else None
            if category is not None:
                width, height = x2 - x1, y2 - y1
                results.append(
                    {
                        "id": len(results) + 1,
                        "image_id": image,
                        "category_id": category,
                        "bbox": [x1, y1, width, height],
                        "area": width * height,
                        "score": confidence,
                        "iscrowd": 0,
                    }
                )
    return results
