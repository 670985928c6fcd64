from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_detectors import build_detector

from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph, is_bin_expectation


def _model(nodes: list, arrays: dict, path: Path, input_shape: tuple = (1, 3, 8, 8), opset: int = 17) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def _weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_detector_layers_have_shapes_macs_and_the_dfl_reason(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "end_to_end"))
    first = graph.layers[0]
    assert first.op == "Conv"
    assert first.parameters == int(np.prod(first.weight_shape))
    assert first.macs == first.parameters * int(np.prod(first.output_shape[2:]))
    reasons = [layer.reason for layer in graph.layers if not layer.quantizable]
    assert any(reason and reason.startswith("DFL") for reason in reasons)
    assert all(a != b for a, b in graph.edges)
    names = {layer.name for layer in graph.quantizable}
    assert {name for edge in graph.edges for name in edge} <= names


def test_dynamic_batch_becomes_one(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "scores", dynamic_batch=True))
    assert graph.input_shape[0] == 1
    assert all(layer.output_shape[0] == 1 for layer in graph.quantizable)


def test_every_layer_kind_and_its_macs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["a"], name="depthwise", group=3, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], name="up", strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["c"], name="flat"),
        helper.make_node("Gemm", ["c", "dense"], ["d"], name="dense", transB=1),
        helper.make_node("MatMul", ["d", "product"], ["y"], name="product"),
    ]
    arrays = {
        "depthwise": _weight(3, 1, 3, 3),
        "up": _weight(3, 2, 2, 2),
        "dense": _weight(5, 2 * 16 * 16),
        "product": _weight(5, 4),
    }
    layers = {layer.name: layer for layer in ModelGraph(_model(nodes, arrays, tmp_path / "m.onnx")).layers}
    assert layers["depthwise"].depthwise and layers["depthwise"].macs == 27 * 64
    assert layers["up"].channel_axis == 1 and layers["up"].macs == 24 * 64
    assert layers["dense"].channel_axis == 0 and layers["dense"].macs == 5 * 512
    assert layers["product"].channel_axis == 1 and layers["product"].macs == 20
    assert all(layer.quantizable for layer in layers.values())


def test_reasons_for_shared_and_activation_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w"], ["b"], name="two", pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["a", "b"], ["y"], name="attention"),
    ]
    path = _model(nodes, {"w": _weight(3, 3, 3, 3)}, tmp_path / "m.onnx")
    reasons = {layer.name: layer.reason for layer in ModelGraph(path).layers}
    assert reasons["one"] == "shared weight: also read by two"
    assert reasons["attention"] == "no constant weight: both inputs are activations"


def test_constants_become_initializers_and_names_become_unique(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(_weight(3, 3, 1, 1), "v"))
    nodes = [constant, helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    graph = ModelGraph(_model(nodes, {}, tmp_path / "m.onnx"))
    assert graph.layers[0].quantizable
    assert len({node.name for node in graph.nodes()}) == 2


def test_dfl_is_found_by_values_only() -> None:
    assert is_bin_expectation(np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    assert not is_bin_expectation(np.arange(16, dtype=np.float32).reshape(4, 4, 1, 1))
    assert not is_bin_expectation(_weight(1, 16, 1, 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "not an ONNX file"), (b"\x08\x09garbage", "not an ONNX file"), (b"hello", "not an ONNX file")],
)
def test_unreadable_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        ModelGraph(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_truncated_and_missing_models(tmp_path: Path) -> None:
    path = build_detector(tmp_path / "m.onnx", "scores")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError):
        ModelGraph(path)
    with pytest.raises(InputError, match="no such file"):
        ModelGraph(tmp_path / "none.onnx")


def test_models_that_are_no_image_model_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    path = _model(nodes, {"w": _weight(8, 2)}, tmp_path / "m.onnx", input_shape=(4, 8))
    with pytest.raises(InputError, match="not a detector"):
        ModelGraph(path)


def test_convolutions_without_a_kernel_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up")]
    path = _model(nodes, {"w": _weight(4)}, tmp_path / "m.onnx", input_shape=(1, 3, 8, 8))
    with pytest.raises(InputError, match=r"ConvTranspose 'up' has a weight of shape \[4\], which holds no kernel"):
        ModelGraph(path)
