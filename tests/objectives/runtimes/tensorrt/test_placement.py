"""The TensorRT rules, checked on the graph that is written, not on the plan."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


class Written:
    """A materialized graph with its producers and readers."""

    def __init__(self, graph: ModelGraph, table: CalibrationTable, allocation: Allocation) -> None:
        data = Materializer(graph, table, STRONGLY_TYPED).materialize(allocation).data
        self.model = onnx.load_model_from_string(data)
        self.values = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        self.nodes = {node.name: node for node in self.model.graph.node}
        self.producer = {name: node for node in self.model.graph.node for name in node.output}

    def quantized_scale(self, tensor: str) -> float | None:
        """Scale of the Q/DQ pair that ends in `tensor`; None where there is none."""
        node = self.producer.get(tensor)
        return float(self.values[node.input[1]]) if node is not None and node.op_type == "DequantizeLinear" else None


def _prepare(path: Path) -> tuple[ModelGraph, CalibrationTable]:
    graph = ModelGraph(path)
    draw = np.random.default_rng(0)
    images = (draw.random(graph.input_shape, dtype=np.float32) for _ in range(3))
    return graph, calibrate(graph, images, "max")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelGraph, CalibrationTable]:
    return _prepare(build_detector(tmp_path_factory.mktemp("m") / "m.onnx", "scores"))


@pytest.fixture(scope="module")
def written(prepared: tuple[ModelGraph, CalibrationTable]) -> Written:
    graph, table = prepared
    return Written(graph, table, Allocation.uniform([layer.name for layer in graph.quantizable], "int8"))


def test_every_int8_layer_reads_a_signed_pair_and_writes_none(prepared, written: Written) -> None:
    graph, _ = prepared
    for layer in graph.quantizable:
        node = written.nodes[layer.name]
        assert written.quantized_scale(node.input[0]) is not None
        zero = written.values[written.producer[node.input[0]].input[2]]
        assert zero.dtype == np.int8 and zero == 0
        readers = [n for n in written.model.graph.node if node.output[0] in n.input]
        own = layer.output in {other.input for other in graph.quantizable}
        assert own or all(reader.op_type != "QuantizeLinear" for reader in readers)


def test_weights_are_per_channel_and_zero_points_zero(prepared, written: Written) -> None:
    graph, _ = prepared
    for layer in graph.quantizable:
        node = written.producer[written.nodes[layer.name].input[1]]
        assert node.op_type == "DequantizeLinear"
        assert written.values[node.input[1]].shape == (layer.weight_shape[layer.channel_axis],)
        assert not written.values[node.input[2]].any()


def test_activation_functions_stay_in_high_precision(written: Written) -> None:
    for node in written.model.graph.node:
        if node.op_type in ("Sigmoid", "Mul"):
            assert all(written.quantized_scale(name) is None for name in node.input)


def _concat_model(path: Path) -> Path:
    """x -> conv a, conv b; concat(a, b, maxpool(b)) -> conv c; a and b are also read by convs of their own."""
    draw = np.random.default_rng(0)

    def conv(name: str, source: str, cin: int, cout: int, scale: float) -> onnx.NodeProto:
        arrays[f"{name}.w"] = (scale * draw.standard_normal((cout, cin, 3, 3))).astype(np.float32)
        return helper.make_node("Conv", [source, f"{name}.w"], [f"{name}.y"], name=name, pads=[1, 1, 1, 1])

    arrays: dict[str, np.ndarray] = {}
    nodes = [
        conv("a", "x", 3, 4, 1.0),
        conv("b", "x", 3, 4, 7.0),
        helper.make_node("MaxPool", ["b.y"], ["p"], name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["a.y", "b.y", "p"], ["joined"], name="join", axis=1),
        conv("c", "joined", 12, 4, 1.0),
        conv("d", "a.y", 4, 4, 1.0),
        helper.make_node("Add", ["c.y", "d.y"], ["sum"], name="sum"),
        conv("e", "sum", 4, 2, 1.0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("e.y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_all_inputs_of_a_concat_share_one_scale(tmp_path: Path) -> None:
    graph, table = _prepare(_concat_model(tmp_path / "m.onnx"))
    found = Written(graph, table, Allocation.uniform(["a", "b", "c", "d", "e"], "int8"))
    joined = found.quantized_scale(found.nodes["c"].input[0])
    own = found.quantized_scale(found.nodes["d"].input[0])
    assert joined is not None and joined == own
    assert own == pytest.approx(max(abs(v) for name in ("a.y", "b.y") for v in table.range(name)) / 127, rel=1e-5)


def test_the_residual_beside_an_int8_layer_is_quantized(tmp_path: Path) -> None:
    graph, table = _prepare(_concat_model(tmp_path / "m.onnx"))
    mixed = Written(graph, table, Allocation.of({"a": "int8", "b": "int8", "c": "int8", "d": "fp16", "e": "int8"}))
    first, second = mixed.nodes["sum"].input
    assert mixed.quantized_scale(first) is None  # ends the int8 layer c: it fuses
    assert mixed.quantized_scale(second) is not None  # the residual
    plain = Written(graph, table, Allocation.of({"a": "int8", "b": "int8", "c": "fp16", "d": "fp16", "e": "fp16"}))
    assert all(plain.quantized_scale(name) is None for name in plain.nodes["sum"].input)


def test_no_pair_between_layers_that_stay_fp16(tmp_path: Path) -> None:
    graph, table = _prepare(_concat_model(tmp_path / "m.onnx"))
    found = Written(graph, table, Allocation.of({"e": "int8"}))
    kinds = [node.op_type for node in found.model.graph.node]
    assert kinds.count("QuantizeLinear") == 1 and kinds.count("DequantizeLinear") == 2
