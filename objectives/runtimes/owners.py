"""Finds the model layer that a layer of a compiled model belongs to, by the names that the compiler keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable

from search_spaces.model_graph import ModelGraph


class Owners:
    """Finds the model layer that an engine layer belongs to.

    Args:
        graph: The unquantized model.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.quantizable = tuple(layer.name for layer in graph.quantizable)
        ranks = {name: rank for rank, name in enumerate(self.quantizable)}
        above: dict[str, str] = {}
        self._owner: dict[str, str] = {}
        for node in graph.nodes():
            sources = [above[name] for name in node.input if above.get(name)]
            chosen = node.name if node.name in ranks else max(sources, key=ranks.__getitem__, default="")
            self._owner[node.name] = chosen
            for name in node.output:
                above[name] = self._owner[name] = chosen
        self._names = tuple(sorted((name for name in self._owner if name), key=len, reverse=True))

    def above(self, name: str) -> str:
        """The last quantizable layer at or above the first model node or tensor that `name` holds; else empty."""
        return self._owner.get(first_layer(name, self._names), "")


def first_layer(name: str, layers: Iterable[str]) -> str:
    """The first of `layers` that an engine layer's name holds as a whole name, else an empty string.

    Engine layers are named after the nodes that they fuse: ``/a/Conv + PWN(/a/Sigmoid, /a/Mul)``, or
    ``{ForeignNode[/a/MatMul.../b/Softmax]}``, with marks such as ``_clone_0`` or ``.weight`` behind a node's name.
    """
    best = ("", len(name))
    for layer in layers:
        at = _position(name, layer)
        if 0 <= at < best[1]:
            best = (layer, at)
    return best[0]


def _position(name: str, layer: str) -> int:
    """Where `layer` stands in `name` as a whole name; -1 where it does not."""
    at = name.find(layer)
    while at >= 0:
        before = name[at - 1] if at else " "
        after = name[at + len(layer)] if at + len(layer) < len(name) else " "
        rest = name[at + len(layer) :]
        begins = not re.match(r"[\w/.]", before) or name[:at].endswith("...")
        if begins and (not re.match(r"[\w/]", after) or rest.startswith(("_clone", "_output"))):
            return at
        at = name.find(layer, at + 1)
    return -1
