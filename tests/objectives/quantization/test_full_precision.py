"""What fp16 cannot hold stays float32: judged by running the typed graph in true fp16, by ONNX's reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import ORT, TRT, TRT8
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.float_nodes import FullPrecision
from objectives.quantization.full_precision import full_precision
from objectives.quantization.histogram import METHODS
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

SIZE = 16
BOX = 8.0
_ROUNDED = WeightSettings("rtn", block_size=4)


class _Body:
    """A small detector: Conv, what is tried, Conv, and boxes of up to `BOX` pixels with a score."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def op(self, kind: str, *inputs: object, **attributes: object) -> str:
        """Adds a node; arrays and numbers among its inputs become constants."""
        name = f"{kind}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self.constant(f"{name}.{i}", x) for i, x in enumerate(inputs)]
        self.nodes.append(helper.make_node(kind, names, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def constant(self, name: str, value: object) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, cin: int, cout: int, gain: float = 1.0, bias: float = 0.0, kernel: int = 1) -> str:
        size = (cout, cin, kernel, kernel)
        weight = self.random.normal(0, gain / np.sqrt(cin * kernel**2), size)
        return self.op("Conv", x, weight, np.full(cout, bias), kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def write(self, path: Path, tried: Callable[[_Body, str], str], opset: int = 17) -> ModelGraph:
        x = self.conv("images", 3, 8, gain=2.0, kernel=3)
        x = self.op("Sigmoid", x)
        x = tried(self, x)
        x = self.op("Sigmoid", self.conv(x, 8, 8, gain=2.0))
        x = self.conv(x, 8, 5, gain=2.0)
        x = self.op("Reshape", self.op("Sigmoid", x), np.array([0, 5, -1]))
        x = self.op("Mul", x, np.array([BOX] * 4 + [1.0]).reshape(1, 5, 1))
        self.nodes.append(helper.make_node("Identity", [x], ["output0"], name="last"))
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, SIZE * SIZE])],
            self.weights,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
        return ModelGraph(path)


def _images(count: int = 3) -> list[np.ndarray]:
    draw = np.random.default_rng(5)
    return [draw.random((1, 3, SIZE, SIZE), dtype=np.float32) for _ in range(count)]


def _table(graph: ModelGraph, method: str = "max") -> CalibrationTable:
    return calibrate(graph, iter(_images()), method)


def _errors(graph: ModelGraph, table: CalibrationTable, fmt: str) -> tuple[np.ndarray, FullPrecision]:
    """What true fp16 changes of every box and score, pixels, and what stayed float32."""
    scheme = Allocation.uniform([layer.name for layer in graph.quantizable], fmt)
    artifact = Materializer(graph, table, TRT, _ROUNDED).materialize(scheme)
    errors = []
    for data in {artifact.data, artifact.engine_model}:
        typed = onnx.load_model_from_string(data)
        onnx.checker.check_model(typed, full_check=True)
        same = Materializer(graph, table, TRT8, _ROUNDED).materialize(scheme).engine_model
        with OnnxRuntimeRunner(graph.path if fmt == "fp16" else same) as exact, np.errstate(all="ignore"):
            for image in _images():
                (found,) = ReferenceEvaluator(typed).run(None, {"images": image})
                (expected,) = exact.infer(image)
                assert found.dtype == np.float32 and np.isfinite(expected).all()
                assert np.isfinite(found).all(), f"{fmt}: NaN or infinity"
                errors.append(np.abs(found - expected).ravel())
    return np.concatenate(errors), artifact.precision


def _norm(b: _Body, x: str, epsilon: float, power: float = 1.0) -> str:
    """x / sqrt(mean of squares + epsilon), over channels, of what is small in places."""
    small = b.op("Mul", x, power)
    total = b.op("ReduceMean", b.op("Mul", small, small), axes=[1], keepdims=1)
    return b.op("Div", small, b.op("Sqrt", b.op("Add", total, epsilon)))


_STATISTICS = [np.ones(8), np.zeros(8), np.zeros(8)]
TRIED: dict[str, Callable[[_Body, str], str]] = {
    "nothing": lambda b, x: x,
    "large": lambda b, x: b.op("Mul", b.op("Mul", x, 2e5), 5e-6),
    "large by a convolution": lambda b, x: b.op("Mul", b.conv(b.op("Mul", x, 1e3), 8, 8, gain=300.0), 1e-5),
    "large inputs of a layer": lambda b, x: b.op("Mul", b.conv(b.op("Mul", x, 1e6), 8, 8), 1e-6),
    "moved when large": lambda b, x: b.op(
        "Mul", b.op("Reshape", b.op("Mul", x, 1e6), np.array([1, 8, SIZE, SIZE])), 1e-6
    ),
    "joined when large": lambda b, x: b.op("Mul", b.conv(b.op("Concat", b.op("Mul", x, 1e6), x, axis=1), 16, 8), 1e-6),
    "exponential": lambda b, x: b.op("Log", b.op("Exp", b.op("Mul", x, 20.0))),
    "power": lambda b, x: b.op("Pow", b.op("Pow", b.op("Mul", x, 60.0), 3.0), 1 / 3),
    "sum": lambda b, x: b.op("Add", b.op("Mul", b.op("ReduceSum", b.op("Mul", x, 1e3), np.array([2, 3])), 1e-5), x),
    "product of activations": lambda b, x: b.op(
        "Mul", b.op("MatMul", b.op("Mul", x, 300.0), b.op("Mul", x, 300.0)), 1e-6
    ),
    "weight": lambda b, x: b.op("Mul", b.conv(b.op("Mul", x, 1e-2), 8, 8, gain=2e5), 1e-3),
    "small weight": lambda b, x: b.op("Mul", b.conv(x, 8, 8, gain=2e-7), 5e6),
    "bias that cancels": lambda b, x: b.conv(b.op("Add", b.op("Mul", x, 1.0), 0.0), 8, 8, bias=1.0),
    "offset": lambda b, x: b.op("Sub", b.op("Add", x, 5000.0), 5000.0),
    "offset, scaled": lambda b, x: b.op("Mul", b.op("Sub", b.op("Add", b.op("Mul", x, 300.0), 5e3), 5e3), 1 / 300),
    "offset, moved": lambda b, x: b.op("Sub", b.op("Transpose", b.op("Add", x, 5000.0), perm=[0, 1, 3, 2]), 5000.0),
    "offset of some channels": lambda b, x: b.op(
        "Sub",
        b.op("Mul", b.op("Add", x, np.array([0.0] * 4 + [3e3] * 4).reshape(1, 8, 1, 1)), 2.0),
        np.array([0.0] * 4 + [6e3] * 4).reshape(1, 8, 1, 1),
    ),
    "offset, joined": lambda b, x: b.op(
        "Sub",
        b.op("Slice", b.op("Concat", x, b.op("Add", x, 3e3), axis=1), np.array([8]), np.array([16]), np.array([1])),
        3e3,
    ),
    "offset that is no half": lambda b, x: b.op("Add", b.op("Add", b.op("Mul", x, 1e-1), -5001.0), 5001.0),
    "angle": lambda b, x: b.op("Sin", b.op("Mul", x, 40.0)),
    "epsilon of a norm": lambda b, x: _norm(b, x, 1e-12, 1e-4),
    "epsilon of a root": lambda b, x: b.op("Mul", b.op("Sqrt", b.op("Add", b.op("Mul", x, 1e-9), 1e-12)), 3e4),
    "epsilon of a logarithm": lambda b, x: b.op("Mul", b.op("Log", b.op("Add", b.op("Mul", x, 1e-11), 1e-12)), 0.1),
    "epsilon of a division": lambda b, x: b.op(
        "Clip", b.op("Div", x, b.op("Add", b.op("Relu", b.op("Sub", x, 0.5)), 1e-9)), 0.0, 4.0
    ),
    "clipped divisor": lambda b, x: b.op(
        "Clip", b.op("Div", x, b.op("Clip", b.op("Sub", x, 0.5), 1e-9, 1e30)), 0.0, 4.0
    ),
    "reciprocal": lambda b, x: b.op("Mul", b.op("Reciprocal", b.op("Mul", b.op("Add", x, 0.1), 1e-6)), 1e-6),
    "negative power": lambda b, x: b.op("Mul", b.op("Pow", b.op("Mul", b.op("Add", x, 0.1), 1e-6), -0.5), 1e-3),
    "subnormal factor": lambda b, x: b.op("Mul", b.op("Mul", x, 3e-8), 3e7),
    "constant divisor": lambda b, x: b.op("Mul", b.op("Div", x, 1e-9), 1e-9),
    "small everywhere": lambda b, x: b.op("Mul", b.op("Mul", b.op("Mul", x, 1e-3), 1e-4), 1e7),
    "small between pairs": lambda b, x: b.op("Mul", b.conv(b.op("Mul", x, 1e-4), 8, 8), 1e4),
    "root of small": lambda b, x: b.op("Mul", b.op("Sqrt", b.op("Mul", x, 1e-6)), 1e3),
    "batch normalization": lambda b, x: b.op(
        "BatchNormalization", b.op("Mul", x, 1e-4), *_STATISTICS, np.full(8, 1e-10), epsilon=1e-8
    ),
    "instance normalization": lambda b, x: b.op(
        "InstanceNormalization", b.op("Mul", x, 1e-4), np.ones(8), np.zeros(8), epsilon=1e-12
    ),
    "layer normalization": lambda b, x: b.op(
        "LayerNormalization", b.op("Mul", x, 1e-5), np.ones(SIZE), np.zeros(SIZE), epsilon=1e-12
    ),
    "squares in a normalization": lambda b, x: b.op(
        "LayerNormalization", b.op("Mul", x, 1e3), np.ones(SIZE), np.zeros(SIZE), epsilon=1e-5
    ),
    "length": lambda b, x: b.op("Div", x, b.op("ReduceL2", b.op("Mul", x, 1e3), axes=[1], keepdims=1)),
    "softplus": lambda b, x: b.op("Mul", b.op("Softplus", b.op("Mul", x, 50.0)), 0.02),
    "mask": lambda b, x: b.op("Softmax", b.op("Add", b.op("Mul", x, 8.0), _mask()), axis=1),
    "whole numbers": lambda b, x: b.op("Add", x, _numbers(b, x)),
}


def _numbers(b: _Body, x: str) -> str:
    """0, 0.1, ..., by way of whole numbers about 4001."""
    zero = b.op("Cast", b.op("Mul", x, 0.0), to=TensorProto.INT64)
    number = b.op("Add", zero, 4001 + np.arange(8).reshape(1, 8, 1, 1))
    return b.op("Mul", b.op("Sub", b.op("Cast", number, to=TensorProto.FLOAT), 4001.0), 0.1)


def _mask() -> np.ndarray:
    values = np.zeros((1, 8, 1, 1))
    values[0, 6:] = -1e9
    return values


@pytest.mark.parametrize("fmt", ["fp16", "int8", "w8a16"])
@pytest.mark.parametrize("tried", TRIED)
def test_true_fp16_agrees_with_float32(tmp_path: Path, tried: str, fmt: str) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED[tried])
    errors, _ = _errors(graph, _table(graph), fmt)
    if fmt == "int8":  # one code more or less here and there
        assert np.quantile(errors, 0.99) <= 0.01 * BOX and errors.max() <= 0.04 * BOX
    else:
        assert errors.max() <= 0.01 * BOX


def test_the_nodes_and_the_reasons_are_named(tmp_path: Path) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED["moved when large"])
    _, found = _errors(graph, _table(graph), "fp16")
    assert [entry.node for entry in found.nodes] == ["Mul_2", "Reshape_3", "Mul_4"]
    assert {entry.tensor for entry in found.nodes} == {"Mul_2_out"} and found.missing == ""
    assert all("fp16 ends at 65504" in entry.reason for entry in found.nodes)
    (line,) = found.lines()
    assert "3 nodes stay in fp32: Mul_2, Reshape_3, Mul_4: 'Mul_2_out' reaches" in line
    assert json.loads(json.dumps(found.to_json()))["nodes"][0]["node"] == "Mul_2"


def test_an_ordinary_model_stays_in_fp16(tmp_path: Path) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED["nothing"])
    for fmt in ("fp16", "int8", "w8a16"):
        _, found = _errors(graph, _table(graph), fmt)
        assert found == FullPrecision()


def test_ranges_of_any_method_are_judged_by_the_extremes(tmp_path: Path) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED["offset"])
    for method in METHODS:
        assert full_precision(graph, _table(graph, method)).names == {"Add_2", "Sub_3"}


def test_ranges_of_an_earlier_version_say_what_they_lack(tmp_path: Path) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED["large"])
    old = json.loads(_table(graph).to_json())
    del old["extremes"], old["least"]
    found = full_precision(graph, CalibrationTable.from_json(json.dumps(old)))
    assert found.names == {"Mul_2", "Mul_3"} and "earlier version" in found.missing
    assert "earlier version" in found.lines()[-1]


def test_without_images_constants_decide(tmp_path: Path) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED["epsilon of a norm"])
    found = full_precision(graph, CalibrationTable(graph.digest, "max", 0, {"max": {}}))
    assert {"Add_5", "Sqrt_6"} <= found.names and "images" in found.missing


def test_a_pair_of_small_values_stays_with_its_layer(tmp_path: Path) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED["small between pairs"])
    _, found = _errors(graph, _table(graph), "int8")
    (entry,) = found.nodes
    assert entry.node == "Conv_3" and "scale" in entry.reason


def test_no_cast_comes_between_a_pair_or_a_weight_and_its_layer(tmp_path: Path) -> None:
    for tried in ("large", "large inputs of a layer", "large by a convolution", "weight", "small between pairs"):
        graph = _Body().write(tmp_path / "m.onnx", TRIED[tried])
        for fmt in ("int8", "w8a16", "fp8"):
            scheme = Allocation.uniform([layer.name for layer in graph.quantizable], fmt)
            artifact = Materializer(graph, _table(graph), TRT, _ROUNDED).materialize(scheme)
            model = onnx.load_model_from_string(artifact.data)
            casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
            unpacked = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
            for node in model.graph.node:
                if node.op_type == "Conv":
                    assert not any(casts.get(name) in unpacked for name in node.input), (tried, fmt)


def test_types_follow_casts_to_whole_numbers_and_back(tmp_path: Path) -> None:
    """As torchvision's exports have them; the model's last node is a Cast."""

    def tried(b: _Body, x: str) -> str:
        whole = b.op("Cast", b.op("Mul", x, 100.0), to=TensorProto.INT64)
        back = b.op("Cast", b.op("Sub", whole, b.op("Cast", x, to=TensorProto.INT64)), to=TensorProto.FLOAT)
        wide = b.op("Cast", b.op("Mul", back, 0.005), to=TensorProto.DOUBLE)
        narrow = b.op("Cast", b.op("Add", wide, wide), to=TensorProto.FLOAT)
        return b.op("Concat", b.op("Slice", narrow, np.array([0]), np.array([4]), np.array([1])),
                    b.op("Slice", x, np.array([4]), np.array([8]), np.array([1])), axis=1)  # fmt: skip

    graph = _Body().write(tmp_path / "m.onnx", tried)
    graph.model.graph.node[-1].op_type = "Cast"
    graph.model.graph.node[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    onnx.save(graph.model, tmp_path / "cast.onnx")
    for fmt in ("fp16", "int8", "w8a16"):
        errors, _ = _errors(ModelGraph(tmp_path / "cast.onnx"), _table(graph), fmt)
        assert np.quantile(errors, 0.97) <= 0.02 * BOX


@pytest.mark.parametrize("tried", ["weight", "small weight"])
def test_a_weight_that_fp16_cannot_hold_is_not_stored_in_it(tmp_path: Path, tried: str) -> None:
    graph = _Body().write(tmp_path / "m.onnx", TRIED[tried])
    artifact = Materializer(graph, _table(graph), ORT).materialize(Allocation(()))
    with OnnxRuntimeRunner(graph.path) as base, OnnxRuntimeRunner(artifact.data) as stored:
        for image in _images():
            assert np.abs(stored.infer(image)[0] - base.infer(image)[0]).max() <= 0.01 * BOX
    kinds = {t.name: t.data_type for t in onnx.load_model_from_string(artifact.data).graph.initializer}
    assert TensorProto.FLOAT16 in kinds.values() and kinds["Conv_2.1" if tried == "small weight" else "Conv_3.1"] == 1


def test_what_a_graph_within_reads_stays_float32(tmp_path: Path) -> None:
    def tried(b: _Body, x: str) -> str:
        body = helper.make_graph(
            [
                helper.make_node("Mul", ["held", x], ["product"], "inner"),
                helper.make_node("Identity", ["go"], ["go_on"], "again"),
            ],
            "body",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("held", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("product", TensorProto.FLOAT, None),
            ],
        )
        return b.op("Loop", np.array(2), np.array(True), b.op("Add", x, 1.0), body=body)

    graph = _Body().write(tmp_path / "m.onnx", tried)
    for fmt in ("fp16", "int8"):
        errors, found = _errors(graph, _table(graph), fmt)
        assert errors.max() <= 0.01 * BOX
    assert any("within 'Loop_3'" in entry.reason for entry in found.nodes)
