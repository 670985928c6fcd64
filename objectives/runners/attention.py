"""Attention, which TensorRT 8 does not come back from building in int8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from objectives.runners.tensorrt_rules import parse_version
from search_spaces.model_graph import ModelGraph


def attention_layers(graph: ModelGraph) -> frozenset[str]:
    """Names of the quantizable layers of every attention, a product of two activations.

    Those whose results such a product takes (queries, keys, values), those that take the product's (the projection),
    and those beside it that lead from one to the other (the positional encoding of Ultralytics' attention).
    """
    layers = {layer.name for layer in graph.quantizable}
    products = [
        node
        for node in graph.nodes()
        if node.op_type == "MatMul" and not any(name in graph.initializers for name in node.input)
    ]
    before = {name for product in products for name in _nearest(graph, product, layers, up=True)}
    after = {name for product in products for name in _nearest(graph, product, layers, up=False)}
    beside = {
        node.name
        for node in graph.nodes()
        if node.name in layers
        and not before.isdisjoint(_nearest(graph, node, layers, up=True))
        and not after.isdisjoint(_nearest(graph, node, layers, up=False))
    }
    return frozenset(before | after | beside)


def never_built(graph: ModelGraph, version: str) -> dict[str, str]:
    """Layers that the builder must not be given in int8, for it would not come back.

    Measured: yolov10s wholly in int8 was still being built after 15 minutes by TensorRT 8.6 (level 1, H100), and took
    less than two with its attention in fp16.

    Args:
        graph: The unquantized model.
        version: TensorRT's.

    Returns:
        ``{layer: reason}``; empty from TensorRT 10 on.
    """
    if parse_version(version) >= (10, 0):
        return {}
    reason = f"TensorRT {version} does not come back from building attention in int8"
    return dict.fromkeys(sorted(attention_layers(graph)), reason)


def _nearest(graph: ModelGraph, start: onnx.NodeProto, layers: set[str], *, up: bool) -> Iterator[str]:
    """The first quantizable layers on every way up, or down, from a node; the node itself is none."""
    seen = {start.name}
    waiting = list(_neighbours(graph, start, up))
    while waiting:
        node = waiting.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.name in layers:
            yield node.name
        else:
            waiting.extend(_neighbours(graph, node, up))


def _neighbours(graph: ModelGraph, node: onnx.NodeProto, up: bool) -> Iterable[onnx.NodeProto]:
    if up:
        return [graph.producer[name] for name in node.input if name in graph.producer]
    return [reader for name in node.output for reader in graph.consumers.get(name, [])]
