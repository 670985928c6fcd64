"""A baseline that says too little of itself is read as the run's model, and that is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import build_detector

from objectives.tasks.detection.detector import recognise
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from tuner.compare.baselines import detector_like


def _rewritten(path: Path) -> Path:
    """Without metadata, and with a node behind the output that hides how it was made."""
    model = onnx.load(build_detector(path, "scores"))
    del model.metadata_props[:]
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    last.output[0] = "inner"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    model.graph.node.append(helper.make_node("Pow", ["inner", "one"], [model.graph.output[0].name], "rewritten"))
    onnx.save(model, path)
    return path


def test_a_model_without_metadata_is_read_as_the_runs(tmp_path: Path) -> None:
    own = recognise(ModelGraph(build_detector(tmp_path / "own.onnx", "scores")))
    graph = ModelGraph(_rewritten(tmp_path / "other.onnx"))
    with pytest.raises(InputError, match="not a detector of a known head"):
        recognise(graph)
    found, note = detector_like(graph, own)
    assert (found.name, found.classes, found.class_count) == (own.name, own.classes, own.class_count)
    assert "read as the run's model" in note


def test_one_that_says_how_it_is_read_is_believed(tmp_path: Path) -> None:
    own = recognise(ModelGraph(build_detector(tmp_path / "own.onnx", "scores")))
    graph = ModelGraph(build_detector(tmp_path / "other.onnx", "end_to_end"))
    found, note = detector_like(graph, own)
    assert found.name == recognise(graph).name != own.name and note == ""


def test_it_gives_what_the_runs_model_gives(tmp_path: Path) -> None:
    """Else a study of masks could show no other tool's model."""
    graph = ModelGraph(build_detector(tmp_path / "own.onnx", "segment"))
    own = recognise(graph).giving(frozenset({"masks"}), "the study")
    assert detector_like(graph, own)[0].details == own.details == frozenset({"masks"})
    boxes = ModelGraph(build_detector(tmp_path / "other.onnx", "scores"))
    with pytest.raises(InputError, match=r"other\.onnx: needs masks"):
        detector_like(boxes, own)
