from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.opsets import at_opset
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError

IMAGE = np.random.default_rng(0).random((1, 3, 6, 8), dtype=np.float32)


def _model(nodes: list, opset: int, **arrays: list[int]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(values), name) for name, values in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _run(model: onnx.ModelProto) -> np.ndarray:
    with OnnxRuntimeRunner(model.SerializeToString()) as runner:
        return runner.infer(IMAGE)[0]


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceSum"])
def test_axes_that_become_an_attribute_are_kept(kind: str) -> None:
    """onnx 1.21 drops them where the initializer is in raw form, and so reduces over all axes."""
    model = _model([helper.make_node(kind, ["x", "axes"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])], 18,
                   axes=[2, 3])  # fmt: skip
    found = at_opset(model, 17, Path("m.onnx"), "")
    assert found.opset_import[0].version == 17
    np.testing.assert_allclose(_run(found), _run(model), atol=1e-6)


@pytest.mark.parametrize("target", [13, 17, 19, 21])
def test_attributes_that_become_inputs_are_kept(target: int) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["r"], axes=[3], keepdims=1),
        helper.make_node("Squeeze", ["r"], ["s"], axes=[3]),
        helper.make_node("Softmax", ["s"], ["t"], axis=1),
        helper.make_node("Split", ["t"], ["a", "b"], axis=2, split=[2, 4]),
        helper.make_node("ReduceMax", ["b"], ["y"], axes=[1], keepdims=0),
    ]
    model = _model(nodes, 11)
    np.testing.assert_allclose(_run(at_opset(model, target, Path("m.onnx"), "")), _run(model), atol=1e-6)


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    model = _model([helper.make_node("Gelu", ["x"], ["y"])], 20)
    with pytest.raises(
        InputError, match=r"m\.onnx: opset 20 cannot be brought to 17 .*Gelu.*; export it with opset=17"
    ):
        at_opset(model, 17, Path("m.onnx"), "export it with opset=17")
