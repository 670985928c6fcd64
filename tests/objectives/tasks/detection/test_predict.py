import threading

import numpy as np
import pytest
from tiny_detectors import build_detector, write_dataset

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import NonFiniteOutputError, predict
from search_spaces.model_graph import ModelGraph


def _set(folder, layout, **options):
    path = build_detector(folder / f"{layout}.onnx", layout, **options)
    contract = recognise(ModelGraph(path))
    dataset = load_dataset(*write_dataset(folder, path, 7))
    return (
        path,
        contract,
        dataset,
        PreprocessedImages.build(dataset.images, contract.preprocessing, folder / "cache"),
    )


@pytest.mark.parametrize("layout", ["scores", "raw", "end_to_end"])
def test_a_detector_finds_its_own_labels(tmp_path, layout):
    path, contract, dataset, images = _set(tmp_path, layout)
    with OnnxRuntimeRunner(path) as runner:
        found = predict(runner, images, contract)
    assert found.ids == tuple(image.id for image in dataset.images)
    assert score(dataset, found).map_50_95 > 0.8


def test_workers_and_batches_change_nothing(tmp_path):
    path, contract, _, images = _set(tmp_path, "scores", dynamic_batch=True)
    with OnnxRuntimeRunner(path) as runner:
        single = predict(runner, images, contract)
        seen = []
        for options in ({"workers": 3}, {"batch": 3}, {"workers": 2, "batch": 4, "progress": seen.append}):
            other = predict(runner, images, contract, **options)
            for rows, expected in zip(other.detections, single.detections, strict=True):
                assert rows == pytest.approx(expected, abs=1e-3)
    assert seen == [4, 7]


class _Broken:
    """A runner around a real one whose output turns NaN at the third image."""

    def __init__(self, runner):
        self._runner, self._count, self._lock = runner, 0, threading.Lock()

    def infer(self, images):
        with self._lock:
            self._count += 1
            bad = self._count == 3
        return tuple(np.full_like(output, np.nan) if bad else output for output in self._runner.infer(images))


def test_nan_is_an_error_that_names_the_image(tmp_path):
    path, contract, _, images = _set(tmp_path, "scores")
    with (
        OnnxRuntimeRunner(path) as runner,
        pytest.raises(NonFiniteOutputError, match=r"holds NaN or infinity \(image id 3\)"),
    ):
        predict(_Broken(runner), images, contract)
