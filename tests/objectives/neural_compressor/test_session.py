"""Neural Compressor in its own environment, which `TUNER_INC_PYTHON` names; most of this skips without it."""

import os
import sys

import pytest
from tiny_detectors import build_detector, write_calibration

from objectives.neural_compressor.session import VARIABLE, TuneSettings, inc_python, inc_sensitivity, inc_tune
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runners.runner import RuntimeUnavailable
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import recognise
from search_spaces.model_graph import ModelGraph


@pytest.fixture
def python():
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} does not name an environment with Neural Compressor")
    return inc_python(None)


@pytest.fixture
def images(tmp_path):
    records = load_calibration(write_calibration(tmp_path, 2)).images
    return PreprocessedImages.build(records, Preprocessing((64, 64)), tmp_path / "cache")


def test_a_missing_environment_says_how_to_make_one(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(RuntimeUnavailable, match=r"sensitivity\.inc_python: missing; make an environment \(python3"):
        inc_python(None)
    with pytest.raises(RuntimeUnavailable, match=r"No module named 'neural_compressor'.*make it by"):
        inc_python(sys.executable)
    with pytest.raises(RuntimeUnavailable, match="cannot be started"):
        inc_python("/nowhere/python")


@pytest.mark.parametrize("layout", ["scores", "raw", "end_to_end"])
def test_every_layer_is_scored(tmp_path, python, images, layout):
    graph = ModelGraph(build_detector(tmp_path / "model.onnx", layout))
    seen = []
    table = inc_sensitivity(python, graph, recognise(graph), images, seen.append)
    assert [entry.layer for entry in table.entries] == [layer.name for layer in graph.quantizable]
    assert {entry.format for entry in table.entries} == {"int8"}
    assert all(entry.score > 0 for entry in table.entries) and seen[-1] == len(table.entries)


def test_its_flow_asks_for_scores_and_ends_with_a_model(tmp_path, python, images):
    graph = ModelGraph(build_detector(tmp_path / "model.onnx"))
    asked = []

    def score(path):
        asked.append(sum(n.op_type == "QuantizeLinear" for n in ModelGraph(path, allow_quantized=True).nodes()))
        return 0.5 if asked[-1] == 0 else 0.4  # never good enough

    found = inc_tune(python, graph, images, score, TuneSettings(tolerable_loss=0.01, trials=2))
    assert asked[0] == 0 and min(asked[1:]) > 0 and len(found.scores) == len(asked)
    assert not found.accepted and found.scores[0] == 0.5
    with OnnxRuntimeRunner(found.model) as runner:
        assert runner.infer(images.batch(0, 1))


def test_a_failure_tells_its_last_lines(tmp_path, python, images):
    path = build_detector(tmp_path / "model.onnx")
    graph = ModelGraph(path)
    path.write_bytes(b"gone")
    with pytest.raises(RuntimeUnavailable, match="Neural Compressor failed: "):
        inc_tune(python, graph, images, lambda path: 0.5, TuneSettings())
