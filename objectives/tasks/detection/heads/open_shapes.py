"""Shapes that a graph computes from its input: exports with a dynamic batch leave them open, though they never vary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError
from search_spaces.limits import step
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import without_plugins

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def closed(graph: ModelGraph, image_size: tuple[int, int]) -> ModelGraph:
    """The graph with the shapes that its outputs, and what they are decoded from, have for one image.

    Args:
        graph: Run once where a shape of its outputs is open.
        image_size: Input height and width, pixels.

    Returns:
        A graph to look at; the same where nothing is open, or where it cannot be run here.
    """
    if not any(0 in shape for shape in graph.outputs.values()):
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(without_plugins(graph.model))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 3, *image_size)[-len(dims) :], strict=True):
        dim.dim_value = size
    made = {name for node in model.graph.node for name in node.output}
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(_tail(graph)) if name in made - known
    )
    try:
        running = step(graph.path, "running it once")
        with running, OnnxRuntimeRunner(model.SerializeToString(), threads=0) as runner:
            found = zip(runner.output_names, runner.infer(np.zeros((1, 3, *image_size), np.float32)), strict=True)
            values = [_value(name, np.asarray(value)) for name, value in found]
    except InputError:
        return graph
    return graph.with_known_shapes(values)


def _tail(graph: ModelGraph) -> Iterator[str]:
    """Tensors between the last layers and the outputs."""
    pending, seen = list(graph.outputs), set()
    while pending:
        name = pending.pop()
        node = graph.producer.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        yield name
        if node.op_type not in _LAYERS:
            pending += node.input


def _value(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    """A tensor as it was; a size of 0, of detections that there were none of, is left open."""
    sizes = [size or None for size in value.shape]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), sizes)
