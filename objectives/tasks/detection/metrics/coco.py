"""COCO scoring of predictions, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.metrics.bootstrap import MatchTable, difference_interval
from objectives.tasks.detection.metrics.metric import BOXES, Targets
from objectives.tasks.detection.prediction_file import merge_predictions
from objectives.tasks.detection.predictions import Predictions


class CocoBox:
    """COCO's box AP, each in [0, 1]; -1 where the images have no such objects.

    ``map_50_95`` is averaged over IoU 0.50:0.95, ``map_50`` and ``map_75`` are at one IoU, ``map_small`` is of objects
    below 32 x 32 pixels, ``map_medium`` up to 96 x 96, ``map_large`` of larger ones.
    """

    needs: ClassVar[frozenset[str]] = frozenset({BOXES})
    yields: ClassVar[tuple[str, ...]] = ("map_50_95", "map_50", "map_75", "map_small", "map_medium", "map_large")

    def __init__(self) -> None:
        self._seen: list[tuple[Predictions, CocoDataset]] = []

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """As `Metric` says."""
        targets.dataset.category_of_class(predictions.classes, predictions.class_count)
        self._seen.append((predictions, targets.dataset))

    def compute(self) -> Mapping[str, float]:
        """As `Metric` says."""
        evaluation = _evaluation(*_joined(self._seen))
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return dict(zip(self.yields, map(float, evaluation.stats), strict=False))  # behind them: average recalls

    def reset(self) -> None:
        """As `Metric` says."""
        self._seen.clear()


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


def _joined(seen: Sequence[tuple[Predictions, CocoDataset]]) -> tuple[CocoDataset, Predictions]:
    """Disjoint sets of images as one.

    Raises:
        ValueError: There is none.
    """
    if not seen:
        raise ValueError("no images were scored")
    (predictions, dataset), *others = seen
    predictions = predictions.only({image.id for image in dataset.images})
    for more, labels in others:
        predictions = merge_predictions(predictions, more.only({image.id for image in labels.images}))
        dataset = replace(
            dataset,
            images=dataset.images + labels.images,
            annotations=dataset.annotations + labels.annotations,
        )
    return dataset, predictions


def _evaluation(dataset: CocoDataset, predictions: Predictions) -> COCOeval:
    dataset = dataset.matched(predictions.classes, predictions.class_count)
    labels, found = COCO(), COCO()
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    images = [{"id": image.id} for image in dataset.images]
    labels.dataset = {
        "images": images,
        "categories": categories,
        "annotations": [
            # Numbered from 1 whatever the file says: pycocotools takes a match with annotation 0 for none.
            {**vars(annotation), "id": number, "bbox": list(annotation.bbox), "iscrowd": int(annotation.iscrowd)}
            for number, annotation in enumerate(dataset.annotations, 1)
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
