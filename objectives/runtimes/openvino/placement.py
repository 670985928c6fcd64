"""Q/DQ placement for OpenVINO's low precision transformations.

OpenVINO takes a layer for an integer one where its data input and its weight come out of dequantization, fuses what
follows it (SiLU and other activations, then the quantization of whoever reads the result) into the same kernel, and
moves dequantization through operators that only move elements. So a pair belongs on the inputs of layers and of the
additions beside them, at the first tensor that holds the elements: behind Split, MaxPool, Resize and Concat it would be
a second one of the same scale, and between a Conv and its activation it would tear the two apart. Activations are
unsigned and asymmetric. Source: OpenVINO, "OpenVINO Low Precision Transformations"; confirmed by measurement.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.decoding import decoding
from objectives.quantization.movers import root
from objectives.quantization.placement import (
    MOVERS,
    Placement,
    activation_inputs,
    float_reads,
    integer_activations,
    ranges_known,
    shared_ranges,
    widest,
)
from objectives.quantization.qdq import QuantParams
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

# Operators through which dequantization moves; an Add computes on its two dequantized inputs.
_CARRIERS = (*MOVERS, "Concat")


class OpenVinoPlacement:
    """Pairs where integers begin: on the first tensor of what integer layers and the additions beside them read.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
    """

    def __init__(self, graph: ModelGraph, table: CalibrationTable) -> None:
        self._graph = graph
        self._table = table
        late = decoding(graph)
        self._inputs = {layer.name: layer.input for layer in graph.quantizable}
        self._order = list(graph.nodes())
        self._joins = {
            node.name
            for node in self._order
            if node.op_type in (*_CARRIERS, "Add") and node.name not in late and ranges_known(graph, table, node)
        }

    def place(self, allocation: Allocation) -> Placement:
        """Decides every Q/DQ pair of one allocation."""
        graph = self._graph
        layers = integer_activations(allocation)
        common = widest(layers.values())
        pairs, readers = float_reads(graph, self._table, allocation)
        integer = self._grow(layers)
        carried = {
            name for node in self._order if node.name in integer and node.op_type in _CARRIERS for name in node.output
        }
        shared = shared_ranges(graph, self._table, integer)
        for node in self._order:
            number = layers.get(node.name, common)
            if node.name not in integer or number is None:
                continue
            for name in self._reads(node):
                if name not in carried:
                    source = root(graph, name)
                    low, high = shared.get(source) or self._table.range(source)
                    pairs[name, number] = QuantParams.unsigned(low, high, number)
                    readers[node.name, name] = number
        return Placement(pairs, readers, {}, frozenset(integer))

    def _grow(self, layers: Collection[str]) -> set[str]:
        """Adds the additions whose sum integer nodes read, and the operators that move elements to those alone."""
        integer = set(layers)
        for node in reversed(self._order):
            if node.name not in self._joins:
                continue
            taken = [
                self._takes(reader, name, integer)
                for name in node.output
                for reader in self._graph.consumers.get(name, [])
            ]
            # A float reader behind an operator that moves integers would read rounded values for nothing.
            if any(taken) if node.op_type == "Add" else taken and all(taken):
                integer.add(node.name)
        return integer

    def _takes(self, reader: onnx.NodeProto, tensor: str, integer: Collection[str]) -> bool:
        return reader.name in integer and tensor in self._reads(reader)

    def _reads(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of an integer node that are dequantized, weights aside."""
        return [self._inputs[node.name]] if node.name in self._inputs else activation_inputs(self._graph, node)
