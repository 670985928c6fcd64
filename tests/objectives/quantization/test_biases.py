"""Biases of integer layers: in int32 whatever their input, one value per output channel whatever their form."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.biases import LARGEST_CODE, bias_scale, with_room
from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings, quantize_weight
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Granularity
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.random((1, 3, 12, 12), dtype=np.float32)


def _model(path: Path, nodes: list, arrays: dict) -> ModelGraph:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return ModelGraph(path)


def _int8(graph: ModelGraph, dialect: str, granularity: str = "auto") -> onnx.ModelProto:
    settings = WeightSettings(granularity=Granularity(granularity))
    maker = Materializer(graph, calibrate(graph, [IMAGE], "max"), DIALECTS[dialect], settings)
    artifact = maker.materialize(Allocation.uniform([layer.name for layer in graph.quantizable], "int8"))
    artifact.check()
    return onnx.load_model_from_string(artifact.data)


def _error(graph: ModelGraph, model: onnx.ModelProto) -> float:
    with OnnxRuntimeRunner(model.SerializeToString()) as ours, OnnxRuntimeRunner(graph.path) as own:
        found, expected = ours.infer(IMAGE)[0], own.infer(IMAGE)[0]
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _conv_of_little(path: Path, shrink: float) -> ModelGraph:
    """A Conv whose input is `shrink` times an image, and whose bias lies between 2 and 4."""
    nodes = [
        helper.make_node("Mul", ["images", "shrink"], ["little"], name="shrink"),
        helper.make_node("Conv", ["little", "w", "b"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Identity", ["c"], ["y"], name="out"),
    ]
    weight = RANDOM.normal(0, 0.2, (6, 3, 3, 3))
    return _model(path, nodes, {"shrink": shrink, "w": weight, "b": np.linspace(2, 4, 6) * ([1, -1] * 3)})


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("shrink", [1.0, 1e-5, 1e-7, 1e-10, 0.0])
def test_a_bias_far_beyond_its_input_is_kept(tmp_path: Path, shrink: float, granularity: str) -> None:
    graph = _conv_of_little(tmp_path / "m.onnx", shrink)
    model = _int8(graph, "onnxruntime", granularity)
    codes = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "conv_bias_quantized")
    assert codes.dtype == np.int32 and 0 < np.abs(codes.astype(np.int64)).max() <= LARGEST_CODE
    assert _error(graph, model) < 0.01


def test_only_the_channels_whose_bias_is_too_large_change() -> None:
    graph_weight = RANDOM.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
    layer = Layer("conv", "Conv", "conv", "w", (4, 3, 3, 3), 1, 0, "x", "y", (), (), 108, 0)
    weight = quantize_weight(graph_weight, layer, FORMATS["int8"], WeightSettings())
    bias = np.float32([0.1, 1e4, -1e4, 0.0])
    input_scale = 1e-6
    roomy = with_room(weight, layer, bias, input_scale)
    assert (roomy.scale == weight.scale).tolist() == [True, False, False, True]
    assert np.array_equal(roomy.codes[[0, 3]], weight.codes[[0, 3]])
    assert np.abs(bias / bias_scale(roomy, layer, input_scale)).max() <= LARGEST_CODE
    np.testing.assert_allclose(roomy.dequantized(), graph_weight, atol=0.51 * float(roomy.scale.max()))
    assert with_room(weight, layer, bias, 0.1) is weight


@pytest.mark.parametrize(("groups", "out"), [(1, 8), (2, 8), (4, 8), (6, 6), (6, 12)])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_grouped_transposed_convolution_keeps_its_bias(tmp_path: Path, dialect: str, groups: int, out: int) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["c"], name="conv"),
        helper.make_node("ConvTranspose", ["c", "w", "b"], ["y"], name="up", strides=[2, 2], group=groups),
    ]
    cin = 8 if groups in (1, 2, 4) else 6
    arrays = {
        "w0": RANDOM.normal(0, 0.5, (cin, 3, 1, 1)),
        "w": RANDOM.normal(0, 0.5, (cin, out // groups, 2, 2)),
        "b": RANDOM.normal(0, 1, out),
    }
    graph = _model(tmp_path / "m.onnx", nodes, arrays)
    assert graph.quantizable[1].output_channels == out
    assert _error(graph, _int8(graph, dialect)) < 0.03


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1), (1,), ()])
def test_every_form_of_a_gemms_bias(tmp_path: Path, shape: tuple[int, ...], beta: float) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="gemm", beta=beta),
    ]
    graph = _model(tmp_path / "m.onnx", nodes, {"w": RANDOM.normal(0, 1, (3, 5)), "b": RANDOM.normal(0, 1, shape)})
    for dialect in DIALECTS:
        assert _error(graph, _int8(graph, dialect)) < 0.03


def test_a_linear_layer_of_many_rows_runs_on_integers(tmp_path: Path) -> None:
    """``nn.Linear`` on ``(batch, tokens, features)`` is a MatMul and an Add."""
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["rows"], name="rows"),
        helper.make_node("MatMul", ["rows", "w"], ["p"], name="linear"),
        helper.make_node("Add", ["p", "b"], ["y"], name="bias"),
    ]
    arrays = {"w": RANDOM.normal(0, 0.5, (24, 7)), "b": RANDOM.normal(0, 1, 7)}
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in arrays.items()]
        + [numpy_helper.from_array(np.array([1, 18, 24]), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    read = ModelGraph(path)
    assert [(layer.macs, layer.output_shape) for layer in read.quantizable] == [(18 * 24 * 7, (1, 18, 7))]
    for dialect in DIALECTS:
        assert _error(read, _int8(read, dialect)) < 0.03
