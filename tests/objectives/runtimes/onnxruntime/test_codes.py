"""Codes are rearranged where that is exact, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

PLAIN = replace(ONNXRUNTIME, finish=lambda model, shapes: None)
ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _model(path: Path, *, scales: Any = None, sizes: Any = None, opset: int = 17, **how: Any) -> ModelGraph:
    """An image of 3 channels, a Conv of them, a Resize beside its input, and a Conv of that."""
    draw = np.random.default_rng(0)
    arrays = {"stem.w": draw.normal(size=(8, 3, 3, 3)), "last.w": draw.normal(size=(4, 8, 3, 3))}
    kept = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    inputs = ["features", "", "scales"] if sizes is None else ["features", "", "", "sizes"]
    if sizes is None:
        kept.append(numpy_helper.from_array(np.array(scales or [1, 1, 2, 2], np.float32), "scales"))
    else:
        kept.append(numpy_helper.from_array(np.array(sizes, np.int64), "sizes"))
    nodes = [
        helper.make_node("Conv", ["image", "stem.w"], ["features"], name="stem", pads=[1] * 4),
        helper.make_node("Resize", inputs, ["large"], name="resize", **how),
        helper.make_node("Conv", ["large", "last.w"], ["found"], name="last", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", 1, [1, 3, 4, 6])],
        [helper.make_tensor_value_info("found", 1, None)],
        kept,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return ModelGraph(path)


def _both(graph: ModelGraph, extra: tuple[str, ...] = ()) -> list[str]:
    """Operators of the int8 file, whose outputs are compared with those of the file that is as it was placed."""
    images = np.random.default_rng(1).random((4, *graph.input_shape), dtype=np.float32)
    table = calibrate(graph, list(images), "max")
    allocation = Allocation.uniform([layer.name for layer in graph.quantizable], "int8")
    made, plain = (
        Materializer(graph, table, dialect).materialize(allocation, extra).data for dialect in (ONNXRUNTIME, PLAIN)
    )
    model = onnx.load_model_from_string(made)
    onnx.checker.check_model(model, full_check=True)
    with OnnxRuntimeRunner(made) as one, OnnxRuntimeRunner(plain) as other:
        for image in images:
            for got, wanted in zip(one.infer(image), other.infer(image), strict=True):
                np.testing.assert_array_equal(got, wanted)
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("opset", [13, 17, 19])
@pytest.mark.parametrize(
    "how",
    [
        {**ASYMMETRIC},
        {**ASYMMETRIC, "scales": [1, 1, 3, 2]},
        {**ASYMMETRIC, "sizes": [1, 8, 8, 18]},
        {**ASYMMETRIC, "scales": [1, 1, 1, 4]},
        {"scales": [1, 1, 5, 2]},
        {"coordinate_transformation_mode": "pytorch_half_pixel", "nearest_mode": "round_prefer_ceil"},
    ],
    ids=str,
)
def test_repeated_pixels_are_copied(tmp_path: Path, how: dict[str, Any], opset: int) -> None:
    ops = _both(_model(tmp_path / "m.onnx", opset=opset, **how))
    assert ops.count("Resize") == 0 and ops.count("Concat") == 2


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "linear"},
        {**ASYMMETRIC, "scales": [1, 1, 1.5, 2]},
        {**ASYMMETRIC, "scales": [1, 1, 2.2, 2]},  # 8 rows of 4 all the same
        {**ASYMMETRIC, "scales": [1, 1, 0.5, 0.5]},
        {**ASYMMETRIC, "sizes": [1, 8, 6, 12]},
        {"coordinate_transformation_mode": "align_corners"},
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"},
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "floor"},
    ],
    ids=str,
)
def test_any_other_resize_stays(tmp_path: Path, how: dict[str, Any]) -> None:
    assert "Resize" in _both(_model(tmp_path / "m.onnx", **how))


def test_what_is_read_elsewhere_stays(tmp_path: Path) -> None:
    assert "Resize" in _both(_model(tmp_path / "m.onnx", **ASYMMETRIC), extra=("large",))


def test_a_float_resize_stays(tmp_path: Path) -> None:
    graph = _model(tmp_path / "m.onnx", **ASYMMETRIC)
    table = calibrate(graph, [np.ones(graph.input_shape, np.float32)], "max")
    made = Materializer(graph, table, ONNXRUNTIME).materialize(Allocation.of({"stem": "fp16", "last": "fp16"}))
    assert [n.op_type for n in onnx.load_model_from_string(made.data).graph.node].count("Resize") == 1


def test_an_image_gets_a_fourth_channel_where_integers_read_it(tmp_path: Path) -> None:
    graph = _model(tmp_path / "m.onnx", **ASYMMETRIC)
    assert _both(graph).count("Pad") == 2  # the image's codes, and those of the weight when the file is loaded
    table = calibrate(graph, [np.ones(graph.input_shape, np.float32)], "max")
    for fmt in ("fp16", "w8a16"):
        made = Materializer(graph, table, ONNXRUNTIME).materialize(Allocation.of({"stem": fmt, "last": "int8"}))
        assert "Pad" not in [node.op_type for node in onnx.load_model_from_string(made.data).graph.node]


@pytest.mark.parametrize("layout", ["scores", "end_to_end", "raw"])
def test_a_detector_computes_the_same(tmp_path: Path, layout: str) -> None:
    ops = _both(ModelGraph(build_detector(tmp_path / "m.onnx", layout)))
    assert "Resize" not in ops and "Pad" in ops
