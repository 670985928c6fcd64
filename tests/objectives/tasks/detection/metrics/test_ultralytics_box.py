"""Ultralytics' AP against answers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives.tasks.detection.data.coco_json import Annotation, Category
from objectives.tasks.detection.data.dataset import CocoDataset, ImageRecord
from objectives.tasks.detection.metrics.metric import Targets
from objectives.tasks.detection.metrics.ultralytics_box import UltralyticsBox
from objectives.tasks.detection.predictions import Predictions

#: Two objects of one class and one of another, in two images.
LABELS = (
    Annotation(0, 5, 1, (10, 10, 20, 20), 400),
    Annotation(1, 6, 1, (40, 10, 20, 20), 400),
    Annotation(2, 6, 2, (10, 60, 30, 20), 600),
)
DATASET = CocoDataset(
    (ImageRecord(5, Path("a")), ImageRecord(6, Path("b"))), LABELS, (Category(1, "a"), Category(2, "b")), Path("l.json")
)
RIGHT = [[10, 10, 30, 30, 0.9, 0]], [[40, 10, 60, 30, 0.8, 0], [10, 60, 40, 80, 0.7, 1]]


def computed(first: list[list[float]], second: list[list[float]], dataset: CocoDataset = DATASET) -> dict[str, float]:
    metric = UltralyticsBox()
    rows = tuple(np.array(image, np.float32).reshape(-1, 6) for image in (first, second))
    metric.update(Predictions((5, 6), rows, ("a", "b"), 2), Targets(dataset))
    return dict(metric.compute())


def test_all_right_is_what_ultralytics_says_of_it() -> None:
    # The last of the 101 recalls falls to 0, so the trapezoid rule loses half a step: the well-known 0.995.
    assert computed(*RIGHT) == pytest.approx({"map_50_95_ultralytics": 0.995, "map_50_ultralytics": 0.995})


def test_a_wrong_box_before_the_last_right_one() -> None:
    wrong = [[70, 70, 90, 90, 0.85, 0]]
    # Class a: precision 1 at the 50 recalls below 1/2, 2/3 at the 50 from there on, 0 at the last; class b as before.
    area = 0.01 * (50 + 50 * 2 / 3 - 1 / 2)
    assert computed([*RIGHT[0], *wrong], RIGHT[1])["map_50_ultralytics"] == pytest.approx((area + 0.995) / 2)


def test_boxes_that_overlap_by_four_fifths_count_up_to_there_and_none_counts_twice() -> None:
    shifted = [[40, 10, 60, 26, 0.8, 0], [10, 60, 40, 80, 0.7, 1]]  # IoU 0.8
    found = computed(RIGHT[0], shifted)
    assert found["map_50_ultralytics"] == pytest.approx(0.995)
    half = 0.01 * (50 - 1 / 2)  # precision 1 at the recalls below 1/2; at 3 of 10 IoUs
    assert found["map_50_95_ultralytics"] == pytest.approx((0.995 + (0.7 * 0.995 + 0.3 * half)) / 2, abs=3e-3)
    twice = computed(RIGHT[0], [*RIGHT[1], [40, 10, 60, 30, 0.75, 0]])
    assert twice["map_50_ultralytics"] == pytest.approx(0.995)  # a second one behind the last recall costs nothing


def test_classes_never_found_crowds_and_nothing_at_all() -> None:
    assert computed(RIGHT[0], RIGHT[1][:1])["map_50_ultralytics"] == pytest.approx(0.995 / 2)
    crowd = replace(LABELS[2], iscrowd=True)
    without = replace(DATASET, annotations=(*LABELS[:2], crowd))
    assert computed(*RIGHT, without)["map_50_ultralytics"] == pytest.approx(0.995)
    empty = replace(DATASET, annotations=(crowd,))
    assert set(computed(*RIGHT, empty).values()) == {-1.0}
