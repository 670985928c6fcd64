"""What a graph does to its pixels before the first layer."""

from __future__ import annotations

from objectives.tasks.detection.heads.structure import PASSING
from search_spaces.model_graph import ModelGraph

_PASSING = PASSING | {"Gather"}
_SCALING = {"Sub", "Div", "Mul", "Add", "BatchNormalization"}
_DEPTH = 8


def normalises_itself(graph: ModelGraph) -> bool:
    """Whether the image is shifted or scaled before any layer reads it."""
    tensor = graph.input
    for _ in range(_DEPTH):
        readers = graph.consumers.get(tensor, [])
        scaling = [node for node in readers if node.op_type in _SCALING]
        if scaling:
            return True
        passing = [node for node in readers if node.op_type in _PASSING]
        if not passing:
            return False
        tensor = passing[0].output[0]
    return False
