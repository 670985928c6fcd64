from dataclasses import replace
from pathlib import Path

import pytest
from tiny_detectors import build_detector, write_calibration

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.sensitivity.range_choice import range_errors
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


@pytest.mark.parametrize("layout", ["scores", "end_to_end"])
def test_ranges_that_spoil_the_detections_are_seen(tmp_path: Path, layout: str) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", layout))
    records = load_calibration(write_calibration(tmp_path, 3)).images
    images = PreprocessedImages.build(records, Preprocessing((64, 64)), tmp_path / "cache")
    table = calibrate(graph, images.singles())
    wide = {name: (100 * low, 100 * high) for name, (low, high) in table.ranges["max"].items()}
    spoilt = replace(table, ranges={**table.ranges, "max": wide})
    scheme = Allocation.uniform([layer.name for layer in graph.quantizable], "int8")
    done: list[int] = []
    errors = range_errors(
        graph,
        lambda method: Materializer(graph, spoilt.with_method(method), ONNXRUNTIME),
        recognise(graph),
        images,
        scheme,
        methods=("percentile", "max"),
        progress=done.append,
    )
    assert list(errors) == ["percentile", "max"] and done == [1, 2]
    assert 0 <= errors["percentile"] < errors["max"]
