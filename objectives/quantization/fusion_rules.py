"""Walks a graph written for TensorRT and tells which Q/DQ nodes its rules leave standing as kernels of their own.

Sources: NVIDIA, TensorRT developer guide, "Working with quantized types", sections "Explicit quantization", "Processing
of Q/DQ networks", "Q/DQ layer-placement recommendations" and "Q/DQ limitations" (cited below by section); what they
leave open is taken from the maintainers' and users' findings in NVIDIA/TensorRT issues 1293 (a residual that stays in
float leaves quantize nodes behind), 3542 and 3861 (Conv, SiLU, Add fuse as (Conv, SiLU) and (Add), never as one).

Whether a *kernel* exists is not asked here: an int8 depthwise Conv follows all rules and yet may not build. That is
probed on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from objectives.quantization.placement import MOVERS
from search_spaces.model_graph import attribute

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_POINTWISE = ("Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "HardSwish")
# A pair: element type and scale; None stands for a reader in high precision.
Read = tuple[int, float] | None


@dataclass(frozen=True)
class Finding:
    """A Q/DQ node that another placement would let TensorRT fuse.

    Attributes:
        node: Name of the node that it is about.
        rule: ``weighted``, ``weights``, ``bias``, ``symmetric``, ``reader``, ``requantized`` or ``add``.
        explanation: What is wrong, in a sentence.
    """

    node: str
    rule: str
    explanation: str


def check_fusion(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Checks every Q/DQ node of a materialized model.

    Args:
        model: Written for ``tensorrt`` or ``tensorrt-8``; of an artifact, its `engine_model`.

    Returns:
        What could be placed better, in node order; empty where every pair fuses or is an entry (`entries`).
    """
    walk = _Walk(model)
    return tuple(finding for node in model.graph.node for finding in walk.check(node))


def entries(model: onnx.ModelProto) -> tuple[str, ...]:
    """Tensors that are quantized by a kernel of their own, because what makes them, or also reads them, is float.

    No placement avoids these: they are where a scheme goes from high precision to int8 (the image, for one).

    Args:
        model: As for `check_fusion`.
    """
    walk = _Walk(model)
    return tuple(name for name in walk.tensors if walk.is_entry(name))


class _Walk:
    """Producers and readers of one model, seen as TensorRT sees them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._producer = {name: node for node in graph.node for name in node.output}
        self._outputs = {value.name for value in graph.output}
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for index, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, index))
        self._nodes = list(graph.node)
        self._inputs = [value.name for value in graph.input]

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """The model's input and every computed tensor that is none of a Q or DQ."""
        floats = (node for node in self._nodes if node.op_type not in ("QuantizeLinear", "DequantizeLinear"))
        return (*self._inputs, *(name for node in floats for name in node.output))

    @cached_property
    def _reads(self) -> dict[str, frozenset[Read]]:
        """How each tensor is read once Q has moved up as far as it can.

        "Processing of Q/DQ networks": Q moves backwards over a layer that commutes with it. Over a Concat it is split
        onto all inputs. It moves only where all that is read behind the layer is the same pair.
        """
        found: dict[str, frozenset[Read]] = {}
        for name in self.tensors[::-1]:
            reads: set[Read] = {None} if name in self._outputs else set()
            for node, index in self._readers.get(name, []):
                if node.op_type == "QuantizeLinear" and index == 0:
                    reads.add(self._pair(node))
                elif self._lets_q_pass(node, index):
                    for output in node.output:
                        behind = found.get(output, frozenset())
                        reads |= behind if len(behind) <= 1 else {None}
                else:
                    reads.add(None)
            found[name] = frozenset(reads)
        return found

    def is_entry(self, tensor: str) -> bool:
        """Whether a Q rests on this tensor and nothing takes it in."""
        reads = self._reads[tensor]
        if not reads - {None}:
            return False
        node = self._producer.get(tensor)
        if len(reads) == 1 and node is not None and self._lets_q_pass(node, 0):
            return False  # it has moved on
        return None in reads or not self._takes_q(tensor)

    def check(self, node: onnx.NodeProto) -> Iterator[Finding]:
        """Applies all rules to one node."""
        if node.op_type in _WEIGHTED:
            yield from self._check_weighted(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from self._check_symmetric(node)
        if node.op_type == "DequantizeLinear" and node.input[0] not in self._constants:
            yield from self._check_reader(node)
        if node.op_type == "Add":
            yield from self._check_add(node)
        if node.op_type != "QuantizeLinear":
            for name in node.output:
                yield from self._check_requantized(node, name)

    def _check_weighted(self, node: onnx.NodeProto) -> Iterator[Finding]:
        """Both operands of a weighted layer are quantized or none.

        "Q/DQ layer-placement recommendations": quantize all inputs of weighted operations. A weight-only Conv has no
        kernel (one of a MatMul or Gemm has); the bias stays in high precision.
        """
        data, weight = (self._is_quantized(name) for name in node.input[:2])
        if data != weight and not (weight and node.op_type in ("MatMul", "Gemm")):
            which = "data" if data else "weight"
            yield Finding(node.name, "weighted", f"only its {which} is quantized: it runs in float behind a DQ kernel")
        if len(node.input) > 2 and self._is_quantized(node.input[2]):
            yield Finding(node.name, "bias", "its bias is quantized; TensorRT adds it in high precision")
        if weight and (producer := self._producer[node.input[1]]).input[0] in self._constants:
            yield from self._check_weight(node, producer, data)

    def _check_weight(self, node: onnx.NodeProto, pair: onnx.NodeProto, data: bool) -> Iterator[Finding]:
        """Weights have a scale per output channel.

        "Explicit quantization": weights are quantized per channel; blocks are for weight-only GEMM.
        """
        scale, axis = self._array(pair.input[1]), int(attribute(pair, "axis", 1))
        block = int(attribute(pair, "block_size", 0))
        rank = len(self._constants[pair.input[0]].dims)
        wanted = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)
        if wanted is None:
            wanted = 0 if attribute(node, "transB", 0) else 1
        if block and (data or node.op_type not in ("MatMul", "Gemm")):
            yield Finding(pair.name, "weights", f"blocks of {block} share a scale: only weight-only GEMM reads these")
        elif not block and scale.ndim == 0:
            yield Finding(pair.name, "weights", "one scale for the whole weight; one per output channel fuses as well")
        elif not block and axis % rank != wanted:
            yield Finding(pair.name, "weights", f"scales along axis {axis}; the output channels are axis {wanted}")

    def _check_symmetric(self, node: onnx.NodeProto) -> Iterator[Finding]:
        """Signed codes around zero, and activations with one scale.

        "Working with quantized types", introduction: TensorRT quantizes symmetrically; activations per tensor.
        """
        zero = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        unsigned = zero is not None and TensorProto.DataType.Name(zero.data_type).startswith("UINT")
        if zero is None or unsigned or any(zero.raw_data) or any(zero.int32_data):
            yield Finding(node.name, "symmetric", "codes must be signed with zero point 0")
        if node.input[0] not in self._constants and self._array(node.input[1]).size != 1:
            yield Finding(node.name, "symmetric", "an activation has one scale")

    def _check_reader(self, node: onnx.NodeProto) -> Iterator[Finding]:
        """What reads a DQ takes it in.

        "Processing of Q/DQ networks": a quantizable layer fuses with the DQ on its inputs; before any other it stays a
        conversion to high precision. DQ moves forwards over layers that commute with it.
        """
        for reader, index in self._behind(node.output[0]):
            if reader.op_type == "Add" or (reader.op_type in _WEIGHTED and index < 2):
                continue
            yield Finding(node.name, "reader", f"{reader.op_type} {reader.name!r} does not take a DQ in")

    def _check_requantized(self, node: onnx.NodeProto, tensor: str) -> Iterator[Finding]:
        """One scale per tensor, over all that reads it.

        "Q/DQ layer-placement recommendations": Q that moves over a Concat lands on all its inputs; where another scale
        stands there already, one of the two stays a kernel.
        """
        scales: dict[int, set[float]] = {}
        for read in self._reads.get(tensor, frozenset()) - {None}:
            assert read is not None
            scales.setdefault(read[0], set()).add(read[1])
        for found in scales.values():
            if len(found) > 1:
                listed = ", ".join(f"{scale:.6g}" for scale in sorted(found))
                yield Finding(node.name, "requantized", f"{tensor!r} is quantized with several scales: {listed}")

    def _check_add(self, node: onnx.NodeProto) -> Iterator[Finding]:
        """An Add runs on integers where its operands do.

        "Q/DQ layer-placement recommendations": quantize the residual input in skip connections, or the layer that takes
        the addition in is limited to float output and the Q behind it is left over. With an activation between layer
        and Add nothing takes the addition in (issue 3861): then the Add is a quantizable layer, with DQ on all inputs.
        """
        if any(name in self._constants for name in node.input):
            return
        bare = [name for name in node.input if not self._is_quantized(name)]
        if len(bare) < len(node.input):
            if bare and not (len(bare) == 1 and self._ends_in_quantized(bare[0])):
                yield Finding(node.name, "add", f"{bare[0]!r} is in float, so the DQ beside it is not taken in")
        elif self._reads[node.output[0]] - {None}:
            made = [name for name in bare if self._takes_q(name)]
            known = [name for name in bare if name in made or self._reads.get(name, frozenset()) - {None}]
            if made and len(known) == len(bare):
                yield Finding(node.name, "add", "its sum is read as int8 and its operands could be, but are in float")

    def _behind(self, tensor: str) -> Iterator[tuple[onnx.NodeProto, int]]:
        """Readers of a tensor, seen through what DQ moves over; a Q of the same pair ends the way."""
        for node, index in self._readers.get(tensor, []):
            if self._lets_q_pass(node, index) and (
                node.op_type != "Concat" or len({self._source_pair(name) for name in node.input}) == 1
            ):
                for output in node.output:
                    yield from self._behind(output)
            elif node.op_type != "QuantizeLinear" or self._pair(node) != self._source_pair(tensor):
                yield node, index

    def _takes_q(self, tensor: str) -> bool:
        """Whether the kernel that makes a tensor can write it quantized.

        "Processing of Q/DQ networks": a layer with quantized inputs fuses with the Q on its output; so does a layer
        together with the activation that it is fused with. A layer with float inputs writes float.
        """
        node = self._producer.get(tensor)
        if node is None:
            return False
        if node.op_type == "Add":
            bare = [name for name in node.input if not self._is_quantized(name)]
            return not bare or (len(bare) < len(node.input) and all(map(self._ends_in_quantized, bare)))
        if node.op_type in _POINTWISE:
            above = {name: self._producer.get(name) for name in node.input if name not in self._constants}
            return bool(above) and all(
                maker is not None
                and (maker.op_type in _POINTWISE or self._integer(maker))
                and all(reader.op_type in _POINTWISE for reader, _ in self._readers[name])
                and (self._integer(maker) or self._takes_q(name))
                for name, maker in above.items()
            )
        return self._integer(node)

    def _integer(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _WEIGHTED and all(map(self._is_quantized, node.input[:2]))

    def _ends_in_quantized(self, tensor: str) -> bool:
        """Whether a quantized layer makes a tensor for one reader alone, which it can then take in."""
        node = self._producer.get(tensor)
        return node is not None and self._integer(node) and len(self._readers[tensor]) == 1

    def _is_quantized(self, tensor: str) -> bool:
        """Whether a tensor comes from a DQ, directly or through what DQ moves over."""
        return self._source_pair(tensor) is not None

    def _source_pair(self, tensor: str) -> Read:
        node = self._producer.get(tensor)
        if node is None:
            return None
        if node.op_type == "DequantizeLinear":
            return self._pair(node)
        return self._source_pair(node.input[0]) if self._lets_q_pass(node, 0) and node.op_type != "Concat" else None

    def _pair(self, node: onnx.NodeProto) -> tuple[int, float]:
        zero = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        kind = zero.data_type if zero is not None else TensorProto.UINT8
        return kind, float(self._array(node.input[1]).ravel()[0])

    def _array(self, name: str) -> NDArray[np.generic]:
        array: NDArray[np.generic] = numpy_helper.to_array(self._constants[name])
        return array

    def _lets_q_pass(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether rounding before or after the node is the same.

        "Processing of Q/DQ networks" names max pooling; a copy of elements commutes likewise, an interpolation not.
        """
        if node.op_type == "Resize":
            modes = [entry.s for entry in node.attribute if entry.name == "mode"]
            return index == 0 and modes in ([], [b"nearest"])
        return node.op_type == "Concat" or (node.op_type in MOVERS and index == 0)
