from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


def _save(path: Path, declared: list, added: tuple[int, ...] = (8,), hint: list | None = None) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Add", ["c", "b"], ["y"], name="add"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, declared)],
        [numpy_helper.from_array(np.ones(n, np.float32), name) for name, n in (("w", (4, 3, 1, 1)), ("b", added))],
        value_info=[helper.make_tensor_value_info("c", TensorProto.FLOAT, hint)] if hint else [],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("declared", "hint"),
    [([1, 84, 8, 8], None), ([1, 4], None), ([1, 4, 8, 8], [1, 9, 9, 9]), (["n", 4, "h", 9], None)],
)
def test_what_a_file_declares_of_a_shape_is_overruled_by_its_operators(
    tmp_path: Path, declared: list, hint: list | None
) -> None:
    path = _save(tmp_path / "m.onnx", declared, hint=hint)
    graph = ModelGraph(path)
    assert graph.outputs == {"y": (1, 4, 8, 8)}
    with OnnxRuntimeRunner(path) as runner:
        assert runner.infer(np.ones((1, 3, 8, 8), np.float32))[0].shape == (1, 4, 8, 8)


def test_operators_that_contradict_each_other_make_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a valid ONNX model"):
        ModelGraph(_save(tmp_path / "m.onnx", [1, 4, 8, 8], added=(5,)))
