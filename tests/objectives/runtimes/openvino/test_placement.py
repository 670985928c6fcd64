"""Where OpenVINO's pairs stand, read from the graph that is written; OpenVINO itself is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.runtimes.openvino.dialect import OPENVINO
from search_spaces.allocation import Allocation
from search_spaces.formats import UNQUANTIZED
from search_spaces.model_graph import ModelGraph


class Written:
    """A materialized graph."""

    def __init__(self, graph: ModelGraph, table: CalibrationTable, allocation: Allocation) -> None:
        data = Materializer(graph, table, OPENVINO).materialize(allocation).data
        self.model = onnx.load_model_from_string(data)
        self.values = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        self.nodes = {node.name: node for node in self.model.graph.node}
        self.producer = {name: node for node in self.model.graph.node for name in node.output}

    def scale(self, tensor: str) -> float | None:
        """Scale of the pair that ends in a tensor; None where there is none."""
        node = self.producer.get(tensor)
        return float(self.values[node.input[1]]) if node is not None and node.op_type == "DequantizeLinear" else None

    @property
    def quantized(self) -> set[str]:
        """Tensors with a pair."""
        return {node.input[0] for node in self.model.graph.node if node.op_type == "QuantizeLinear"}


def _calibrated(path: Path) -> tuple[ModelGraph, CalibrationTable]:
    graph = ModelGraph(path)
    draw = np.random.default_rng(0)
    return graph, calibrate(graph, (draw.random(graph.input_shape, dtype=np.float32) for _ in range(3)), "max")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelGraph, CalibrationTable]:
    return _calibrated(build_detector(tmp_path_factory.mktemp("m") / "m.onnx", "end_to_end"))


@pytest.fixture(scope="module")
def uniform(detector: tuple[ModelGraph, CalibrationTable]) -> Written:
    graph, table = detector
    return Written(graph, table, Allocation.uniform([layer.name for layer in graph.quantizable], "int8"))


def test_pairs_are_unsigned_and_weights_signed_per_channel(detector, uniform: Written) -> None:
    graph, _ = detector
    for node in uniform.model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert uniform.values[node.input[2]].dtype == np.uint8
    for layer in graph.quantizable:
        made = uniform.producer[uniform.nodes[layer.name].input[1]]
        assert made.op_type == "DequantizeLinear" and not uniform.values[made.input[2]].any()
        assert uniform.values[made.input[1]].shape == (layer.weight_shape[layer.channel_axis],)


def test_nothing_stands_between_a_conv_and_its_activation(detector, uniform: Written) -> None:
    for node in uniform.model.graph.node:
        if node.op_type in ("Sigmoid", "Mul"):
            assert all(uniform.scale(name) is None for name in node.input)


def test_no_pair_is_repeated_behind_what_moves_elements(detector, uniform: Written) -> None:
    graph, _ = detector
    moved = {
        name
        for node in graph.nodes()
        if node.op_type in ("Concat", "Split", "MaxPool", "Resize")
        for name in node.output
    }
    assert any(node.op_type == "Concat" for node in graph.nodes()) and not moved & uniform.quantized


def test_decoding_stays_in_floats(detector, uniform: Written) -> None:
    graph, _ = detector
    heads = {layer.output for layer in graph.quantizable} - {layer.input for layer in graph.quantizable}
    assert heads and not (heads | set(graph.outputs)) & uniform.quantized


def test_an_unquantized_scheme_has_no_pairs(detector) -> None:
    graph, table = detector
    names = [layer.name for layer in graph.quantizable]
    assert not Written(graph, table, Allocation.uniform(names, UNQUANTIZED)).quantized


def _branches(path: Path) -> Path:
    """x -> Conv a -> Split(b, c); Add(b, Conv d(b)) = e; Concat(c, e) = f; MaxPool(f) -> Conv g; f -> Conv h."""
    draw = np.random.default_rng(0)
    weights = {"a": (8, 3), "d": (4, 4), "g": (8, 8), "h": (8, 8)}
    kept = [
        numpy_helper.from_array(draw.normal(size=(*shape, 1, 1)).astype(np.float32), f"{name}.w")
        for name, shape in weights.items()
    ]
    kept.append(numpy_helper.from_array(np.array([4, 4], np.int64), "halves"))
    nodes = [
        helper.make_node("Conv", ["x", "a.w"], ["at"], name="a"),
        helper.make_node("Split", ["at", "halves"], ["b", "c"], name="split", axis=1),
        helper.make_node("Conv", ["b", "d.w"], ["dt"], name="d"),
        helper.make_node("Add", ["b", "dt"], ["e"], name="add"),
        helper.make_node("Concat", ["c", "e"], ["f"], name="concat", axis=1),
        helper.make_node("MaxPool", ["f"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "g.w"], ["gt"], name="g"),
        helper.make_node("Conv", ["f", "h.w"], ["ht"], name="h"),
    ]
    ends = {"x": [1, 3, 8, 8], "gt": [1, 8, 4, 4], "ht": [1, 8, 8, 8]}
    x, g, h = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends.items())
    body = helper.make_graph(nodes, "g", [x], [g, h], kept)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_integers_begin_at_the_first_tensor_and_a_concat_has_one_scale(tmp_path: Path) -> None:
    graph, table = _calibrated(_branches(tmp_path / "m.onnx"))
    written = Written(graph, table, Allocation.uniform(["a", "d", "g", "h"], "int8"))
    assert written.quantized == {"x", "at", "dt", "e"}
    assert written.scale(written.nodes["split"].input[0]) == written.scale(written.nodes["concat"].input[1])
    assert written.nodes["g"].input[0] == "p" and written.nodes["h"].input[0] == "f"


def test_a_float_reader_is_given_what_was_not_rounded(tmp_path: Path) -> None:
    """With h in floats, the Concat that it reads stays in floats; g's pair stands behind its own MaxPool."""
    graph, table = _calibrated(_branches(tmp_path / "m.onnx"))
    written = Written(graph, table, Allocation.of({"a": "int8", "d": "int8", "g": "int8", "h": UNQUANTIZED}))
    assert written.nodes["h"].input[0] == "f" and written.scale(written.nodes["concat"].input[0]) is None
    assert "f" in written.quantized and written.scale(written.nodes["pool"].input[0]) is not None
    assert written.scale(written.nodes["d"].input[0]) is not None
