"""Q/DQ placement for ONNX Runtime's CPU kernels.

ONNX Runtime fuses DQ -> op -> Q into one integer kernel, so a pair belongs on the inputs *and* the output of every
operator that is to run on integers, and a whole region of them must be covered or the Q/DQ nodes themselves cost more
than they save. Activations are unsigned (u8 x s8 kernels use VNNI). Source: ONNX Runtime, "Quantize ONNX models",
section on QDQ format; confirmed by measurement (docs: README, placement).
"""

from __future__ import annotations

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
from search_spaces.formats import NumberSpec
from search_spaces.model_graph import ModelGraph

# Operators with an integer kernel that may join a region; an operator that is missing stays in float.
_REGION_OPS = (
    *MOVERS,
    "Sigmoid",
    "Mul",
    "Add",
    "Concat",
    "LeakyRelu",
    "AveragePool",
    "GlobalAveragePool",
    "Softmax",
    "MatMul",
)
# Below this input SiLU is nearly 0 (-0.0025 at -8): a finer step for all other values is worth more.
_SILU_FLOOR = -8.0


class OnnxRuntimePlacement:
    """Finds the integer regions around the layers with integer activations.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
    """

    def __init__(self, graph: ModelGraph, table: CalibrationTable) -> None:
        self._graph = graph
        self._table = table
        decoding_nodes = decoding(graph)
        self._order = list(graph.nodes())
        self._weights = {layer.name: layer for layer in graph.layers if layer.weight}
        self._region = {
            node.name
            for node in self._order
            if node.op_type in _REGION_OPS
            and node.name not in decoding_nodes
            and node.name not in self._weights
            and ranges_known(graph, table, node)
        }

    def place(self, allocation: Allocation) -> Placement:
        """Decides every Q/DQ pair of one allocation."""
        graph = self._graph
        layers = integer_activations(allocation)
        common = widest(layers.values())
        integer = self._grow(set(layers))
        pairs, readers = float_reads(graph, self._table, allocation)
        rounded: dict[str, NumberSpec] = {}
        self._shared = shared_ranges(graph, self._table, integer)
        for node in self._order:
            number = layers.get(node.name, common)
            if node.name not in integer or number is None:
                continue
            inputs = [self._weights[node.name].input] if node.name in layers else activation_inputs(graph, node)
            for name in inputs:
                readers[node.name, name] = number
                pairs[name, number] = self._params(name, number)
            for name in node.output:
                pairs[name, number] = self._params(name, number)
                rounded[name] = number
        return Placement(pairs, readers, rounded, frozenset(integer), frozenset(layers))

    def _grow(self, layers: set[str]) -> set[str]:
        """Adds the operators that can join the integer layers."""
        graph = self._graph
        wanted = set(layers)
        for node in reversed(self._order):
            if node.name in self._region and any(reader.name in wanted for reader in self._readers(node)):
                wanted.add(node.name)
        integer = set(layers)
        for node in self._order:
            if node.name not in self._region:
                continue
            inputs = activation_inputs(graph, node)
            made = [name for name in inputs if self._maker(name) in integer]
            mixed = node.name in wanted and 2 * sum(map(self._elements, made)) >= sum(map(self._elements, inputs))
            if len(made) == len(inputs) or (made and mixed and node.op_type in ("Concat", "Add")):
                integer.add(node.name)
        # A mover whose readers all are integer nodes moves bytes instead of floats.
        for node in reversed(self._order):
            readers = self._readers(node)
            moves = node.op_type in MOVERS and node.name in self._region and readers
            if moves and all(reader.name in integer for reader in readers):
                integer.add(node.name)
        return integer

    def _params(self, tensor: str, number: NumberSpec) -> QuantParams:
        source = root(self._graph, tensor)
        node = self._graph.producer.get(source)
        if node is not None and node.op_type in ("Sigmoid", "Softmax"):
            return QuantParams.unsigned(0.0, 1.0, number)
        low, high = self._shared.get(source) or self._table.range(source)
        if self._feeds_silu_only(source):
            low = max(low, _SILU_FLOOR)
        return QuantParams.unsigned(low, high, number)

    def _feeds_silu_only(self, tensor: str) -> bool:
        readers = self._graph.consumers.get(tensor, [])
        sigmoid = [node for node in readers if node.op_type == "Sigmoid"]
        products = [node for node in readers if node.op_type == "Mul"]
        return len(readers) == 2 and len(sigmoid) == len(products) == 1 and sigmoid[0].output[0] in products[0].input

    def _readers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [reader for name in node.output for reader in self._graph.consumers.get(name, [])]

    def _maker(self, tensor: str) -> str:
        node = self._graph.producer.get(tensor)
        return node.name if node is not None else ""

    def _elements(self, tensor: str) -> int:
        size = 1
        for dim in self._graph.shapes.get(tensor, ()):
            size *= dim
        return size
