"""Reads a half-precision model as float32: the same numbers, without the rounding on their way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that hold a type.
_TYPES = ("to", "dtype", "stash_type")


def is_narrow(model: onnx.ModelProto) -> bool:
    """Whether a model computes or stores in half precision: by an initializer, a Cast, a constant, or its borders."""
    return any(
        any(tensor.data_type in _NARROW for tensor in graph.initializer)
        or any(value.type.tensor_type.elem_type in _NARROW for value in (*graph.input, *graph.output))
        or any(_narrow_attribute(entry) for node in graph.node for entry in node.attribute)
        for graph in _graphs(model.graph)
    )


def as_float32(model: onnx.ModelProto) -> None:
    """Turns all half-precision values of a model into float32, in place, and drops the Casts that do nothing then.

    Args:
        model: Sorted or not; without quantized nodes, whose scales decide types of their own.
    """
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            _widen(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _NARROW:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for entry in node.attribute:
                for tensor in (entry.t, *entry.tensors):
                    _widen(tensor)
                if entry.name in _TYPES and entry.i in _NARROW:
                    entry.i = TensorProto.FLOAT
    sort_nodes(model.graph)
    _drop_casts(model)


def float_borders(model: onnx.ModelProto) -> None:
    """Gives a model float32 inputs and outputs, in place: a Cast stands where they were in half precision."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    narrow = [value for value in inputs if value.type.tensor_type.elem_type in _NARROW]
    first = []
    for value in narrow:
        inner = f"{value.name}_as_read"
        first.append(helper.make_node("Cast", [value.name], [inner], f"{inner}_Cast", to=_set_float(value)))
        _rename_reads(graph.node, {value.name: inner})
    last = []
    for value in graph.output:
        if value.type.tensor_type.elem_type in _NARROW:
            _set_float(value)
            inner = f"{value.name}_as_made"
            for node in graph.node:
                node.output[:] = [inner if name == value.name else name for name in node.output]
            _rename_reads(graph.node, {value.name: inner})
            last.append(helper.make_node("Cast", [inner], [value.name], f"{inner}_Cast", to=TensorProto.FLOAT))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts nodes after what they read, in place; a graph that is in order stays as it is.

    Nodes of a cycle stay last, where the checker finds them.
    """
    makers = {name for node in graph.node for name in node.output}
    known: set[str] = set()
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        late = []
        for node in waiting:
            if all(name in known or name not in makers for name in _reads(node)):
                ordered.append(node)
                known.update(node.output)
            else:
                late.append(node)
        if len(late) == len(waiting):
            ordered += late
            break
        waiting = late
    if any(one is not other for one, other in zip(ordered, graph.node, strict=True)):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def _drop_casts(model: onnx.ModelProto) -> None:
    """Removes Casts of float32 to float32; an output of the model keeps its name."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    outputs = {value.name for value in graph.output}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        same = node.op_type == "Cast" and node.input[0] in floats and node.output[0] in floats
        if not same:
            kept.append(node)
        elif node.output[0] in outputs:
            node.op_type = "Identity"
            del node.attribute[:]
            kept.append(node)
        else:
            alias[node.output[0]] = alias.get(node.input[0], node.input[0])
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    _rename_reads(kept, alias)
    del graph.node[:]
    graph.node.extend(kept)
    dropped = [value for value in graph.value_info if value.name not in alias]
    del graph.value_info[:]
    graph.value_info.extend(dropped)


def _rename_reads(nodes: Sequence[onnx.NodeProto], names: dict[str, str]) -> None:
    """Has nodes, and those of the graphs within them, read other tensors."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        for graph in _inner(node):
            made = {value.name for value in graph.input} | {name for step in graph.node for name in step.output}
            _rename_reads(graph.node, {old: new for old, new in names.items() if old not in made})


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and the graphs within it."""
    yield from node.input
    for graph in _inner(node):
        for step in graph.node:
            yield from _reads(step)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and all those within it."""
    yield graph
    for node in graph.node:
        for inner in _inner(node):
            yield from _graphs(inner)


def _inner(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for entry in node.attribute for g in (entry.g, *entry.graphs) if g.node or g.output]


def _narrow_attribute(entry: onnx.AttributeProto) -> bool:
    held = any(tensor.data_type in _NARROW for tensor in (entry.t, *entry.tensors))
    return held or (entry.name in _TYPES and entry.i in _NARROW)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        values = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _set_float(value: onnx.ValueInfoProto) -> int:
    """Makes a border float32, and returns what it was."""
    kind = int(value.type.tensor_type.elem_type)
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    return kind
