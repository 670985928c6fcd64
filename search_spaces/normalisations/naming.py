"""Node names: every node gets one, and no two the same."""

from __future__ import annotations

import onnx

from search_spaces.names import FreshNames


def name_nodes(graph: onnx.GraphProto) -> None:
    """Names the nodes without a name, and all but the first of those that share one, in place."""
    fresh = FreshNames(node.name for node in graph.node)
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = fresh(f"{node.name or node.op_type}_{index}")
        seen.add(node.name)
