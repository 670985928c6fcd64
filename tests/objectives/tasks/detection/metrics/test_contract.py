"""What every metric of the registry must do, and how they are combined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_detectors import build_detector, write_dataset

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
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
    reference, found = (_detected(model, dataset, folder) for model in models)
    return dataset, found, reference


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
