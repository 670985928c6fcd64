"""Further values of every anchor are told from classes by the structure alone: nothing else says so here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_detectors import build_detector
from tiny_heads import EXTRA

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


def _bare(path: Path, *, nested: bool, outputs: int = 2) -> Path:
    """Takes metadata away; boxes and classes may be concatenated first, and the last output be left out."""
    model = onnx.load(path)
    del model.metadata_props[:]
    if nested:
        index, outer = next((i, node) for i, node in enumerate(model.graph.node) if node.name == "/model.7/Concat_3")
        inner = helper.make_node("Concat", outer.input[:2], ["boxes_and_classes"], name="inner", axis=1)
        outer.CopyFrom(
            helper.make_node("Concat", [inner.output[0], *outer.input[2:]], outer.output, outer.name, axis=1)
        )
        model.graph.node.insert(index, inner)
    kept = list(model.graph.output)[:outputs]
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.extend(kept)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("classes", [1, 3, 4])
@pytest.mark.parametrize("layout", ["segment", "pose", "oriented"])
def test_tasks_without_metadata(tmp_path: Path, layout: str, classes: int, nested: bool) -> None:
    path = _bare(build_detector(tmp_path / "m.onnx", layout, classes=classes, transposed=nested), nested=nested)
    found = recognise(ModelGraph(path))
    assert (found.name, found.class_count, found.head.output.extra) == (layout, classes, EXTRA[layout])


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_coefficients_of_masks_without_their_basis_are_neither_classes_nor_keypoints(
    tmp_path: Path, nested: bool
) -> None:
    whole = recognise(ModelGraph(build_detector(tmp_path / "whole.onnx", "segment", classes=4)))
    path = _bare(build_detector(tmp_path / "m.onnx", "segment", classes=4), nested=nested, outputs=1)
    found = recognise(ModelGraph(path))
    assert (found.name, found.class_count, found.gives) == ("segment", 4, frozenset())
    assert "boxes alone are read" in found.note and not whole.note
    with pytest.raises(InputError, match="needs masks, which a model with the head 'segment' does not give"):
        found.giving({"masks"}, "--metric coco_segm")
    image = np.random.default_rng(3).random((1, 3, *found.image_size), np.float32)
    decoded = []
    for detector, file in ((whole, tmp_path / "whole.onnx"), (found, path)):
        with OnnxRuntimeRunner(file) as runner:
            decoded.append(detector.decode(runner.infer(image), Thresholds())[0])
            dense = detector.dense(ModelGraph(file))
            assert dense is not None and dense.factors()[0].size == 4 + 4 + EXTRA["segment"]
    assert len(decoded[0]) and np.array_equal(*decoded)
