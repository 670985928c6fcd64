"""Which tensors get a Q/DQ pair, and who reads it: the vocabulary that every runtime's rules answer in."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import onnx

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.movers import PASS_THROUGH, root
from objectives.quantization.qdq import QuantParams
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, UNQUANTIZED, NumberSpec
from search_spaces.model_graph import ModelGraph

# Operators that only move elements: their output keeps the scale of their first input.
MOVERS = PASS_THROUGH


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ pairs go.

    Attributes:
        pairs: ``{(tensor, number format): parameters}``; at most one pair per tensor and number format.
        readers: ``{(node name, tensor): number format}``: inputs that read a pair instead of the tensor.
        rounded: ``{tensor: number format}`` whose pair every other reader reads too, because an integer kernel makes
            the tensor.
        integer_nodes: Names of the nodes that run on integers.
        integer_bias: Names of the layers whose bias is stored as int32.
    """

    pairs: Mapping[tuple[str, NumberSpec], QuantParams]
    readers: Mapping[tuple[str, str], NumberSpec]
    rounded: Mapping[str, NumberSpec]
    integer_nodes: frozenset[str]
    integer_bias: frozenset[str] = field(default_factory=frozenset)


class PlacementRules(Protocol):
    """The rules of one runtime."""

    def place(self, allocation: Allocation) -> Placement:
        """Decides every Q/DQ pair of one allocation."""


def activation_inputs(graph: ModelGraph, node: onnx.NodeProto) -> list[str]:
    """The inputs of a node that carry image data; of a mover only the first (the others are shapes or indices)."""
    names = node.input[:1] if node.op_type in MOVERS else node.input
    return [name for name in names if name and name not in graph.initializers]


def ranges_known(graph: ModelGraph, table: CalibrationTable, node: onnx.NodeProto) -> bool:
    """Whether all the data that an operator reads and makes are activations with a measured range."""
    read = node.input[:1] if node.op_type in MOVERS else node.input
    known = table.ranges[table.method]
    return all(root(graph, name) in known for name in (*read, *node.output))


def integer_activations(allocation: Allocation) -> dict[str, NumberSpec]:
    """``{layer: number format of its data input}`` of the layers that compute on integers."""
    found = {name: FORMATS[fmt].activation for name, fmt in allocation.items}
    return {name: number for name, number in found.items() if number.is_integer}


def float_reads(
    graph: ModelGraph, table: CalibrationTable, allocation: Allocation
) -> tuple[dict[tuple[str, NumberSpec], QuantParams], dict[tuple[str, str], NumberSpec]]:
    """Pairs and readers of the layers whose data input is a narrow float; the same on every runtime."""
    pairs: dict[tuple[str, NumberSpec], QuantParams] = {}
    readers: dict[tuple[str, str], NumberSpec] = {}
    for layer in graph.quantizable:
        number = FORMATS[allocation.formats.get(layer.name, UNQUANTIZED)].activation
        if number.quantized and not number.is_integer:
            low, high = table.range(root(graph, layer.input))
            pairs[layer.input, number] = QuantParams.symmetric(low, high, number)
            readers[layer.name, layer.input] = number
    return pairs, readers


def widest(numbers: Iterable[NumberSpec]) -> NumberSpec | None:
    """The one with the most bits, for operators between layers of several; None of none."""
    return max(numbers, key=lambda number: number.bits, default=None)


def shared_ranges(
    graph: ModelGraph, table: CalibrationTable, integer_nodes: Container[str]
) -> dict[str, tuple[float, float]]:
    """One range over all inputs and the output of each integer Concat, so that it copies bytes.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
        integer_nodes: Names of the nodes that run on integers.

    Returns:
        ``{root tensor: (low, high)}`` of the tensors that a Concat ties together; Concats that share a tensor are
        tied together too.
    """
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in graph.nodes():
        if node.op_type == "Concat" and node.name in integer_nodes:
            for name in node.input:
                parent[find(root(graph, name))] = find(node.output[0])
    members: dict[str, list[str]] = {}
    for name in parent:
        members.setdefault(find(name), []).append(name)
    found: dict[str, tuple[float, float]] = {}
    for names in members.values():
        ranges = [table.range(name) for name in names]
        union = min(low for low, _ in ranges), max(high for _, high in ranges)
        found.update({name: union for name in names})
    return found
