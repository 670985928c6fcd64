"""Graphs inside nodes (the branches of an If, the body of a Loop), which read tensors of the graph around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds."""
    for entry in node.attribute:
        if entry.type == onnx.AttributeProto.GRAPH:
            yield entry.g
        elif entry.type == onnx.AttributeProto.GRAPHS:
            yield from entry.graphs


def reads(node: onnx.NodeProto) -> list[str]:
    """Names of the tensors that a node reads: its inputs, and what its inner graphs read from outside."""
    found = list(node.input)
    for inner in inner_graphs(node):
        own = _defined(inner)
        found.extend(name for name in graph_reads(inner) if name not in own)
    return found


def graph_reads(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the tensors that anything in a graph reads, its outputs included."""
    for node in graph.node:
        yield from reads(node)
    yield from (value.name for value in graph.output)


def rename_reads(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Has a node and its inner graphs read other tensors.

    Args:
        node: Changed in place.
        names: ``{tensor: tensor to be read in its place}``.
    """
    for index, name in enumerate(node.input):
        if name in names:
            node.input[index] = names[name]
    for inner in inner_graphs(node):
        own = _defined(inner)
        outer = {name: target for name, target in names.items() if name not in own} if own & set(names) else names
        for each in inner.node:
            rename_reads(each, outer)


def _defined(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.initializer)}
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    return names.union(*(node.output for node in graph.node))
