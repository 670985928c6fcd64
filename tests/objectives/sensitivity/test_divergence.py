"""Masks and keypoints count in a divergence, so that the layers behind them are not taken for free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import build_detector, write_images

from objectives.quantization.calibration import calibrate
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.sensitivity.divergence import divergence, targets
from objectives.sensitivity.meter import reference_meter
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.heads.head import DetailedOutputs
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


def _dialect() -> Dialect:
    return open_runtime(parse_settings({})).dialect()


@pytest.mark.parametrize(
    ("layout", "layers"),
    [
        ("segment", ["/model/7/cv4/0/2/Conv", "/model/7/proto/cv3/Conv"]),
        ("pose", ["/model/7/cv4/0/2/Conv"]),
        ("oriented", ["/model/7/cv4/0/2/Conv"]),
    ],
)
def test_every_layer_of_an_instance_head_is_sensitive(tmp_path: Path, layout: str, layers: list[str]) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", layout))
    detector = recognise(graph)
    records = hash_files([ImageRecord(i, path) for i, path in enumerate(write_images(tmp_path / "i", 2))], tmp_path)
    images = PreprocessedImages.build(records, detector.preprocessing, tmp_path / "cache")
    materializer = Materializer(graph, calibrate(graph, images.singles(), "max"), _dialect())
    meter = reference_meter(graph, materializer, detector, images)
    assert meter.score(materializer.materialize(Allocation.of({}), meter.extra).data) == pytest.approx(0, abs=1e-6)
    for layer in layers:
        artifact = materializer.materialize(Allocation.of({layer: "w4a16"}), meter.extra)
        assert meter.score(artifact.data) > 1e-5, layer


def test_a_lost_mask_costs_as_much_as_a_lost_box(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "segment"))
    dense = recognise(graph).dense(graph)
    assert isinstance(dense, DetailedOutputs)
    draw = np.random.default_rng(0)
    channels = np.zeros((1, 4 + 3 + 8, 84), np.float32)
    channels[0, :4] = np.array([32, 32, 40, 40])[:, None]
    channels[0, 4] = 0.9
    channels[0, 7:] = 5
    basis = draw.uniform(0.5, 1, (1, 8, 8, 8)).astype(np.float32)
    wanted = targets(dense, [channels, basis])
    assert divergence(dense, [[channels, basis]], [wanted]) == pytest.approx(0)
    assert divergence(dense, [[channels, -basis]], [wanted]) == pytest.approx(1, abs=0.01)
    elsewhere = channels.copy()
    elsewhere[0, :2] = 500
    assert divergence(dense, [[elsewhere, basis]], [wanted]) == pytest.approx(2, abs=0.01)
