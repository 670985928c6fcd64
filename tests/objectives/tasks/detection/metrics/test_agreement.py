from itertools import pairwise

import numpy as np
import pytest

from objectives.tasks.detection.drawing import draw, side_by_side
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.predictions import Predictions


def _predictions(seed=0, images=6, count=20):
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(images):
        corner = random.uniform(0, 400, (count, 2))
        boxes = np.concatenate([corner, corner + random.uniform(20, 200, (count, 2))], 1)
        scores = np.sort(random.uniform(0.01, 1, count))[::-1, None]
        rows.append(np.concatenate([boxes, scores, random.integers(0, 3, (count, 1))], 1).astype(np.float32))
    return Predictions(tuple(range(images)), tuple(rows), class_count=3)


def _with(predictions, change):
    rows = tuple(change(rows.copy()) for rows in predictions.detections)
    return Predictions(predictions.ids, rows, class_count=3)


def test_identical_detections_agree_fully():
    found = _predictions()
    assert agreement(found, found) == pytest.approx(1, abs=1e-6)
    nothing = _with(found, lambda rows: rows[:0])
    assert agreement(nothing, nothing) == 1
    assert agreement(nothing, found) == agreement(found, nothing) == 0


@pytest.mark.parametrize(
    "degrade",
    [
        lambda rows, x: rows + x * np.array([20, 20, 20, 20, 0, 0], np.float32),
        lambda rows, x: rows * np.array([1, 1, 1, 1, 1 - 0.2 * x, 1], np.float32),
        lambda rows, x: rows[int(4 * x) :],
        lambda rows, x: np.concatenate([rows + np.array([900] * 4 + [0, 0], np.float32)] * x + [rows])[::-1],
    ],
    ids=["moved", "less sure", "lost", "invented"],
)
def test_agreement_falls_with_every_degradation(degrade):
    found = _predictions()
    values = [agreement(_with(found, lambda rows, x=x: degrade(rows, x)), found) for x in range(5)]
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert all(later < earlier for earlier, later in pairwise(values)), values


def test_another_class_does_not_agree():
    found = _predictions()
    assert agreement(_with(found, lambda rows: rows + np.array([0] * 5 + [3], np.float32)), found) == 0


def test_is_symmetric_and_wants_the_same_images():
    first, second = _predictions(0), _predictions(1)
    assert agreement(first, second) == pytest.approx(agreement(second, first))
    with pytest.raises(ValueError, match="different images"):
        agreement(first, _predictions(images=2))


def test_drawing():
    image = np.zeros((120, 160, 3), np.uint8)
    rows = np.array([[10, 40, 100, 100, 0.9, 0], [0, 0, 5, 5, 0.1, 1], [50, 50, 90, 90, 0.5, 9]], np.float32)
    drawn = draw(image, rows, ["cat", "dog"])
    assert drawn.shape == image.shape
    assert not image.any()
    assert drawn[40:101, 10].any(axis=1).all()
    assert not drawn[0:6, 0:6].any()
    label = draw(image, np.array([[2, 60, 60, 90, 0.9, 0]], np.float32), ["a long name"])[40:59]
    moved = draw(image, np.array([[150, 60, 159, 90, 0.9, 0]], np.float32), ["a long name"])[40:59]
    assert moved.any(axis=2).sum() == label.any(axis=2).sum() > 0  # a label at the edge is whole
    pair = side_by_side(image, drawn, ("reference", "scheme"))
    assert pair.shape[1] == 2 * 160 + 4
    with pytest.raises(ValueError, match="heights differ"):
        side_by_side(image, image[:50], ("a", "b"))
