"""Exact rewrites: the same outputs from fewer operators, and only where the pattern is whole."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from objectives.quantization.rewrites import join_splits


def _model(order: list[str], split_axis: int = 1, concat_axis: int = 1) -> onnx.ModelProto:
    """Splits ``x`` into a and b, makes c of b, and concatenates the named tensors."""
    nodes = [
        helper.make_node("Split", ["x", "halves"], ["a", "b"], "split", axis=split_axis),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("Concat", order, ["y"], "concat", axis=concat_axis),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("halves", TensorProto.INT64, [2], [2, 2] if split_axis == 1 else [3, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _read(model: onnx.ModelProto) -> list[str]:
    return list(next(node for node in model.graph.node if node.op_type == "Concat").input)


def _run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(0).standard_normal((1, 4, 6), dtype=np.float32)})[0]


def test_a_concat_of_all_parts_reads_what_was_split() -> None:
    for order, expected in (
        (["a", "b", "c"], ["x", "c"]),
        (["c", "a", "b"], ["c", "x"]),
        (["a", "b", "a", "b"], ["x", "x"]),
    ):
        model = _model(order)
        before = _run(model)
        join_splits(model)
        assert _read(model) == expected
        np.testing.assert_array_equal(_run(model), before)


def test_other_concats_stay_as_they_are() -> None:
    for order, split_axis, concat_axis in ((["b", "a", "c"], 1, 1), (["a", "c"], 1, 1), (["a", "b"], 2, 1)):
        model = _model(order, split_axis, concat_axis)
        join_splits(model)
        assert _read(model) == order
