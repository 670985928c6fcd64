"""Half-precision models are read as float32: as converters and exporters write them, judged against the files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS
from onnx import TensorProto, helper, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

STYLES = ("half", "keep_io", "blocked", "unsorted", "constants", "typed shapes", "joined with float")


def _halved(folder: Path, style: str, layout: str = "scores") -> tuple[Path, ModelGraph]:
    """A tiny detector in half precision as `style` has it, and the float32 model that it was made from."""
    plain = build_detector(folder / "plain.onnx", layout, dynamic_batch=True)
    model = onnx.load(plain)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in graph.node:
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i == TensorProto.FLOAT:
                entry.i = TensorProto.FLOAT16
    values = {value.name: value for value in graph.value_info}
    del graph.value_info[:]
    for value in (*graph.input, *graph.output, *values.values()):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    if style == "typed shapes":
        graph.value_info.extend(values.values())
    nodes = list(graph.node)
    if style in ("keep_io", "unsorted"):
        for node in nodes:
            node.input[:] = ["images_half" if name == "images" else name for name in node.input]
            node.output[:] = ["output_half" if name == "output0" else name for name in node.output]
        first = helper.make_node("Cast", ["images"], ["images_half"], "cast_in", to=TensorProto.FLOAT16)
        last = helper.make_node("Cast", ["output_half"], ["output0"], "cast_out", to=TensorProto.FLOAT)
        nodes = [*nodes, last, first] if style == "unsorted" else [first, *nodes, last]
        for value in (graph.input[0], graph.output[0]):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    if style in ("blocked", "joined with float"):
        kind = "Sigmoid" if style == "blocked" else "MaxPool"
        for node in [node for node in nodes if node.op_type == kind]:
            place = nodes.index(node)
            source, target = node.input[0], node.output[0]
            node.input[0], node.output[0] = f"{target}_wide_in", f"{target}_wide"
            before = helper.make_node("Cast", [source], [node.input[0]], f"{target}_before", to=TensorProto.FLOAT)
            after = helper.make_node("Cast", [f"{target}_wide"], [target], f"{target}_after", to=TensorProto.FLOAT16)
            nodes[place : place + 1] = [before, node, after]
    del graph.node[:]
    if style == "constants":
        for tensor in [t for t in graph.initializer if t.name in ("two", "strides", "anchors")]:
            graph.node.append(helper.make_node("Constant", [], [tensor.name], f"{tensor.name}_c", value=tensor))
            graph.initializer.remove(tensor)
    graph.node.extend(nodes)
    if style == "unsorted":
        graph.node.insert(0, graph.node.pop(5))
    onnx.save(model, folder / "half.onnx")
    return folder / "half.onnx", ModelGraph(plain)


@pytest.mark.parametrize("layout", ["scores", "end_to_end", "raw"])
@pytest.mark.parametrize("style", STYLES)
def test_it_is_read_as_the_float32_model_that_it_was_made_from(tmp_path: Path, style: str, layout: str) -> None:
    path, plain = _halved(tmp_path, style, layout)
    graph = ModelGraph(path)
    assert graph.narrow and "half precision" in graph.note and not plain.note
    assert graph.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(x.name, x.weight_shape, x.macs) for x in graph.quantizable] == [
        (x.name, x.weight_shape, x.macs) for x in plain.quantizable
    ]
    kinds = {tensor.data_type for tensor in graph.model.graph.initializer}
    assert TensorProto.FLOAT16 not in kinds
    assert [n.op_type for n in graph.nodes() if n.op_type != "Identity"] == [
        n.op_type for n in plain.nodes() if n.op_type != "Identity"
    ]
    assert recognise(graph).class_count == recognise(plain).class_count
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with OnnxRuntimeRunner(path) as own, OnnxRuntimeRunner(graph.model.SerializeToString()) as read:
        (expected,), (found,) = own.infer(image), read.infer(image)
    assert expected.dtype == found.dtype == np.float32
    if layout == "end_to_end":  # equal scores may change places
        expected, found = np.sort(expected[..., 4]), np.sort(found[..., 4])
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.25 if layout != "end_to_end" else 0.02)


@pytest.mark.parametrize("runtime", DIALECTS)
@pytest.mark.parametrize("style", STYLES)
def test_it_is_quantized_whole(tmp_path: Path, style: str, runtime: str) -> None:
    graph = ModelGraph(_halved(tmp_path, style)[0])
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    table = calibrate(graph, iter([image]), "max")
    scheme = Allocation.uniform([layer.name for layer in graph.quantizable], "int8")
    artifact = Materializer(graph, table, DIALECTS[runtime]).materialize(scheme)
    artifact.check()
    assert artifact.size.average_weight_bits < 8.6
    codes = [t for t in onnx.load_model_from_string(artifact.data).graph.initializer if t.name.endswith("_quantized")]
    assert len([t for t in codes if t.data_type == TensorProto.INT8]) == len(graph.quantizable)


@pytest.mark.parametrize("style", STYLES)
def test_a_file_runs_in_its_own_precision(tmp_path: Path, style: str) -> None:
    """At a batch of its own too, where the file's graph is not the one that runs."""
    path, _ = _halved(tmp_path, style)
    runtime = open_runtime(parse_settings({"name": "onnxruntime-cpu"}))
    image = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    assert runtime.file_model(ModelGraph(path, allow_quantized=True)) == path
    pair = runtime.file_model(ModelGraph(path, allow_quantized=True, batch=2))
    assert isinstance(pair, bytes)
    model = onnx.load_model_from_string(pair)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    with OnnxRuntimeRunner(path) as own, OnnxRuntimeRunner(pair) as both:
        (one,), (two,) = own.infer(image[1:]), both.infer(image)
    assert two.shape[0] == 2 and two.dtype == np.float32
    np.testing.assert_allclose(two[1:], one, rtol=0.01, atol=0.1)


def test_an_ordinary_model_is_read_as_it_is(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx"))
    assert not graph.narrow and graph.in_own_types() is graph.model
    assert [node.name for node in graph.nodes()] == [node.name for node in onnx.load(graph.path).graph.node]


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    model = onnx.load(build_detector(tmp_path / "m.onnx"))
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "reversed.onnx")
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    graph = ModelGraph(tmp_path / "reversed.onnx")
    with OnnxRuntimeRunner(tmp_path / "m.onnx") as one, OnnxRuntimeRunner(graph.model.SerializeToString()) as other:
        np.testing.assert_array_equal(one.infer(image)[0], other.infer(image)[0])


def test_graphs_within_are_read_as_float32_too(tmp_path: Path) -> None:
    path, _ = _halved(tmp_path, "keep_io")
    model = onnx.load(path)
    last = model.graph.node[-1]
    half = np.float16(0.5)

    def branch(name: str, value: np.float16) -> onnx.GraphProto:
        constant = numpy_helper.from_array(np.asarray(value), f"{name}_factor")
        node = helper.make_node("Mul", [last.input[0], f"{name}_factor"], [f"{name}_out"], f"{name}_mul")
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT16, None)
        return helper.make_graph([node], name, [], [out], [constant])

    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    chosen = helper.make_node(
        "If", ["yes"], ["chosen"], "if", then_branch=branch("a", half), else_branch=branch("b", half)
    )
    model.graph.node.insert(len(model.graph.node) - 1, chosen)
    model.graph.node[-1].input[0] = "chosen"
    onnx.save(model, tmp_path / "if.onnx")
    graph = ModelGraph(tmp_path / "if.onnx")
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with OnnxRuntimeRunner(graph.path) as own, OnnxRuntimeRunner(graph.model.SerializeToString()) as read:
        np.testing.assert_allclose(read.infer(image)[0], own.infer(image)[0], rtol=0.02, atol=0.25)
