"""Names in an ONNX graph: which are taken, and fresh ones for what is added."""

from __future__ import annotations

from collections.abc import Iterable

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


def names_in(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Names of all tensors, and of all nodes, of a graph and of the graphs within."""
    tensors = {value.name for values in (graph.input, graph.output, graph.initializer) for value in values}
    tensors.update(sparse.values.name for sparse in graph.sparse_initializer)
    nodes = set()
    for node in graph.node:
        nodes.add(node.name)
        tensors.update(node.output)
        for inner in inner_graphs(node) if node.attribute else ():
            inner_tensors, inner_nodes = names_in(inner)
            tensors |= inner_tensors
            nodes |= inner_nodes
    return tensors, nodes
