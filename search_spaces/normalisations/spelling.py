"""What may be written in two ways, and is read in one: ONNX's own domain, and optional tensors that are left out."""

from __future__ import annotations

from collections.abc import MutableSequence

import onnx

from search_spaces.subgraphs import inner_graphs


def spell_plainly(model: onnx.ModelProto) -> None:
    """Writes ONNX's own domain as an empty name, and drops empty names at the end of inputs and outputs, in place.

    onnx's checker knows no operator of ``ai.onnx``, its other name. ONNX Runtime 1.24 fails to run an integer MaxPool
    whose second output is there by an empty name.
    """
    for entry in model.opset_import:
        _spell_domain(entry)
    _spell_nodes(model.graph)


def _spell_nodes(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        _spell_domain(node)
        _drop_empty(node.input)
        _drop_empty(node.output)
        for inner in inner_graphs(node):
            _spell_nodes(inner)


def _spell_domain(entry: onnx.NodeProto | onnx.OperatorSetIdProto) -> None:
    if entry.domain == "ai.onnx":  # an empty name that is written down makes other bytes than none
        entry.domain = ""


def _drop_empty(names: MutableSequence[str]) -> None:
    while names and not names[-1]:
        del names[-1]
