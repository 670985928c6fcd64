"""Exact rewrites: the same mathematics in operators that a runtime runs faster."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from search_spaces.model_graph import attribute, is_bin_expectation
from search_spaces.names import FreshNames, names_in


def rewrite_dfl(model: onnx.ModelProto, opset: int) -> None:
    """Replaces the DFL's Softmax over bins and its expectation by one matrix product, in place.

    ``softmax(x) . ramp`` equals ``(exp(x - max) . ramp) / (exp(x - max) . 1)``. ONNX Runtime's Softmax over a short
    inner axis costs a transposition and one call per anchor side: 5.2 ms of yolov10s' 95 ms in int8, against 0.4 ms
    for this form (one thread, 640 px). Only the exact pattern ``Transpose(0, 2, 1, 3) -> Softmax(1) -> Conv(ramp)``
    that Ultralytics exports is touched; any other model stays as it is.

    Args:
        model: Changed in place.
        opset: Opset of the default domain.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for conv in [node for node in graph.node if node.op_type == "Conv" and len(node.input) == 2]:
        softmax = producer.get(conv.input[0])
        transpose = producer.get(softmax.input[0]) if softmax is not None else None
        if (
            conv.input[1] not in initializers
            or softmax is None
            or transpose is None
            or (softmax.op_type, transpose.op_type) != ("Softmax", "Transpose")
            or attribute(softmax, "axis", -1) != 1
            or _permutation(transpose) != [0, 2, 1, 3]
            or max(readers[softmax.output[0]], readers[transpose.output[0]]) > 1
        ):
            continue
        ramp = numpy_helper.to_array(initializers[conv.input[1]])
        if ramp.shape == (1, ramp.size, 1, 1) and is_bin_expectation(ramp):
            _replace(graph, [transpose, softmax, conv], ramp.ravel(), opset)


def join_splits(model: onnx.ModelProto) -> None:
    """Has every Concat that reads all outputs of a Split, in their order, read what was split instead, in place.

    TensorRT keeps no copy of a tensor that its producer can write into the Concat's result at once, but copies every
    slice of one: two copies in each C2f block of Ultralytics' detectors.

    Args:
        model: Changed in place.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    for concat in [node for node in model.graph.node if node.op_type == "Concat"]:
        inputs = list(concat.input)
        joined: list[str] = []
        while inputs:
            split = producer.get(inputs[0])
            parts = list(split.output) if split is not None and split.op_type == "Split" else []
            if split is not None and parts and inputs[: len(parts)] == parts and _axis(split) == _axis(concat):
                joined.append(split.input[0])
                inputs = inputs[len(parts) :]
            else:
                joined.append(inputs.pop(0))
        del concat.input[:]
        concat.input.extend(joined)


def _axis(node: onnx.NodeProto) -> float | int:
    return attribute(node, "axis", 0)


def _replace(graph: onnx.GraphProto, old: list[onnx.NodeProto], ramp: NDArray[np.float32], opset: int) -> None:
    stem, bins, output = old[-1].name, old[0].input[0], old[-1].output[0]
    constants: dict[str, NDArray[Any]] = {
        "sums": np.stack([ramp, np.ones_like(ramp)]).astype(np.float32),
        "halves": np.array([1, 1], np.int64),
        "shape": np.array([0, 1, 4, -1], np.int64),
        "axis": np.array([2], np.int64),
    }
    tensor, fresh = map(FreshNames, names_in(graph))
    names = {key: tensor(f"{stem}/{key}") for key in constants}
    peak, shifted, exp, both, top, bottom, mean = (
        tensor(f"{stem}/{key}") for key in ("max", "shifted", "exp", "both", "top", "bottom", "mean")
    )
    used = [key for key in constants if key != "axis" or opset >= 18]
    graph.initializer.extend(numpy_helper.from_array(constants[key], names[key]) for key in used)
    new = [
        helper.make_node("ReduceMax", [bins, names["axis"]], [peak], keepdims=1)
        if opset >= 18
        else helper.make_node("ReduceMax", [bins], [peak], axes=[2], keepdims=1),
        helper.make_node("Sub", [bins, peak], [shifted]),
        helper.make_node("Exp", [shifted], [exp]),
        helper.make_node("MatMul", [names["sums"], exp], [both]),
        helper.make_node("Split", [both, names["halves"]], [top, bottom], axis=2),
        helper.make_node("Div", [top, bottom], [mean]),
        helper.make_node("Reshape", [mean, names["shape"]], [output]),
    ]
    for node in new:
        node.name = fresh(f"{stem}/{node.op_type}")
    at = list(graph.node).index(old[-1])
    nodes = [*graph.node[:at], *new, *graph.node[at + 1 :]]
    drop = {node.name for node in old[:-1]}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.name not in drop)


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), [])
