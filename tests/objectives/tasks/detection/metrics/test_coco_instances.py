"""Mask and keypoint AP are what pycocotools finds in the same labels and detections, written as files."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.data.masks import polygon
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.prediction_file import load_predictions, merge_predictions, save_predictions
from objectives.tasks.detection.predictions import Predictions
from search_spaces.errors import InputError

HEIGHT, WIDTH = 120, 160
CLASSES = ("apple", "boat")
DETAILS = frozenset({"masks", "keypoints"})


@dataclass(frozen=True)
class Scene:
    """Labelled images, detections on them, and the files that pycocotools reads."""

    dataset: CocoDataset
    labels: Path
    perfect: Predictions
    noisy: Predictions


def _star(draw: np.random.Generator, centre: np.ndarray, radius: float, corners: int = 7) -> list[float]:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    reach = radius * draw.uniform(0.6, 1, corners)
    points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None]
    return np.clip(points, 0, [WIDTH, HEIGHT]).ravel().tolist()


def _box(outline: list[float]) -> list[float]:
    x, y = outline[::2], outline[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _scene(folder: Path, points: int) -> Scene:
    draw = np.random.default_rng(points)
    images, labels = [], []
    (folder / "images").mkdir()
    for number in range(8):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((HEIGHT, WIDTH, 3), 9 * number, np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        for index in range(4):
            centre = draw.uniform([25, 25], [WIDTH - 25, HEIGHT - 25])
            outline = _star(draw, centre, draw.uniform(8, 24))
            keypoints = np.column_stack([draw.normal(centre, 6, (points, 2)), draw.integers(0, 3, points)])
            box = _box(outline)
            label = {"id": len(labels) + 1, "image_id": number, "category_id": 3 + index % 2, "bbox": box}
            crowd = index == 3 and number % 3 == 0
            runs = mask.frPyObjects([outline], HEIGHT, WIDTH)[0]
            area = float(mask.area(runs))
            labels.append({**label, "area": area, "iscrowd": int(crowd), "segmentation": [outline],
                           "keypoints": keypoints.ravel().tolist(),
                           "num_keypoints": int((keypoints[:, 2] > 0).sum())})  # fmt: skip
            if crowd:  # runs that are not packed, as COCO writes crowds
                flat = mask.decode(runs).ravel(order="F")
                edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
                counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
                labels[-1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    categories = [{"id": 3 + index, "name": name} for index, name in enumerate(CLASSES)]
    target = folder / "labels.json"
    target.write_text(json.dumps({"images": images, "annotations": labels, "categories": categories}))
    dataset = load_dataset(folder / "images", target, details=DETAILS)
    return Scene(dataset, target, _detections(labels, 0, draw), _detections(labels, 5, draw))


def _detections(labels: list[dict], noise: float, draw: np.random.Generator) -> Predictions:
    """The labels, as masks of polygons that are moved by noise, doubled and left out where there is noise."""
    rows, masks, keypoints = [], [], []
    for number in range(8):
        found = [label for label in labels if label["image_id"] == number and not label["iscrowd"]]
        if noise:
            found = [label for label in found * 2 if draw.uniform() < 0.8]
        scores = np.sort(draw.uniform(0.2, 1, len(found)))[::-1]
        outlines = [(np.array(label["segmentation"][0]) + draw.normal(0, noise)).tolist() for label in found]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in map(_box, outlines)]
        rows.append(np.array([[*box, s, label["category_id"] - 3] for box, s, label in zip(boxes, scores, found,
                              strict=True)], np.float32).reshape(-1, 6))  # fmt: skip
        masks.append(tuple(polygon([outline], HEIGHT, WIDTH) for outline in outlines))
        moved = np.array([draw.normal(0, noise), 0, 0])
        points = [np.array(label["keypoints"]).reshape(-1, 3) + moved for label in found]
        keypoints.append(np.array(points, np.float32).reshape(len(found), -1, 3))
    return Predictions(tuple(range(8)), tuple(rows), CLASSES, 2, tuple(masks), tuple(keypoints))


def _by_pycocotools(scene: Scene, found: Predictions, kind: str, points: int) -> list[float]:
    """The figures of a run on files alone."""
    results = []
    for number, rows, masks, keypoints in zip(found.ids, found.detections, found.masks, found.keypoints, strict=True):
        for row, one, pose in zip(rows.astype(float).tolist(), masks, keypoints.astype(float), strict=True):
            result = {"image_id": number, "category_id": 3 + int(row[5]), "score": row[4]}
            if kind == "segm":
                result["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": one.counts.decode()}
            else:
                result["keypoints"] = pose.ravel().tolist()
            results.append(result)
    file = scene.labels.with_name("results.json")
    file.write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(str(scene.labels))
        evaluation = COCOeval(labels, labels.loadRes(str(file)), kind)
        if kind == "keypoints" and points != 17:
            evaluation.params.kpt_oks_sigmas = np.full(points, 1 / points)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[: 6 if kind == "segm" else 5].tolist()


@pytest.mark.parametrize("points", [5, 17])
@pytest.mark.parametrize(("metric", "kind"), [("coco_segm", "segm"), ("coco_keypoints", "keypoints")])
def test_figures_are_those_of_pycocotools_on_files(tmp_path: Path, metric: str, kind: str, points: int) -> None:
    scene = _scene(tmp_path, points)
    perfect = score(scene.dataset, scene.perfect, [metric]).metrics
    assert next(iter(perfect.values())) == pytest.approx(1)
    noisy = list(score(scene.dataset, scene.noisy, [metric]).metrics.values())
    assert 0.02 < noisy[0] < 0.9
    assert noisy == pytest.approx(_by_pycocotools(scene, scene.noisy, kind, points), abs=1e-9)


def test_details_are_kept_in_the_file_and_through_choices_of_images(tmp_path: Path) -> None:
    found = _scene(tmp_path, 5).noisy
    save_predictions(found, tmp_path / "kept.npz")
    kept = load_predictions(tmp_path / "kept.npz")
    assert kept is not None and kept.masks == found.masks and kept.holds == {"boxes", "masks", "keypoints"}
    for mine, theirs in zip(kept.keypoints, found.keypoints, strict=True):
        assert np.array_equal(mine, theirs)
    parts = merge_predictions(found.only({0, 1, 2}), found.only({3, 4, 5, 6, 7})).ordered(found.ids)
    assert parts.masks == found.masks and all(map(np.array_equal, parts.keypoints, found.keypoints))


def test_boxes_alone_are_kept_as_they_were(tmp_path: Path) -> None:
    plain = Predictions((1,), (np.ones((2, 6), np.float32),), CLASSES, 2)
    save_predictions(plain, tmp_path / "kept.npz")
    with np.load(tmp_path / "kept.npz") as data:
        assert set(data) == {"ids", "counts", "rows", "classes"}
    assert load_predictions(tmp_path / "kept.npz").holds == {"boxes"}


def test_identity_of_labels_is_that_of_what_is_read(tmp_path: Path) -> None:
    scene = _scene(tmp_path, 5)
    plain = load_dataset(tmp_path / "images", scene.labels)
    assert all(label.outline is None and label.keypoints is None for label in plain.annotations)
    assert plain.digest != scene.dataset.digest
    data = json.loads(scene.labels.read_text())
    data["annotations"][0]["segmentation"][0][0] += 1
    scene.labels.write_text(json.dumps(data))
    assert load_dataset(tmp_path / "images", scene.labels).digest == plain.digest
    assert load_dataset(tmp_path / "images", scene.labels, details=DETAILS).digest != scene.dataset.digest


def _changed(scene: Scene, **values) -> Path:
    data = json.loads(scene.labels.read_text())
    data["annotations"][1].update(values)
    scene.labels.write_text(json.dumps(data))
    return scene.labels


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"segmentation": []}, "annotation 2: has no segmentation; give labels with outlines"),
        ({"segmentation": [[1, 2, 3, 4]]}, "holds neither polygons of 3 or more points nor runs"),
        ({"segmentation": [[1, 2, 3, 4, "a", 5]]}, "holds neither polygons"),
        ({"segmentation": {"size": [0, 4], "counts": [0]}}, r"has the size \[0, 4\]"),
        ({"segmentation": {"size": [120, 160], "counts": [3, 4]}}, "runs that do not fill 120 x 160 pixels"),
        ({"segmentation": {"size": [120, 160], "counts": "zz"}}, "runs that do not fill"),
        ({"keypoints": [1, 2]}, "keypoints must be x, y, visibility of each"),
    ],
)
def test_broken_details_are_told_where_they_are_wanted(tmp_path: Path, values: dict, words: str) -> None:
    labels = _changed(_scene(tmp_path, 5), **values)
    with pytest.raises(InputError, match=words):
        load_dataset(tmp_path / "images", labels, details=DETAILS)
    assert len(load_dataset(tmp_path / "images", labels)) == 8


def test_a_mask_of_another_size_is_told(tmp_path: Path) -> None:
    scene = _scene(tmp_path, 5)
    labels = _changed(scene, segmentation={"size": [4, 5], "counts": [0, 20]})
    with pytest.raises(InputError, match="a segmentation of 4 x 5 pixels is of an image of 120 x 160"):
        score(load_dataset(tmp_path / "images", labels, details=DETAILS), scene.perfect, ["coco_segm"])


def test_another_number_of_keypoints_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    found = _scene(tmp_path / "other", 17).perfect
    with pytest.raises(InputError, match="objects have 5 keypoints, the model gives 17"):
        score(_scene(tmp_path, 5).dataset, found, ["coco_keypoints"])
