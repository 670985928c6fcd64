"""Shapes of all tensors of a model, and whether it is a valid one."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from search_spaces.subgraphs import inner_graphs


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infers the shapes of a model and checks it.

    Runtimes go by the operators and overrule a shape that a file declares, so a wrong one makes no invalid model.

    Args:
        model: Not changed.

    Raises:
        onnx.checker.ValidationError: It is not valid.
        onnx.shape_inference.InferenceError: Its operators contradict each other.
    """
    try:
        return _checked(model)
    except onnx.shape_inference.InferenceError:
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        for value in _declared(bare.graph):
            value.type.tensor_type.ClearField("shape")
        return _checked(bare)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def _declared(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """What a graph and the graphs within declare of tensors that operators make."""
    yield from (value for value in graph.output if value.type.HasField("tensor_type"))
    yield from (value for value in graph.value_info if value.type.HasField("tensor_type"))
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from _declared(inner)
