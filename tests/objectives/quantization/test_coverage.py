from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.coverage import Coverage
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


def _graph(path: Path, shared: bool, more: int) -> ModelGraph:
    """Two layers of 16 channels, with a weight in common or not, and `more` of 3 channels."""
    arrays = {"first": (16, 3, 1, 1), "a": (16, 16, 3, 3), "b": (16, 16, 3, 3), "last": (3, 16, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["c"], name="first"),
        helper.make_node("Conv", ["c", "a"], ["d"], name="one", pads=[1] * 4),
        helper.make_node("Conv", ["d", "a" if shared else "b"], ["e"], name="two", pads=[1] * 4),
        helper.make_node("Conv", ["e", "last"], ["y"], name="last"),
    ][: 4 if more else 3]
    if not more:
        nodes[2].output[0] = "y"
        nodes[0].input[1] = nodes[0].input[1] if not shared else "first_copy"
        nodes.insert(0, helper.make_node("RandomNormal", [], ["first_copy"], name="noise", shape=[16, 3, 1, 1]))
    values = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        values,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return ModelGraph(path)


def test_a_model_of_which_all_can_be_quantized_passes_without_a_word(tmp_path: Path) -> None:
    found = Coverage.of(_graph(tmp_path / "m.onnx", shared=False, more=1))
    assert found == Coverage(4, 4, 1.0, "") and not found.warning


def test_a_model_of_which_little_can_be_quantized_says_so(tmp_path: Path) -> None:
    found = Coverage.of(_graph(tmp_path / "m.onnx", shared=True, more=1))
    assert (found.quantizable, found.layers) == (2, 4)
    assert found.share == pytest.approx(96 / (96 + 16 * 16 * 9))
    assert "only 2 of 4 layers can be quantized, 4% of the weights" in found.warning
    assert "'one': shared weight: also read by two" in found.warning


def test_a_model_of_which_nothing_can_be_quantized_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no layer that can be quantized; `tuner layers` says why, e\.g\. 'one'"):
        Coverage.of(_graph(tmp_path / "m.onnx", shared=True, more=0))


def test_weights_of_operators_that_are_no_layers_count(tmp_path: Path) -> None:
    weights = {"w": (4, 3, 1, 1), "recurrent": (1, 4 * 64, 8), "inner": (1, 4 * 64, 64)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Reshape", ["c", "shape"], ["rows"], name="rows"),
        helper.make_node("LSTM", ["rows", "recurrent", "inner"], ["y"], name="memory", hidden_size=64),
    ]
    values = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [*values, numpy_helper.from_array(np.array([32, 1, 8]), "shape")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    found = Coverage.of(ModelGraph(path))
    assert found.share == pytest.approx(12 / (12 + 256 * 72))
    assert "'memory': LSTM is no layer that can be" in found.warning
