"""Constants: whatever form an exporter gives them, they become initializers, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from search_spaces.subgraphs import rename_reads

# Forms of a Constant node besides `value`. Source: ONNX operators, Constant.
_FORMS: Mapping[str, Callable[[onnx.AttributeProto], Any]] = {
    "value_float": lambda entry: np.float32(entry.f),
    "value_floats": lambda entry: np.asarray(entry.floats, np.float32),
    "value_int": lambda entry: np.int64(entry.i),
    "value_ints": lambda entry: np.asarray(entry.ints, np.int64),
}
_FIXED_IR = 4  # from here on an initializer need not be listed as an input


def close_inputs(model: onnx.ModelProto) -> None:
    """Takes the initializers off the list of inputs, where old exporters put them, and fills sparse ones, in place.

    An initializer that is an input as well may be given another value at any inference: it could not be quantized.
    """
    graph = model.graph
    graph.initializer.extend(map(_dense, graph.sparse_initializer))
    del graph.sparse_initializer[:]
    known = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in known]
    if len(inputs) < len(graph.input):
        model.ir_version = max(model.ir_version, _FIXED_IR)
        del graph.input[:]
        graph.input.extend(inputs)


def lift_constants(graph: onnx.GraphProto) -> None:
    """Turns Constant nodes into initializers, and looks through Identity of an initializer, in place."""
    keep: list[onnx.NodeProto] = []
    alias: dict[str, str] = {}
    initializers = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        tensor = _value(node) if node.op_type == "Constant" and node.output[0] not in outputs else None
        if tensor is not None:
            graph.initializer.append(tensor)
            initializers.add(tensor.name)
        elif node.op_type == "Identity" and node.input[0] in initializers and node.output[0] not in outputs:
            alias[node.output[0]] = alias.get(node.input[0], node.input[0])
            initializers.add(node.output[0])
        else:
            keep.append(node)
    if alias:
        for node in keep:
            rename_reads(node, alias)
    del graph.node[:]
    graph.node.extend(keep)


def _value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node makes, named as its output; None of text."""
    for entry in node.attribute:
        if entry.name in ("value", "sparse_value"):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(entry.t if entry.name == "value" else _dense(entry.sparse_tensor))
            tensor.name = node.output[0]
            return tensor
        if entry.name in _FORMS:
            return numpy_helper.from_array(np.asarray(_FORMS[entry.name](entry)), node.output[0])
    return None


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """A sparse tensor with its zeros."""
    values = numpy_helper.to_array(sparse.values)
    places = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 2:  # a row of coordinates for each value
        dense[tuple(places.T)] = values
    else:
        dense.reshape(-1)[places] = values
    return numpy_helper.from_array(dense, sparse.values.name)
