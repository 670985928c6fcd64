"""Says what was seen where a model scores nothing: no detections, boxes elsewhere, or other classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.predictions import Predictions
from objectives.tasks.detection.thresholds import Thresholds

#: mAP50-95 below which there is something to say: less than one object of a thousand is found.
NOTHING = 0.001
_OVERLAP = 0.5  # IoU; the lowest that COCO counts

Boxes = NDArray[np.float64]


@dataclass
class _Seen:
    """What the detections of all images have in common with the labels."""

    detections: int = 0
    labels: int = 0
    best: float = 0.0  # IoU, whatever the class
    found: int = 0  # labels that a detection of their class overlaps
    swapped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (detected class, label) that overlap
    spans: list[Boxes] = field(default_factory=list)  # corners of the detections
    label_spans: list[Boxes] = field(default_factory=list)


def low_score_reason(dataset: CocoDataset, predictions: Predictions) -> str:
    """What was seen, and what to try, in one clause.

    Args:
        dataset: The labels.
        predictions: On these images.

    Raises:
        InputError: The model's classes do not fit the labels.
    """
    dataset = dataset.matched(predictions.classes, predictions.class_count)
    seen = _look(dataset, predictions)
    if not seen.labels:
        return f"none of the {len(dataset)} images has a labelled object that counts (crowds do not)"
    if not seen.detections:
        lowest = Thresholds().confidence
        return (
            f"nothing is detected: no score in {len(dataset)} images is above {lowest}; the model may want other "
            "pixels or have another head (--head, model.head)"
        )
    many = f"{seen.detections} detections, {seen.labels} labelled boxes"
    if seen.best < _OVERLAP:
        return (
            f"{many}: no two overlap by half (best IoU {seen.best:.2f}); detections span {_span(seen.spans)}, labels "
            f"{_span(seen.label_spans)}; the labels are of other images, or boxes are read in another form than the "
            "model's (--head, --image-size)"
        )
    if not seen.found:
        (detected, label), times = seen.swapped.most_common(1)[0]
        return (
            f"{many}: boxes overlap, but never of one class; {times} detections of {detected} lie on labels of "
            f"{label}; the class names may be in another order than the model's (--classes, model.classes)"
        )
    return (
        f"{many}: {seen.found} labels are found by half or more, but by low scores among wrong detections; the model "
        "may want other pixels or other labels"
    )


def strays(predictions: Predictions) -> str | None:
    """Says of detections whose class has no name that they count for nothing; None where there are none."""
    indices = np.concatenate([np.zeros(0), *(rows[:, 5] for rows in predictions.detections)])
    beyond = indices[(indices < 0) | (indices >= predictions.class_count)]
    if not len(beyond):
        return None
    return (
        f"{len(beyond)} detections are of classes without a name (up to class {int(beyond.max())}; "
        f"names: {predictions.class_count}) and are left out; give all names (--classes, model.classes)"
    )


def _look(dataset: CocoDataset, predictions: Predictions) -> _Seen:
    names = {category.id: f"{category.id} {category.name!r}" for category in dataset.categories}
    categories = dataset.category_of_class(predictions.classes, predictions.class_count)
    rows_of = dict(zip(predictions.ids, predictions.detections, strict=True))
    seen = _Seen()
    for image in dataset.images:
        labels = [box for box in dataset.annotations if box.image_id == image.id and not box.iscrowd]
        rows = rows_of.get(image.id, np.zeros((0, 6), np.float32)).astype(np.float64)
        seen.detections += len(rows)
        seen.labels += len(labels)
        given = np.array([box.bbox for box in labels], np.float64).reshape(-1, 4)
        seen.spans.append(rows[:, :4])
        seen.label_spans.append(np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1))
        if not len(rows) or not labels:
            continue
        found = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1)
        overlaps = np.asarray(mask.iou(found, given, [0] * len(labels)))
        seen.best = max(seen.best, float(overlaps.max()))
        hit: set[int] = set()
        for row, label in np.argwhere(overlaps >= _OVERLAP):
            index = int(rows[row, 5])
            category = categories[index] if 0 <= index < len(categories) else None
            if category == labels[label].category_id:
                hit.add(int(label))
            name = predictions.classes[index] if 0 <= index < len(predictions.classes) else "?"
            seen.swapped[f"class {index} {name!r}", names[labels[label].category_id]] += 1
        seen.found += len(hit)
    return seen


def _span(boxes: list[Boxes]) -> str:
    corners = np.concatenate(boxes)
    x, y = corners[:, [0, 2]], corners[:, [1, 3]]
    return f"x {x.min():.4g} to {x.max():.4g}, y {y.min():.4g} to {y.max():.4g}"
