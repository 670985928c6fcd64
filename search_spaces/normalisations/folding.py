"""What constants or shapes alone make is computed once, when the model is read.

Exporters store a weight transposed (TensorFlow), in fp16 behind a Cast, in two factors (weight normalisation), or as a
slice of a larger tensor. A layer whose weight is no initializer could not be quantized.

A model that was exported with dynamic axes computes its anchors anew for every image: 82 of the 210 kernels of
yolov8n's fp16 engine, where batch and image size are fixed (TensorRT 8.6, H200).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from search_spaces.names import FreshNames, names_in
from search_spaces.subgraphs import graph_reads, inner_graphs, reads

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
# Operators whose operands say how large their result is.
_SIZED = ("Expand", "Pad", "Reshape", "Resize", "Slice", "Tile", "Upsample")
_LARGEST = 2**28  # elements that an operator may make


def fold_weights(model: onnx.ModelProto) -> None:
    """Replaces what only constants make, and a layer reads as its weight or bias, by an initializer, in place.

    The initializer has the name of the tensor that it replaces. What cannot be computed here (quantized codes, random
    numbers, operators that are not ONNX's own) stays, and its layer is told to have no constant weight.

    Args:
        model: Its Constant nodes are initializers already, and its node names unique.
    """
    _fold(model, _operands(model.graph))


def fold_sizes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replaces what only constants make, and an operator of open shape is told by, by initializers, in place.

    PyTorch pads by amounts that it puts together from constants; behind such a Pad, shape inference knows nothing.

    Args:
        model: As `fold_weights` leaves it.
        shapes: ``{tensor: shape}`` of the tensors whose shape is static.

    Returns:
        Whether there was anything.
    """
    nodes = (node for node in model.graph.node if node.op_type in _SIZED and not node.domain)
    return _fold(model, (name for node in nodes if node.output[0] not in shapes for name in node.input[1:] if name))


def _fold(model: onnx.ModelProto, names: Iterable[str]) -> bool:
    """Folds those of the tensors that only constants make; tells whether there were any."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output if name}
    order = {node.name: rank for rank, node in enumerate(graph.node)}
    folded: dict[str, onnx.TensorProto] = {}
    cones: set[str] = set()
    for name in dict.fromkeys(names):
        cone = _cone(name, constants, producer) if name in producer and name not in folded else None
        if cone:
            tensor = _evaluate(model, sorted(cone, key=order.__getitem__), cone, constants, name)
            if tensor is not None:
                folded[name] = constants[name] = tensor
                cones.update(cone)
    if folded:
        _replace(graph, folded, producer, cones)
    return bool(folded)


def fold_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replaces what follows from the shapes of tensors, and else from constants, by initializers, in place.

    Args:
        model: As `fold_weights` leaves it.
        shapes: ``{tensor: shape}`` of the tensors whose shape is static.

    Returns:
        Whether there was anything.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output if name}
    outputs = {value.name for value in graph.output}
    read = set(graph_reads(graph)) - outputs
    folded: dict[str, onnx.TensorProto] = {}
    cones: set[str] = set()
    follows: set[str] = set()  # tensors that follow from shapes
    wanted: dict[str, None] = {}  # those of them that something else reads
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "Shape" and not node.domain else None
        if shape is not None and node.output[0] in read:
            bounds = {entry.name: entry.i for entry in node.attribute}
            part = np.array(shape[bounds.get("start") : bounds.get("end")], np.int64)
            folded[node.output[0]] = constants[node.output[0]] = numpy_helper.from_array(part, node.output[0])
            cones.add(node.name)
            follows.add(node.output[0])
        elif _foldable(node) and not follows.isdisjoint(node.input) and _known(node, constants, follows):
            follows.update(name for name in node.output if name)
        else:
            wanted.update(dict.fromkeys(name for name in reads(node) if name in follows and name not in outputs))
    if not folded:
        return False
    order = {node.name: rank for rank, node in enumerate(graph.node)}
    for name in (name for name in wanted if name not in folded):
        cone = _cone(name, constants, producer)
        if cone:
            tensor = _evaluate(model, sorted(cone, key=order.__getitem__), cone, constants, name)
            if tensor is not None:
                folded[name] = constants[name] = tensor
                cones.update(cone)
    _replace(graph, folded, producer, cones)
    del graph.value_info[:]  # of tensors that are gone, too
    return True


def _foldable(node: onnx.NodeProto) -> bool:
    return node.op_type not in _NEVER and not node.domain and not any(inner_graphs(node))


def _known(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], follows: set[str]) -> bool:
    return all(
        not name or name in follows or (name in constants and constants[name].data_type not in _CODES)
        for name in node.input
    )


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
        if node is None or not _foldable(node):
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
