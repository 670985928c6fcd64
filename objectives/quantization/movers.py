"""Operators that only move elements, and what they move."""

from __future__ import annotations

from search_spaces.model_graph import ModelGraph

#: Their output's values are among their first input's, so it has no range of its own.
PASS_THROUGH = (
    "MaxPool",
    "Resize",
    "Transpose",
    "Reshape",
    "Split",
    "Slice",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
)


def root(graph: ModelGraph, tensor: str) -> str:
    """The tensor whose elements `tensor` holds: looks up through operators that only move elements."""
    while (node := graph.producer.get(tensor)) is not None and node.op_type in PASS_THROUGH:
        tensor = node.input[0]
    return tensor
