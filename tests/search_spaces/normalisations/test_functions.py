from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

WEIGHT = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)


def _save(path: Path, body: list, *, imports: int = 17, attributes: list | None = None, **call: object) -> Path:
    """A model of two calls of one function ``(x, w) -> y``."""
    function = helper.make_function(
        "mine", "Block", ["x", "w"], ["y"], body, [helper.make_opsetid("", imports)], attributes or []
    )
    nodes = [
        helper.make_node("Block", ["image", "w1"], ["a"], name="first", domain="mine", **call),
        helper.make_node("Block", ["a", "w2"], ["out"], name="second", domain="mine", **call),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, None, None])],
        [numpy_helper.from_array(WEIGHT * n, f"w{n}") for n in (1, 2)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])
    if imports == 17:
        onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _equal(path: Path) -> ModelGraph:
    graph = ModelGraph(path)
    image = np.random.default_rng(1).random((1, 3, 8, 8), dtype=np.float32)
    with OnnxRuntimeRunner(path) as own, OnnxRuntimeRunner(graph.model.SerializeToString()) as ours:
        np.testing.assert_allclose(ours.infer(image)[0], own.infer(image)[0], atol=1e-5)
    return graph


def test_every_call_is_layers_of_its_own(tmp_path: Path) -> None:
    body = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv"), helper.make_node("Relu", ["c"], ["y"])]
    graph = _equal(_save(tmp_path / "m.onnx", body))
    assert [layer.weight for layer in graph.quantizable] == ["w1", "w2"]
    assert len({layer.name for layer in graph.quantizable}) == 2
    assert [entry.domain for entry in graph.model.opset_import] == [""]


def test_attributes_of_the_call_reach_the_layer(tmp_path: Path) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    entry = conv.attribute.add()
    entry.name, entry.ref_attr_name, entry.type = "pads", "around", onnx.AttributeProto.INTS
    graph = _equal(_save(tmp_path / "m.onnx", [conv], attributes=["around"], around=[1, 1, 1, 1]))
    assert [layer.output_shape for layer in graph.quantizable] == [(1, 3, 8, 8)] * 2


def test_a_constant_inside_is_a_weight(tmp_path: Path) -> None:
    body = [
        helper.make_node("Constant", [], ["own"], value=numpy_helper.from_array(WEIGHT)),
        helper.make_node("Conv", ["x", "own"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0),
        helper.make_node("Add", ["c", "s"], ["y"]),
    ]
    assert len(_equal(_save(tmp_path / "m.onnx", body)).quantizable) == 2


def test_a_function_of_an_opset_out_of_reach_is_refused_in_a_line(tmp_path: Path) -> None:
    body = [helper.make_node("Gelu", ["x"], ["g"]), helper.make_node("Conv", ["g", "w"], ["y"])]
    path = _save(tmp_path / "m.onnx", body, imports=20)
    with pytest.raises(InputError, match="cannot be inlined") as error:
        ModelGraph(path)
    assert "\n" not in str(error.value) and "export it without local functions" in str(error.value)
