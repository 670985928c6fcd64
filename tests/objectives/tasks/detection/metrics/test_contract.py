"""What every metric of the registry must do, and how they are combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import build_detector, write_dataset

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.data.masks import polygon
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.metric import Targets
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS, METRICS
from objectives.tasks.detection.metrics.scoring import figures, score
from objectives.tasks.detection.predict import predict
from objectives.tasks.detection.predictions import Predictions
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoDataset, Predictions, Predictions]:
    """Labelled images, what a model detects on them, and what the model detects that the labels are of."""
    folder = tmp_path_factory.mktemp("metrics")
    models = [build_detector(folder / f"{seed}.onnx", seed=seed) for seed in (0, 1)]
    dataset = load_dataset(*write_dataset(folder, models[0], 6))
    reference, found = (_in_detail(_detected(model, dataset, folder), dataset) for model in models)
    labels = tuple(
        replace(a, outline=(_outline(_corners(a.bbox)),), keypoints=_points(a.bbox)) for a in dataset.annotations
    )
    return replace(dataset, annotations=labels), found, reference


def _corners(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = bbox
    return x, y, x + width, y + height


def _outline(box: Sequence[float]) -> tuple[float, ...]:
    """A diamond in a box."""
    left, top, right, bottom = map(float, box)
    across, down = (left + right) / 2, (top + bottom) / 2
    return across, top, right, down, across, bottom, left, down


def _points(bbox: Sequence[float]) -> tuple[float, ...]:
    left, top, right, bottom = _corners(bbox)
    return left, top, 2.0, right, bottom, 2.0, right, top, 1.0


def _in_detail(found: Predictions, dataset: CocoDataset) -> Predictions:
    """Detections with masks and keypoints that follow from their boxes, as those of the labels do."""
    sizes = {image.id: (image.height, image.width) for image in dataset.images}
    masks, keypoints = [], []
    for image, rows in zip(found.ids, found.detections, strict=True):
        masks.append(tuple(polygon([list(_outline(row))], *sizes[image]) for row in rows[:, :4]))
        boxes = [_points((x, y, right - x, bottom - y)) for x, y, right, bottom in rows[:, :4].tolist()]
        keypoints.append(np.array(boxes, np.float32).reshape(-1, 3, 3))
    return replace(found, masks=tuple(masks), keypoints=tuple(keypoints))


def _detected(model: Path, dataset: CocoDataset, folder: Path) -> Predictions:
    detector = recognise(ModelGraph(model))
    images = PreprocessedImages.build(dataset.images, detector.preprocessing, folder / "cache")
    with OnnxRuntimeRunner(model) as runner:
        return predict(runner, images, detector)


def _parts(dataset: CocoDataset) -> list[CocoDataset]:
    parts = []
    for images in (dataset.images[:2], dataset.images[2:]):
        ids = {image.id for image in images}
        annotations = tuple(a for a in dataset.annotations if a.image_id in ids)
        parts.append(replace(dataset, images=images, annotations=annotations))
    return parts


@pytest.mark.parametrize("name", METRICS.names())
def test_images_may_come_in_parts_and_be_forgotten(name: str, scene: tuple) -> None:
    dataset, found, reference = scene
    metric = METRICS.get(name)()
    metric.update(found, Targets(dataset, reference))
    whole = metric.compute()
    assert set(whole) == set(metric.yields)
    metric.reset()
    for part in _parts(dataset):
        metric.update(found, Targets(part, reference))
    assert metric.compute() == pytest.approx(whole)
    metric.reset()
    metric.update(reference, Targets(dataset, reference))
    assert metric.compute()[metric.yields[0]] > whole[metric.yields[0]]


def test_figures_are_those_of_all_metrics(scene: tuple) -> None:
    dataset, found, reference = scene
    plain = score(dataset, found)
    both = score(dataset, found, METRICS.built_in(), reference)
    assert tuple(plain.metrics) == figures(DEFAULT_METRICS) and tuple(both.metrics) == figures(METRICS.built_in())
    assert {name: both.metrics[name] for name in plain.metrics} == plain.metrics and both.images == 6


def test_what_cannot_be_is_told_in_one_line(scene: tuple) -> None:
    dataset, found, _ = scene
    with pytest.raises(InputError, match=r"metric 'agreement': needs reference, which is not there; leave"):
        score(dataset, found, ["agreement"])
    with pytest.raises(InputError, match=r"did you mean 'coco_box'"):
        score(dataset, found, ["coco_bo"])
