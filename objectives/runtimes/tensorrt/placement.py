"""Q/DQ placement for TensorRT's explicit quantization.

Rules followed (NVIDIA, TensorRT developer guide, "Working with quantized types", Q/DQ layer-placement recommendations):
quantize the inputs of weighted layers and their weights, never their outputs; symmetric signed int8; leave SiLU to the
convolution that it fuses with; quantize what is added to an int8 layer's result where the sum is read as int8, so that
the addition fuses; give all inputs of a Concat one scale, so that Q moves through it without a second quantization.
`fusion_rules.check_fusion` checks the outcome.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.movers import root
from objectives.quantization.placement import (
    MOVERS,
    Placement,
    float_reads,
    integer_activations,
    shared_ranges,
    widest,
)
from objectives.quantization.qdq import QuantParams
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

_POINTWISE = ("Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "HardSwish")


class TensorRtPlacement:
    """Pairs on the inputs of int8 layers and of the additions beside them.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
    """

    def __init__(self, graph: ModelGraph, table: CalibrationTable) -> None:
        self._graph = graph
        self._table = table
        self._layer_names = {layer.name for layer in graph.quantizable}
        self._backwards = list(graph.nodes())[::-1]

    def place(self, allocation: Allocation) -> Placement:
        """Decides every Q/DQ pair of one allocation."""
        int8 = integer_activations(allocation)
        common = widest(int8.values())
        pairs, readers = float_reads(self._graph, self._table, allocation)
        # A dict for its order: equal allocations must give equal bytes.
        reads = {(layer.name, layer.input): None for layer in self._graph.quantizable if layer.name in int8}
        self._add_sums(int8, reads)
        shared = shared_ranges(self._graph, self._table, self._concats_read_by({tensor for _, tensor in reads}))
        for node, tensor in reads:
            source = root(self._graph, tensor)
            low, high = shared.get(source) or self._table.range(source)
            number = int8.get(node, common)
            assert number is not None  # an Add has a pair only beside an integer layer
            pairs[tensor, number] = QuantParams.symmetric(low, high, number)
            readers[node, tensor] = number
        return Placement(pairs, readers, {}, frozenset(int8))

    def _add_sums(self, int8: Collection[str], reads: dict[tuple[str, str], None]) -> None:
        """Adds the inputs of the Adds that can run on integers: an int8 layer's result, read as int8 again.

        A layer that ends in the Add itself takes the addition in, so only the other input gets a pair. With an
        activation in between, the layer fuses with the activation instead and the Add is a kernel of its own, which
        is an integer one only if both its inputs are.
        """
        for node in self._backwards:  # an Add that reads this one's sum has been seen before
            inputs = list(node.input)
            if (
                node.op_type != "Add"
                or any(name in self._graph.initializers for name in inputs)
                or not self._read_as_int8(node.output[0], reads)
                or not any(self._name_above(name) in int8 for name in inputs)
            ):
                continue
            # With an int8 layer on both sides the second takes the first's result in, as the older value.
            taken = next((name for name in inputs[::-1] if self._ends_in(name, int8)), None)
            others = [name for name in inputs if name != taken]
            if all(self._can_be_int8(name) for name in others):
                reads.update({(node.name, name): None for name in others})

    def _read_as_int8(self, tensor: str, reads: Collection[tuple[str, str]]) -> bool:
        """Whether a pair stands on a tensor, or behind operators through which Q moves back to it."""
        return any(
            (reader.name, tensor) in reads
            or (
                reader.op_type in (*MOVERS, "Concat") and any(self._read_as_int8(name, reads) for name in reader.output)
            )
            for reader in self._graph.consumers.get(tensor, [])
        )

    def _ends_in(self, tensor: str, int8: Collection[str]) -> bool:
        """Whether an int8 layer makes a tensor that nothing but the Add reads."""
        node = self._graph.producer.get(tensor)
        return node is not None and node.name in int8 and len(self._graph.consumers[tensor]) == 1

    def _can_be_int8(self, tensor: str) -> bool:
        """Whether what makes a tensor has an integer kernel; products of activations (attention) stay in fp16."""
        node = self._above(root(self._graph, tensor))
        return node is not None and (node.name in self._layer_names or node.op_type in ("Add", "Concat"))

    def _name_above(self, tensor: str) -> str:
        node = self._above(tensor)
        return node.name if node is not None else ""

    def _above(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`, looking up through its activation function."""
        node = self._graph.producer.get(tensor)
        while node is not None and node.op_type in _POINTWISE:
            node = self._graph.producer.get(node.input[0])
        return node

    def _concats_read_by(self, tensors: Collection[str]) -> set[str]:
        """Names of the Concat nodes that Q moves through, from the given tensors upwards."""
        roots = {root(self._graph, name) for name in tensors}
        known = self._table.ranges[self._table.method]
        found = set()
        for node in self._backwards:
            sources = [root(self._graph, name) for name in node.input]
            if node.op_type == "Concat" and node.output[0] in roots and all(name in known for name in sources):
                found.add(node.name)
                roots.update(sources)  # a Concat among them must agree as well
        return found
