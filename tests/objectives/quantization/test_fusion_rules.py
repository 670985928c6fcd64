"""Every int8 graph that is written for TensorRT obeys its rules, and the checker sees where one does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS
from onnx import TensorProto, helper, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.fusion_rules import check_fusion, entries
from objectives.quantization.materialize import Materializer
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

RUNTIMES = ["tensorrt", "tensorrt-8"]


def _prepare(path: Path) -> tuple[ModelGraph, CalibrationTable]:
    graph = ModelGraph(path)
    draw = np.random.default_rng(0)
    return graph, calibrate(graph, iter([draw.random(graph.input_shape, dtype=np.float32)]), "max")


def _written(graph: ModelGraph, table: CalibrationTable, runtime: str, formats: dict[str, str]) -> onnx.ModelProto:
    artifact = Materializer(graph, table, DIALECTS[runtime]).materialize(Allocation.of(formats))
    return onnx.load_model_from_string(artifact.engine_model)


def _uniform(graph: ModelGraph) -> dict[str, str]:
    return {layer.name: "int8" for layer in graph.quantizable}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("head", ["end_to_end", "scores", "raw"])
def test_uniform_int8_leaves_no_pair_unfused(tmp_path: Path, head: str, runtime: str) -> None:
    graph, table = _prepare(build_detector(tmp_path / "m.onnx", head))
    model = _written(graph, table, runtime, _uniform(graph))
    assert check_fusion(model) == ()
    assert [name.removesuffix("_half") for name in entries(model)] == [graph.input]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nor_does_any_mix_of_formats(tmp_path: Path, runtime: str) -> None:
    graph, table = _prepare(build_detector(tmp_path / "m.onnx", "end_to_end"))
    draw = np.random.default_rng(0)
    for _ in range(12):
        formats = {layer.name: str(draw.choice(["fp16", "int8", "w8a16", "w4a16"])) for layer in graph.quantizable}
        # Weights that are quantized alone are a choice for size; TensorRT >= 10 keeps them packed, behind a kernel.
        alone = {(layer, "weighted") for layer, fmt in formats.items() if fmt in ("w8a16", "w4a16")}
        found = {(finding.node, finding.rule) for finding in check_fusion(_written(graph, table, runtime, formats))}
        assert found == (alone if runtime == "tensorrt" else set())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("name", "attention"),
    # The value of the attention is read by its MatMul in fp16 and by an int8 Conv; the sum after it is made in fp16.
    [("yolov8n", []), ("yolov10s", ["/model.10/attn/Split_output_2", "/model.10/attn/Add_output_0"])],
)
def test_real_detectors_in_int8(shared_data: Path, name: str, attention: list[str], runtime: str) -> None:
    graph, table = _prepare(shared_data / "models" / f"{name}.onnx")
    model = _written(graph, table, runtime, _uniform(graph))
    assert check_fusion(model) == ()
    assert [name.removesuffix("_half") for name in entries(model)] == [graph.input, *attention]


class _Net:
    """Writes graphs node by node, well or badly quantized."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []

    def const(self, value: object) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}.y"], name=name, **attributes))
        return f"{name}.y"

    def pair(self, source: str, scale: float = 0.1, zero: object = np.int8(0)) -> str:
        scale_name, zero_name = self.const(np.float32(scale)), self.const(zero)
        code = self.op("QuantizeLinear", source, scale_name, zero_name)
        return self.op("DequantizeLinear", code, scale_name, zero_name)

    def weight(self, scale: object = None, zero: int = 0, **attributes: object) -> str:
        scales = np.full(4, 0.1, np.float32) if scale is None else np.asarray(scale, np.float32)
        zeros = self.const(np.full(scales.shape, zero, np.int8))
        codes = self.const(np.ones((4, 4, 1, 1), np.int8))
        return self.op("DequantizeLinear", codes, self.const(scales), zeros, **attributes)

    def conv(self, source: str, weight: str | None = None, *rest: str) -> str:
        return self.op("Conv", source, weight or self.weight(axis=0), *rest)

    def silu(self, source: str) -> str:
        return self.op("Mul", source, self.op("Sigmoid", source))

    def model(self, output: str) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        found = value("x", TensorProto.FLOAT, (1, 4, 8, 8)), value(output, TensorProto.FLOAT, [None] * 4)
        graph = helper.make_graph(self.nodes, "g", [found[0]], [found[1]], self.arrays)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def _float_weight(net: _Net) -> str:
    return net.conv(net.pair("x"), net.const(np.ones((4, 4, 1, 1), np.float32)))


def _weight_only_conv(net: _Net) -> str:
    return net.conv("x")


def _one_scale_for_a_weight(net: _Net) -> str:
    return net.conv(net.pair("x"), net.weight(0.1))


def _scales_along_inputs(net: _Net) -> str:
    return net.conv(net.pair("x"), net.weight(axis=1))


def _weight_off_zero(net: _Net) -> str:
    return net.conv(net.pair("x"), net.weight(zero=3, axis=0))


def _unsigned_activation(net: _Net) -> str:
    return net.conv(net.pair("x", zero=np.uint8(0)))


def _quantized_bias(net: _Net) -> str:
    scale, zero = net.const(np.full(4, 0.01, np.float32)), net.const(np.zeros(4, np.int32))
    bias = net.op("DequantizeLinear", net.const(np.ones(4, np.int32)), scale, zero, axis=0)
    return net.conv(net.pair("x"), None, bias)


def _pair_before_an_activation(net: _Net) -> str:
    return net.op("Sigmoid", net.pair(net.conv(net.pair("x"))))


def _two_scales_on_a_tensor(net: _Net) -> str:
    y = net.conv(net.pair("x"))
    return net.op("Add", net.conv(net.pair(y, 0.1)), net.conv(net.pair(y, 0.2)))


def _concat_with_another_scale(net: _Net) -> str:
    y, z = net.conv(net.pair("x")), net.conv(net.pair("x"))
    pooled = net.op("MaxPool", y, kernel_shape=[1, 1])
    joined = net.pair(net.op("Concat", pooled, z, axis=1), 0.2)
    narrow = net.op("Conv", joined, net.op("DequantizeLinear", net.const(np.ones((4, 8, 1, 1), np.int8)),
                    net.const(np.ones(4, np.float32)), net.const(np.zeros(4, np.int8)), axis=0))  # fmt: skip
    return net.op("Add", narrow, net.conv(net.pair(y, 0.1)))


def _residual_in_float(net: _Net) -> str:
    y = net.conv(net.pair("x"))
    return net.conv(net.pair(net.op("Add", y, net.conv(net.pair(y)))))


def _add_quantized_on_one_side(net: _Net) -> str:
    y = net.conv(net.pair("x"))
    read = net.pair(y)
    return net.conv(net.pair(net.op("Add", read, net.silu(net.conv(read)))))


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (_float_weight, "weighted"),
        (_weight_only_conv, "weighted"),
        (_one_scale_for_a_weight, "weights"),
        (_scales_along_inputs, "weights"),
        (_weight_off_zero, "symmetric"),
        (_unsigned_activation, "symmetric"),
        (_quantized_bias, "bias"),
        (_pair_before_an_activation, "reader"),
        (_two_scales_on_a_tensor, "requantized"),
        (_concat_with_another_scale, "requantized"),
        (_residual_in_float, "add"),
        (_add_quantized_on_one_side, "add"),
    ],
)
def test_broken_rules_are_found(build: Callable[[_Net], str], rule: str) -> None:
    net = _Net()
    found = check_fusion(net.model(build(net)))
    assert {finding.rule for finding in found} == {rule}
    assert {finding.node for finding in found} <= {node.name for node in net.nodes}


def test_well_placed_sums_and_copies_pass() -> None:
    net = _Net()
    y = net.silu(net.conv(net.pair("x")))
    first, second = net.op("Transpose", y, perm=[0, 1, 3, 2]), net.op("Transpose", y, perm=[0, 1, 3, 2])
    read = net.pair(first)
    taken = net.op("Add", read, net.conv(read))  # no activation between: the layer takes the addition in
    apart = net.op("Add", net.pair(taken), net.pair(net.silu(net.conv(net.pair(second)))))
    model = net.model(net.conv(net.pair(apart)))
    assert check_fusion(model) == () and entries(model) == ("x",)


def test_an_interpolation_keeps_its_pair_behind_it() -> None:
    for mode, expected in (("nearest", 1), ("linear", 2)):
        net = _Net()
        scales = net.const(np.array([1, 1, 2, 2], np.float32))
        larger = net.op("Resize", net.conv(net.pair("x")), "", scales, mode=mode)
        model = net.model(net.conv(net.pair(larger)))
        assert len(entries(model)) == expected and check_fusion(model) == ()
