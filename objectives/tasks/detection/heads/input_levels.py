"""What a model takes for pixels: shares of the brightest level, or levels 0..255 that its graph divides by itself."""

from __future__ import annotations

import numpy as np

from search_spaces.model_graph import ModelGraph

_MOVING = {"Identity", "Cast", "Transpose", "Slice", "Gather", "Split", "Concat", "QuantizeLinear", "DequantizeLinear"}
_DEPTH = 12
_LARGE = 64.0  # a mean or a divisor of levels is larger, one of shares far below


def takes_levels(graph: ModelGraph) -> bool:
    """Whether the first thing that a graph does to its image is a division by about 255, or minus a mean of levels."""
    tensor = graph.input
    for _ in range(_DEPTH):
        readers = graph.consumers.get(tensor, [])
        if not readers or len({node.op_type for node in readers}) > 1:
            return False
        node = readers[0]
        if node.op_type not in _MOVING:
            constants = [graph.initializers[name] for name in node.input if name in graph.initializers]
            size = float(np.abs(constants[0]).max()) if constants and constants[0].size else 0.0
            if node.op_type == "Mul":
                return 0 < size < 1 / _LARGE
            return node.op_type in ("Div", "Sub") and node.input[0] == tensor and size > _LARGE
        tensor = node.output[0]
    return False
