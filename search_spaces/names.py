"""Names in an ONNX graph: which are taken, and fresh ones for what is added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from search_spaces.subgraphs import inner_graphs


class FreshNames:
    """Hands out names that nothing else has.

    Args:
        taken: Names that are in use.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def __call__(self, wanted: str) -> str:
        """Returns `wanted`, or with a number behind it where that is taken, and takes it."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


def tensor_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all tensors of a graph and of the graphs within."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from node.output
        for inner in inner_graphs(node):
            yield from tensor_names(inner)


def node_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all nodes of a graph and of the graphs within."""
    for node in graph.node:
        yield node.name
        for inner in inner_graphs(node):
            yield from node_names(inner)
