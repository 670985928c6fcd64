"""Q/DQ placement for TensorRT's explicit quantization.

Rules followed (NVIDIA, TensorRT developer guide, "Working with quantized types", Q/DQ layer-placement recommendations):
quantize the inputs of weighted layers and their weights, never their outputs; symmetric signed int8; leave SiLU to the
convolution that it fuses with; quantize the residual input of an Add that an int8 layer ends in, so that the addition
fuses; give all inputs of a Concat one scale, so that Q moves through it without a second quantization.
"""

from __future__ import annotations

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.placement import Placement, float8_reads, root, shared_ranges
from objectives.quantization.qdq import QuantParams
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Number
from search_spaces.model_graph import ModelGraph

_POINTWISE = ("Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "HardSwish")


class TensorRtPlacement:
    """Pairs on the inputs of int8 layers and on the residuals beside them.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
    """

    def __init__(self, graph: ModelGraph, table: CalibrationTable) -> None:
        self._graph = graph
        self._table = table

    def place(self, allocation: Allocation) -> Placement:
        """Decides every Q/DQ pair of one allocation."""
        int8 = {name for name, fmt in allocation.items if FORMATS[fmt].activation is Number.INT8}
        pairs, readers = float8_reads(self._graph, self._table, allocation)
        read = {layer.name: layer.input for layer in self._graph.quantizable if layer.name in int8}
        read.update(self._residuals(int8))
        shared = shared_ranges(self._graph, self._table, self._concats_read_by(set(read.values())))
        for node, tensor in read.items():
            source = root(self._graph, tensor)
            low, high = shared.get(source) or self._table.range(source)
            pairs[tensor, Number.INT8] = QuantParams.signed(low, high)
            readers[node, tensor] = Number.INT8
        return Placement(pairs, readers, frozenset(), frozenset(int8))

    def _residuals(self, int8: set[str]) -> dict[str, str]:
        """``{Add node: its residual input}`` for every Add of an int8 layer's result and something else."""
        found = {}
        for node in self._graph.nodes():
            if node.op_type != "Add" or any(name in self._graph.initializers for name in node.input):
                continue
            ends = [self._layer_above(name) in int8 for name in node.input]
            if any(ends):
                # With an int8 layer on both sides one of them is the residual; the first, as it is the older value.
                found[node.name] = node.input[ends.index(False)] if not all(ends) else node.input[0]
        return found

    def _layer_above(self, tensor: str) -> str:
        """The node that makes `tensor`, looking up through its activation function."""
        node = self._graph.producer.get(tensor)
        while node is not None and node.op_type in _POINTWISE:
            node = self._graph.producer.get(node.input[0])
        return node.name if node is not None else ""

    def _concats_read_by(self, tensors: set[str]) -> set[str]:
        """Names of the Concat nodes whose output, or one of whose inputs, is quantized."""
        roots = {root(self._graph, name) for name in tensors}
        return {
            node.name
            for node in self._graph.nodes()
            if node.op_type == "Concat"
            and node.output[0] in roots
            and all(root(self._graph, name) in self._table.ranges[self._table.method] for name in node.input)
        }
