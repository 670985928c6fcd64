"""Local functions: exporters may write a module as a function of the model, and its layers inside."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner

from search_spaces.errors import InputError
from search_spaces.subgraphs import inner_graphs


def inline_functions(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Puts the nodes of every local function where it is called, so that the layers inside are layers of the graph.

    Args:
        model: Not changed.
        path: For messages.

    Raises:
        InputError: A function was written for an opset that cannot be brought to the model's.
    """
    if not model.functions:
        return model
    remedy = "export it without local functions"
    try:
        inlined = onnx.inliner.inline_local_functions(model, convert_version=True)
    except Exception as error:  # plain RuntimeErrors of C++
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: its local functions cannot be inlined ({line}); {remedy}") from None
    if inlined.functions:
        left = inlined.functions[0]
        raise InputError(f"{path}: its local function {left.domain}.{left.name} cannot be inlined; {remedy}")
    _drop_domains(inlined, {function.domain for function in model.functions})
    return inlined


def _drop_domains(model: onnx.ModelProto, domains: set[str]) -> None:
    """Drops the imports of domains that held nothing but functions."""
    kept = [entry for entry in model.opset_import if entry.domain not in domains - _domains(model.graph)]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = {node.domain for node in graph.node} | {"", "ai.onnx"}
    return found.union(*(_domains(inner) for node in graph.node for inner in inner_graphs(node)))
