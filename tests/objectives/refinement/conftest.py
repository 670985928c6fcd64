"""A tiny detector with its ranges and sixteen unlabelled images; learning takes one thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_detectors import build_detector, write_calibration

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector, recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


@dataclass(frozen=True)
class Scene:
    graph: ModelGraph
    detector: Detector
    images: PreprocessedImages
    ranges: CalibrationTable
    weights: WeightSettings

    @property
    def materializer(self) -> Materializer:
        return Materializer(self.graph, self.ranges, ONNXRUNTIME, self.weights)

    def uniform(self, fmt: str) -> Allocation:
        return Allocation.uniform([layer.name for layer in self.graph.quantizable], fmt)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder: Path = tmp_path_factory.mktemp("scene")
    graph = ModelGraph(build_detector(folder / "m.onnx"))
    detector = recognise(graph)
    records = load_calibration(write_calibration(folder, 16)).images
    images = PreprocessedImages.build(records, detector.preprocessing, folder / "cache")
    return Scene(
        graph, detector, images, calibrate(graph, images.singles(), "max"), WeightSettings("rtn", block_size=8)
    )
