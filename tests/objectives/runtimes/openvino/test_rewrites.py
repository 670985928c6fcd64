"""Rearrangements compute what the model does, and touch nothing that is another pattern."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import build_detector

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.openvino.rewrites import rearranged
from search_spaces.model_graph import ModelGraph


def _run(model: onnx.ModelProto, image: np.ndarray) -> tuple[np.ndarray, ...]:
    with OnnxRuntimeRunner(model.SerializeToString()) as runner:
        return runner.infer(image)


def _ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("layout", ["scores", "end_to_end"])
def test_a_detector_computes_the_same(tmp_path: Path, layout: str) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", layout))
    changed = onnx.ModelProto()
    changed.CopyFrom(graph.model)
    rearranged(changed, graph.opset)
    onnx.checker.check_model(changed, full_check=True)
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    for one, other in zip(_run(changed, image), _run(graph.model, image), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def _end_to_end(*, layer_below: bool = False, read_twice: bool = False, channels: int = 6) -> onnx.ModelProto:
    """Two Convs, flattened and joined to boxes and scores as YOLOv10's head does."""
    draw = np.random.default_rng(0)
    kept = {
        "b.w": draw.normal(size=(4, 3, 1, 1)), "s.w": draw.normal(size=(channels, 3, 1, 1)),
        "m.w": draw.normal(size=(channels, 5)),
    }  # fmt: skip
    arrays = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in kept.items()]
    shapes = {"b.s": [1, 4, -1], "s.s": [1, channels, -1], "sizes": [4, channels]}
    arrays += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "b.w"], ["bt"], name="b"),
        helper.make_node("Reshape", ["bt", "b.s"], ["bf"], name="bf"),
        helper.make_node("Conv", ["x", "s.w"], ["st"], name="s"),
        helper.make_node("Reshape", ["st", "s.s"], ["sf"], name="sf"),
        helper.make_node("Concat", ["sf", "sf"] if read_twice else ["sf"], ["sc"], name="sc", axis=2),
        helper.make_node("Sigmoid", ["sc"], ["sg"], name="sg"),
        helper.make_node("Concat", ["bf", "bf"] if read_twice else ["bf"], ["bc"], name="bc", axis=-1),
        helper.make_node("Concat", ["bc", "sg"], ["all"], name="all", axis=1),
        helper.make_node("Transpose", ["all"], ["turned"], name="turned", perm=[0, 2, 1]),
        helper.make_node("Split", ["turned", "sizes"], ["boxes", "scores"], name="split", axis=-1),
    ]
    nodes += [helper.make_node("MatMul", ["scores", "m.w"], ["y"], name="m")] if layer_below else []
    nodes += [] if layer_below else [helper.make_node("Relu", ["scores"], ["y"], name="relu")]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 4, 5])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("boxes", "y")]
    body = helper.make_graph(nodes, "g", [x], ends, arrays)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("read_twice", [False, True])
def test_a_split_behind_a_transposed_concat_reads_its_parts(read_twice: bool) -> None:
    model = _end_to_end(read_twice=read_twice)
    image = np.random.default_rng(1).random((1, 3, 4, 5), dtype=np.float32)
    expected = _run(model, image)
    rearranged(model, 17)
    assert "Split" not in _ops(model) and [node.op_type for node in model.graph.node].count("Concat") == 2
    for one, other in zip(_run(model, image), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_above_a_layer_nothing_is_turned() -> None:
    """There pairs are placed by the names of the model's own tensors."""
    model = _end_to_end(layer_below=True)
    before = _ops(model)
    rearranged(model, 17)
    assert _ops(model) == before


@pytest.mark.parametrize(("channels", "turned"), [(12, False), (16, True), (64, True), (65, False)])
def test_few_channels_are_transposed_by_a_kernel(channels: int, turned: bool) -> None:
    model = _end_to_end(layer_below=True, channels=channels)
    rearranged(model, 17)
    assert ("Transpose" in {n.op_type for n in model.graph.node if n.name in ("sf", "sf/Reshape")}) is turned
    image = np.random.default_rng(1).random((1, 3, 4, 5), dtype=np.float32)
    for one, other in zip(
        _run(model, image), _run(_end_to_end(layer_below=True, channels=channels), image), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
