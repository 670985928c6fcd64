"""Reads an ONNX file and brings it into one form (`normalisations`), with a fixed batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from search_spaces.errors import InputError
from search_spaces.external_data import bound_external_data
from search_spaces.float32 import as_float32, float_borders, is_narrow, sort_nodes
from search_spaces.names import FreshNames, names_in
from search_spaces.normalisations.constants import close_inputs, lift_constants
from search_spaces.normalisations.folding import fold_weights
from search_spaces.normalisations.functions import inline_functions
from search_spaces.normalisations.image_size import fix_image_size, stated_size
from search_spaces.normalisations.naming import name_nodes
from search_spaces.normalisations.spelling import spell_plainly
from search_spaces.plugins import name_plugins
from search_spaces.reading import is_file, read_sized

MAX_ONNX_BYTES = (1 << 31) - 1  # of a Protocol Buffers message
_QUANTIZED_OPS = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"}


@dataclass(frozen=True)
class ReadModel:
    """A model file in one form.

    Attributes:
        model: With a fixed batch.
        digest: SHA-256 of the file and of its external data, hex; another one for every batch above 1, and for an image
            size that was given to a file that leaves it open and does not state that one.
        narrow: Whether the file is in half precision, and the model was read as float32.
        sized: Height and width that the input got, pixels; None where the file fixes them, or nothing says them.
    """

    model: onnx.ModelProto
    digest: str
    narrow: bool
    sized: tuple[int, int] | None


def read_model(
    path: Path,
    allow_quantized: bool,
    batch: int,
    image_size: tuple[int, int] | None = None,
    own_types: bool = False,
) -> ReadModel:
    """Reads and normalises a model.

    Args:
        path: The ONNX file.
        allow_quantized: Accept one that holds Q/DQ nodes.
        batch: Images of one inference.
        image_size: Height and width, pixels, of an input that leaves them open; None for what its metadata states.
        own_types: Leave a half-precision model as it computes, with float32 borders.

    Raises:
        InputError: The file is missing, truncated, not an ONNX model, not a detector, already quantized or not float32.
    """
    model, digest, narrow = _load(path, allow_quantized, own_types)
    spell_plainly(model)
    name_plugins(model)
    name_nodes(model.graph)
    lift_constants(model.graph)
    fold_weights(model)
    _check_kernels(model.graph, path)
    _fix_batch(model.graph, path, batch)
    sized = fix_image_size(model, image_size)
    if batch > 1:
        digest = hashlib.sha256(f"{digest} batch {batch}".encode()).hexdigest()
    if sized is not None and sized != stated_size({entry.key: entry.value for entry in model.metadata_props}):
        digest = hashlib.sha256(f"{digest} image {sized[0]}x{sized[1]}".encode()).hexdigest()
    return ReadModel(model, digest, narrow, sized)


def dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Shape of a graph's input or output; open dimensions are 0."""
    return tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def _load(path: Path, allow_quantized: bool, own_types: bool) -> tuple[onnx.ModelProto, str, bool]:
    if not is_file(path):
        raise InputError(f"model {str(path)!r}: no such file; give the path of an ONNX detector")
    data = read_sized(path, MAX_ONNX_BYTES, "an ONNX file holds no more; export its weights as external data")
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises DecodeError, onnx its own; all mean the same to the user
        raise InputError(f"{path}: not an ONNX file, or truncated ({len(data)} bytes); export it again") from None
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX file, or without nodes; export it again")
    model = inline_functions(model, path)
    digest = hashlib.sha256(data)
    external = [t for t in _tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        bound_external_data(external, path)
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:
            raise InputError(f"{path}: external data cannot be read: {str(error).splitlines()[0]}") from None
        for tensor in external:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:  # nobody may read it later, from wherever we are then
                raise InputError(f"{path}: external data of {tensor.name!r} was not read; export it in one file")
            digest.update(tensor.raw_data)
    found = {node.op_type for node in model.graph.node} & _QUANTIZED_OPS
    if found and not allow_quantized:
        raise InputError(f"{path}: already quantized (it holds {', '.join(sorted(found))}); give the float model")
    sort_nodes(model.graph)
    close_inputs(model)
    narrow = is_narrow(model) and not found
    if narrow and not own_types:
        as_float32(model)
    else:
        float_borders(model)
    inputs = model.graph.input
    if len(inputs) != 1 or not (len(dims(inputs[0])) == 4 or _is_single(inputs[0])):
        shapes = ", ".join(f"{value.name}{list(dims(value))}" for value in inputs)
        raise InputError(
            f"{path}: not a detector: one image input [N, 3, H, W] is expected, found {shapes or 'none'}; "
            "export it with the image as its only input"
        )
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type).lower()
        raise InputError(f"{path}: input {inputs[0].name!r} is {kind}; export with float32 inputs and weights")
    return model, digest.hexdigest(), narrow


def _is_single(image: onnx.ValueInfoProto) -> bool:
    """Whether an input is one image without a batch, (3, H, W), as torchvision's detectors take it."""
    shape = dims(image)
    return len(shape) == 3 and shape[0] == 3


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph: initializers, attributes of nodes, and those of the graphs within."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for entry in node.attribute:
            yield from (entry.t, *entry.tensors, entry.sparse_tensor.values, entry.sparse_tensor.indices)
            for inner in (entry.g, *entry.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def _check_kernels(graph: onnx.GraphProto, path: Path) -> None:
    """Refuses convolutions whose weight has no kernel: onnx's shape inference ends the process over some of them."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 1:
            shape = shapes.get(node.input[1])
            if shape is not None and len(shape) < 3:
                raise InputError(
                    f"{path}: not a valid ONNX model: {node.op_type} {node.name!r} has a weight of shape {shape}, "
                    "which holds no kernel; export it again"
                )


def _fix_batch(graph: onnx.GraphProto, path: Path, batch: int) -> None:
    """Sets the batch, and drops inferred shapes, which may carry symbols.

    A model that was exported for one image holds that 1 in the shapes it reshapes and expands to as well.
    """
    first = graph.input[0].type.tensor_type.shape.dim[0]
    if _is_single(graph.input[0]):
        if batch > 1:
            raise InputError(f"{path}: takes one image, without a batch; export it with a batch, or give batch 1")
        first = onnx.TensorShapeProto.Dimension(dim_value=1)
    if first.dim_value > 1 and first.dim_value != batch:
        raise InputError(f"{path}: batch is fixed to {first.dim_value}; export with batch 1 or a dynamic batch")
    symbol, fixed = first.dim_param, first.dim_value
    first.dim_value = batch
    del graph.value_info[:]
    for value in graph.output:
        shape = value.type.tensor_type.shape
        if shape.dim and (not shape.dim[0].dim_value or shape.dim[0].dim_param == symbol or batch > 1):
            shape.dim[0].Clear()
    if fixed == 1 and batch > 1:
        _widen_shapes(graph, batch)


def _widen_shapes(graph: onnx.GraphProto, batch: int) -> None:
    """Replaces the leading 1 of every constant shape that a Reshape or Expand of activations goes to."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    fresh = FreshNames(names_in(graph)[0])
    for node in graph.node:
        if node.op_type not in ("Reshape", "Expand") or node.input[0] in constants or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]])
        if shape.size and shape[0] == 1:
            name = fresh(f"{node.name}/batch_shape")
            graph.initializer.append(numpy_helper.from_array(np.array([batch, *shape[1:]], np.int64), name))
            node.input[1] = name
