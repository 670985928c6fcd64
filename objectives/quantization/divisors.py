"""Tensors whose least values decide: what is divided by, or taken a logarithm of, and what those are computed from."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx

from objectives.quantization.movers import root
from search_spaces.model_graph import ModelGraph

# The inputs whose relative precision near zero shows in the result.
_DIVISOR = {"Div": 1, "Reciprocal": 0, "Log": 0}
# What a small result of theirs is made of is small itself.
_SCALING = ("Mul", "Div", "Sqrt", "Pow", "Abs", "Neg", "Relu", "Clip", "Max", "Min", "Identity", "Expand", "Concat")
_SUMMING = ("Add", "Sum", "ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMax")


def divided_by(graph: ModelGraph, node: onnx.NodeProto) -> str | None:
    """The input of a node that must keep its relative precision near zero; None where there is none."""
    if node.op_type == "Pow" and len(node.input) > 1:
        power = graph.initializers.get(node.input[1])
        return node.input[0] if power is None or bool(np.any(np.signbit(power))) else None
    index = _DIVISOR.get(node.op_type)
    return node.input[index] if index is not None else None


def computed_from(graph: ModelGraph, tensor: str) -> list[str]:
    """The activations, by their roots, whose own smallness is in a small tensor."""
    node = graph.producer.get(tensor)
    if node is None or node.op_type not in (*_SCALING, *_SUMMING):
        return []
    return [root(graph, name) for name in node.input if name and name not in graph.initializers]


@lru_cache(maxsize=4)
def divisors(graph: ModelGraph) -> frozenset[str]:
    """Roots of every divisor, and of what it is computed from, up to the layers' outputs."""
    queue = [name for node in graph.nodes() if (name := divided_by(graph, node)) and name not in graph.initializers]
    found: set[str] = set()
    while queue:
        tensor = root(graph, queue.pop())
        if tensor not in found:
            found.add(tensor)
            queue += computed_from(graph, tensor)
    return frozenset(found)
