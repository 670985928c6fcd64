"""Exact rearrangements that OpenVINO's CPU kernels run faster."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from objectives.quantization.rewrites import rewrite_dfl
from search_spaces.model_graph import attribute
from search_spaces.names import FreshNames, names_in

# Between these, OpenVINO 2026.4 turns channels-last into channels-first by a plain loop instead of oneDNN's kernel.
_SLOW_CHANNELS = range(16, 65)


def rearranged(model: onnx.ModelProto, opset: int) -> None:
    """Both rearrangements of this runtime: the DFL as a matrix product, and box bins transposed by a kernel."""
    rewrite_dfl(model, opset)
    transpose_flattened(model)


def transpose_flattened(model: onnx.ModelProto) -> None:
    """Has a Conv's result of few channels that is flattened to ``(N, C, H W)`` transposed by a Transpose, in place.

    OpenVINO's kernels write channels last, and the flattening wants channels first. Of the 64 channels of a YOLO
    head's box bins that conversion took 1.0 ms of 18.2 (yolov8n, int8, 640 px, one thread of an AMD EPYC 9005), as a
    Transpose it takes 0.5.

    Args:
        model: Changed in place.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    tensor, fresh = map(FreshNames, names_in(graph))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        channels = _flattened_channels(node, producer, constants, batch)
        if channels not in _SLOW_CHANNELS:
            nodes.append(node)
            continue
        source, stem = node.input[0], node.name
        last, flat = tensor(f"{source}/last"), tensor(f"{source}/flat")
        shape: NDArray[np.int64] = np.array([0, -1, channels], np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, tensor(f"{stem}/shape")))
        # The first keeps the name: whatever pair the Reshape was to read, it reads.
        nodes += [
            helper.make_node("Transpose", [source], [last], name=stem, perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [last, graph.initializer[-1].name], [flat], name=fresh(f"{stem}/Reshape")),
            helper.make_node("Transpose", [flat], [node.output[0]], name=fresh(f"{stem}/Transpose"), perm=[0, 2, 1]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _flattened_channels(
    node: onnx.NodeProto,
    producer: dict[str, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
    batch: int,
) -> int:
    """Channels of a Conv's result that a node flattens to ``(N, C, H W)``; 0 of any other node."""
    made = producer.get(node.input[0]) if node.op_type == "Reshape" else None
    if made is None or made.op_type != "Conv" or node.input[1] not in constants or made.input[1] not in constants:
        return 0
    weight, shape = constants[made.input[1]].dims, numpy_helper.to_array(constants[node.input[1]]).tolist()
    if len(weight) != 4 or len(shape) != 3 or shape[1] != weight[0] or attribute(node, "allowzero", 0):
        return 0
    return int(weight[0]) if shape[0] == 0 or (batch > 0 and shape[0] == batch) else 0
