"""COCO scoring of predictions, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from objectives.tasks.detection.data.dataset import Annotation, CocoDataset
from objectives.tasks.detection.metrics.bootstrap import MatchTable, resampled
from objectives.tasks.detection.metrics.metric import BOXES, LABELS, Targets
from objectives.tasks.detection.prediction_file import merge_predictions
from objectives.tasks.detection.predictions import Predictions


@dataclass(frozen=True)
class Kind:
    """What of an object pycocotools matches by.

    Attributes:
        name: Its ``iouType``.
        label: Adds to a label what is matched; takes the label, and height and width of its image.
        result: Adds to a detection what is matched; takes the predictions, the image's place and the row.
    """

    name: str
    label: Callable[[Annotation, tuple[int, int]], dict[str, Any]]
    result: Callable[[Predictions, int, int], dict[str, Any]]


BOX = Kind("bbox", lambda label, size: {}, lambda predictions, place, row: {})


class CocoBox:
    """COCO's box AP, each in [0, 1]; -1 where the images have no such objects.

    ``map_50_95`` is averaged over IoU 0.50:0.95, ``map_50`` and ``map_75`` are at one IoU, ``map_small`` is of objects
    below 32 x 32 pixels, ``map_medium`` up to 96 x 96, ``map_large`` of larger ones.
    """

    needs: ClassVar[frozenset[str]] = frozenset({BOXES, LABELS})
    yields: ClassVar[tuple[str, ...]] = ("map_50_95", "map_50", "map_75", "map_small", "map_medium", "map_large")

    def __init__(self) -> None:
        self._seen: list[tuple[Predictions, CocoDataset]] = []

    def update(self, predictions: Predictions, targets: Targets) -> None:
        """As `Metric` says."""
        targets.dataset.category_of_class(predictions.classes, predictions.class_count)
        self._seen.append((predictions, targets.dataset))

    def compute(self) -> Mapping[str, float]:
        """As `Metric` says."""
        return dict(zip(self.yields, summary(evaluation(*joined(self._seen))), strict=False))  # behind: recalls

    def resampled(self, predictions: Predictions, targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
        """As `Resampled` says: mAP50-95, 0 of a sample without objects."""
        return resampled(match_table(targets.dataset, predictions), samples, seed)

    def reset(self) -> None:
        """As `Metric` says."""
        self._seen.clear()


def match_table(dataset: CocoDataset, predictions: Predictions, kind: Kind = BOX) -> MatchTable:
    """Matches predictions to the labels once, so that mAP50-95 of any resample of the images is cheap."""
    return table_of(evaluation(dataset, predictions, kind))


def table_of(matching: COCOeval) -> MatchTable:
    """The matches of an evaluation, of objects of any size."""
    everything = matching.params.areaRng[:1]
    matching.params.areaRng, matching.params.areaRngLbl = everything, ["all"]
    matching.params.maxDets = matching.params.maxDets[-1:]
    with contextlib.redirect_stdout(io.StringIO()):
        matching.evaluate()
    return MatchTable.of(matching.evalImgs, len(matching.params.catIds), len(matching.params.imgIds))


def summary(matching: COCOeval) -> list[float]:
    """Runs an evaluation; the figures that pycocotools sums it up to, in its order."""
    with contextlib.redirect_stdout(io.StringIO()):
        matching.evaluate()
        matching.accumulate()
        matching.summarize()
    return [float(value) for value in matching.stats]


def joined(seen: Sequence[tuple[Predictions, CocoDataset]]) -> tuple[CocoDataset, Predictions]:
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


def evaluation(dataset: CocoDataset, predictions: Predictions, kind: Kind = BOX) -> COCOeval:
    """What pycocotools needs to match predictions to labels."""
    dataset = dataset.matched(predictions.classes, predictions.class_count)
    labels, found = COCO(), COCO()
    images = [{"id": image.id, "height": image.height, "width": image.width} for image in dataset.images]
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    sizes = {image.id: (image.height, image.width) for image in dataset.images}
    labels.dataset = {
        "images": images,
        "categories": categories,
        "annotations": [
            # Numbered from 1 whatever the file says: pycocotools takes a match with annotation 0 for none.
            {
                "id": number,
                "image_id": label.image_id,
                "category_id": label.category_id,
                "bbox": list(label.bbox),
                "area": label.area,
                "iscrowd": int(label.iscrowd),
                **kind.label(label, sizes[label.image_id]),
            }
            for number, label in enumerate(dataset.annotations, 1)
        ],
    }
    found.dataset = {"images": images, "categories": categories, "annotations": _results(dataset, predictions, kind)}
    with contextlib.redirect_stdout(io.StringIO()):
        labels.createIndex()
        found.createIndex()
        matching = COCOeval(labels, found, kind.name)
    # pycocotools lists every image and category of the labels itself; categories without objects add nothing.
    matching.params.imgIds = sorted(image.id for image in dataset.images)
    matching.params.catIds = list(dataset.category_ids)
    return matching


def _results(dataset: CocoDataset, predictions: Predictions, kind: Kind) -> list[dict[str, Any]]:
    """Detections as COCO result annotations; classes that no label uses are left out."""
    categories = dataset.category_of_class(predictions.classes, predictions.class_count)
    wanted = {image.id for image in dataset.images}
    results: list[dict[str, Any]] = []
    for place, (image, rows) in enumerate(zip(predictions.ids, predictions.detections, strict=True)):
        if image not in wanted:
            continue
        for row, (x1, y1, x2, y2, confidence, index) in enumerate(rows.astype(float).tolist()):
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
                        **kind.result(predictions, place, row),
                    }
                )
    return results
