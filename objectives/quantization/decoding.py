"""Which nodes decode boxes."""

from __future__ import annotations

from search_spaces.model_graph import ModelGraph


def decoding(graph: ModelGraph) -> frozenset[str]:
    """Names of the nodes from which no quantizable layer can be reached, and that are none: box decoding.

    They compute coordinates in pixels, where an 8-bit step is a visible error, so they always stay in high precision.
    """
    layers = {layer.name for layer in graph.quantizable}
    above: set[str] = set()
    for node in reversed(list(graph.nodes())):
        readers = [reader.name for name in node.output for reader in graph.consumers.get(name, [])]
        if any(name in above or name in layers for name in readers):
            above.add(node.name)
    return frozenset(node.name for node in graph.nodes() if node.name not in above and node.name not in layers)
