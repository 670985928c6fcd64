"""Weights that reach their layer through other operators are computed once, when the model is read.

Exporters store a weight transposed (TensorFlow), in fp16 behind a Cast, in two factors (weight normalisation), or as a
slice of a larger tensor. A layer whose weight is no initializer could not be quantized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from search_spaces.names import FreshNames, names_in
from search_spaces.subgraphs import graph_reads, inner_graphs

LAYER_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Codes of a quantized weight, which are not to be unpacked.
_CODES = frozenset(
    TensorProto.DataType.Value(name)
    for name in TensorProto.DataType.keys()  # noqa: SIM118 (no mapping)
    if name.startswith(("INT4", "UINT4", "INT8", "UINT8", "INT2", "UINT2", "FLOAT8", "FLOAT4"))
)
# Not the same in every run, or made to stay where they are.
_NEVER = (
    *LAYER_OPS,
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QuantizeLinear",
)
_LARGEST = 2**28  # elements that an operator may make


def fold_weights(model: onnx.ModelProto) -> None:
    """Replaces what only constants make, and a layer reads as its weight or bias, by an initializer, in place.

    The initializer has the name of the tensor that it replaces. What cannot be computed here (quantized codes, random
    numbers, operators that are not ONNX's own) stays, and its layer is told to have no constant weight.

    Args:
        model: Its Constant nodes are initializers already, and its node names unique.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output if name}
    order = {node.name: rank for rank, node in enumerate(graph.node)}
    folded: dict[str, onnx.TensorProto] = {}
    cones: set[str] = set()
    for name in dict.fromkeys(_operands(graph)):
        cone = _cone(name, constants, producer) if name in producer and name not in folded else None
        if cone:
            tensor = _evaluate(model, sorted(cone, key=order.__getitem__), cone, constants, name)
            if tensor is not None:
                folded[name] = constants[name] = tensor
                cones.update(cone)
    if folded:
        _replace(graph, folded, producer, cones)


def _operands(graph: onnx.GraphProto) -> Iterator[str]:
    """What layers read as weight and bias; a MatMul either way round."""
    for node in graph.node:
        if node.op_type in LAYER_OPS and not node.domain:
            yield from (name for name in node.input[0 if node.op_type == "MatMul" else 1 :] if name)


def _cone(
    name: str, constants: dict[str, onnx.TensorProto], producer: dict[str, onnx.NodeProto]
) -> dict[str, onnx.NodeProto] | None:
    """``{node name: node}`` of all that a tensor is computed by; None where that is not constants alone."""
    cone: dict[str, onnx.NodeProto] = {}
    pending = [name]
    while pending:
        current = pending.pop()
        if current in constants:
            if constants[current].data_type in _CODES:
                return None
            continue
        node = producer.get(current)
        if node is None or node.op_type in _NEVER or node.domain or any(inner_graphs(node)):
            return None
        if node.name not in cone:
            cone[node.name] = node
            pending.extend(each for each in node.input if each)
    return cone


def _evaluate(
    model: onnx.ModelProto,
    order: list[str],
    cone: dict[str, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
    name: str,
) -> onnx.TensorProto | None:
    """Computes a tensor with ONNX's reference implementation; None where that cannot."""
    from onnx.reference import ReferenceEvaluator  # slow to import, and seldom needed

    nodes = [cone[each] for each in order]
    used = {each for node in nodes for each in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "weight",
        [],
        [onnx.ValueInfoProto(name=name)],
        [tensor for each, tensor in constants.items() if each in used],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
    try:
        inferred = onnx.shape_inference.infer_shapes(part, data_prop=True).graph
        for value in (*inferred.value_info, *inferred.output):
            if np.prod([float(dim.dim_value) for dim in value.type.tensor_type.shape.dim]) > _LARGEST:
                return None
        (array,) = ReferenceEvaluator(part).run(None, {})
    except Exception:  # each operator fails in its own way; the layer is told to have no constant weight then
        return None
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(np.shape(array)), name)


def _replace(
    graph: onnx.GraphProto,
    folded: dict[str, onnx.TensorProto],
    producer: dict[str, onnx.NodeProto],
    cones: set[str],
) -> None:
    """Puts initializers in the place of tensors, and drops the nodes and initializers that nothing reads any more."""
    fresh = FreshNames(names_in(graph)[0])
    for name in folded:
        node = producer[name]  # it may stay for the sake of its other outputs
        node.output[list(node.output).index(name)] = fresh(f"{name}_folded")
    graph.initializer.extend(folded.values())
    readers = Counter(graph_reads(graph))
    touched: set[str] = set()
    keep: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if node.name in cones and not any(readers[name] for name in node.output):
            readers.subtract(node.input)
            touched.update(node.input)
        else:
            keep.append(node)
    del graph.node[:]
    graph.node.extend(reversed(keep))
    kept = [tensor for tensor in graph.initializer if readers[tensor.name] or tensor.name not in touched]
    del graph.initializer[:]
    graph.initializer.extend(kept)
