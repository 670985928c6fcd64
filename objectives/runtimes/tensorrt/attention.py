"""Attention, which TensorRT 8 does not come back from building in int8."""

from __future__ import annotations

from objectives.runtimes.tensorrt.rules import strongly_typed
from search_spaces.formats import FORMATS
from search_spaces.model_graph import ModelGraph


def attention_layers(graph: ModelGraph) -> frozenset[str]:
    """Names of the quantizable layers of every attention, a product of two activations.

    Those whose results such a product takes (queries, keys, values), those that take the product's (the projection),
    and those beside it that lead from one to the other (the positional encoding of Ultralytics' attention).
    """
    layers = {layer.name for layer in graph.quantizable}
    before: set[str] = set()
    after: set[str] = set()
    mixed: set[str] = set()  # tensors that come from a product through no layer
    for node in graph.nodes():
        if node.op_type == "MatMul" and not any(name in graph.initializers for name in node.input):
            before |= graph.layers_above(node)
        elif mixed.isdisjoint(node.input):
            continue
        elif node.name in layers:
            after.add(node.name)
            continue
        mixed.update(node.output)
    behind = {layer for source, layer in graph.edges if source in before}
    ahead = {layer for layer, reader in graph.edges if reader in after}
    return frozenset(before | after | (behind & ahead))


def never_built(graph: ModelGraph, version: str) -> dict[tuple[str, str], str]:
    """Layers that the builder must not be given in int8, for it would not come back.

    Measured: yolov10s wholly in int8 was still being built after 15 minutes by TensorRT 8.6 (level 1, H100), and took
    less than two with its attention in fp16.

    Args:
        graph: The unquantized model.
        version: TensorRT's.

    Returns:
        ``{(layer, format): reason}``; empty from TensorRT 10 on.
    """
    if strongly_typed(version):
        return {}
    reason = f"TensorRT {version} does not come back from building attention in int8"
    integer = [name for name, fmt in FORMATS.items() if fmt.activation.is_integer]
    return {(layer, name): reason for layer in sorted(attention_layers(graph)) for name in integer}
