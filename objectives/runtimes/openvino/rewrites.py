"""Exact rearrangements that OpenVINO's CPU kernels run faster: they write channels last, and heads want them first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from objectives.quantization.rewrites import rewrite_dfl
from search_spaces.model_graph import attribute
from search_spaces.names import FreshNames, names_in
from search_spaces.subgraphs import reads

_LAST = [0, 2, 3, 1]
_SWAP = [0, 2, 1]
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Between these, OpenVINO 2026.4 turns channels-last into channels-first by a plain loop instead of oneDNN's kernel.
_SLOW_CHANNELS = range(16, 65)


def rearranged(model: onnx.ModelProto, opset: int) -> None:
    """All rearrangements of this runtime, in place: the DFL as a matrix product, and heads with channels last."""
    rewrite_dfl(model, opset)
    head = _Head(model.graph)
    head.keep_split_last()
    head.transpose_bins()


class _Head:
    """The nodes of a graph, some of which become others.

    Args:
        graph: Changed in place.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self._tensor, self._node = map(FreshNames, names_in(graph))
        self._made: list[onnx.NodeProto] = []
        self._read()

    def keep_split_last(self) -> None:
        """Has an end-to-end head that transposes boxes beside scores and splits them again transpose neither.

        Each part is taken with channels last from the Convs on, as they wrote it (yolov10s, int8, 640 px, one thread of
        an AMD EPYC 9005: 2 % of an inference).
        """
        for name in [node.output[0] for node in self._graph.node if node.op_type == "Split"]:
            split = self._producer[name]
            swap = self._producer.get(split.input[0])
            joined = self._producer.get(swap.input[0]) if swap is not None and _permutes(swap, _SWAP) else None
            if (
                joined is None
                or not _along(joined, "Concat", 1)
                or attribute(split, "axis", 0) not in (2, -1)
                or len(split.output) != len(joined.input)
                or self._sizes(split) != [self._channels(part) for part in joined.input]
                or self._leads_to_a_layer(split)
            ):
                continue
            for part, output in zip(joined.input, split.output, strict=True):
                self._turn(part, output)
            self._put(name)

    def transpose_bins(self) -> None:
        """Has a Conv's result of few channels that is flattened to ``(N, C, H W)`` transposed by a Transpose.

        Of the 64 channels of a YOLO head's box bins OpenVINO's own conversion took 1.0 ms of 18.2 (yolov8n, int8, 640
        px, one thread of an AMD EPYC 9005), as a Transpose it takes 0.5.
        """
        for name in [node.output[0] for node in self._graph.node if node.op_type == "Reshape"]:
            node = self._producer[name]
            if self._flattened(node) in _SLOW_CHANNELS:
                flat = self._tensor(f"{node.input[0]}/flat")
                self._flatten_last(node, flat)
                self._add("Transpose", [flat], name, perm=_SWAP)
                self._put(name)

    def _turn(self, tensor: str, output: str) -> None:
        """Makes ``(N, A, C)`` of a tensor ``(N, C, A)``, by other nodes up to the Convs that it comes from."""
        node = self._producer.get(tensor)
        if node is not None and len(self._readers.get(tensor, ())) == 1:
            if node.op_type == "Sigmoid":
                inner = self._tensor(f"{node.input[0]}/last")
                self._turn(node.input[0], inner)
                return self._add("Sigmoid", [inner], output)
            if _along(node, "Concat", 2):
                parts = [self._tensor(f"{name}/last") for name in node.input]
                for name, part in zip(node.input, parts, strict=True):
                    self._turn(name, part)
                return self._add("Concat", parts, output, axis=1)
            if self._flattened(node):
                return self._flatten_last(node, output)
        return self._add("Transpose", [tensor], output, perm=_SWAP)

    def _flatten_last(self, node: onnx.NodeProto, output: str) -> None:
        """Makes ``(N, H W, C)`` of a Conv's result; the first node keeps the name, and reads the pair that it would."""
        last, channels = self._tensor(f"{node.input[0]}/last"), self._flattened(node)
        shape = numpy_helper.from_array(np.array([0, -1, channels], np.int64), self._tensor(f"{node.name}/shape"))
        self._graph.initializer.append(shape)
        self._made.append(helper.make_node("Transpose", [node.input[0]], [last], name=node.name, perm=_LAST))
        self._add("Reshape", [last, shape.name], output)

    def _flattened(self, node: onnx.NodeProto) -> int:
        """Channels of a Conv's result that a node flattens to ``(N, C, H W)``; 0 of any other node."""
        made = self._producer.get(node.input[0]) if node.op_type == "Reshape" else None
        if made is None or made.op_type != "Conv" or not {node.input[1], made.input[1]} <= self._constants.keys():
            return 0
        weight = self._constants[made.input[1]].dims
        shape = numpy_helper.to_array(self._constants[node.input[1]]).tolist()
        if len(weight) != 4 or len(shape) != 3 or shape[1] != weight[0] or attribute(node, "allowzero", 0):
            return 0
        return int(weight[0]) if shape[0] == 0 or (self._batch > 0 and shape[0] == self._batch) else 0

    def _channels(self, tensor: str) -> int:
        """Second dimension of a tensor, as far as the graph's inferred shapes tell; -1 where they do not."""
        value = next((value for value in self._graph.value_info if value.name == tensor), None)
        dims = value.type.tensor_type.shape.dim if value is not None else []
        return dims[1].dim_value if len(dims) == 3 else -1

    def _sizes(self, split: onnx.NodeProto) -> list[int]:
        held = self._constants.get(split.input[1]) if len(split.input) > 1 else None
        return numpy_helper.to_array(held).tolist() if held is not None else []

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._made.append(helper.make_node(op, inputs, [output], name=self._node(f"{output}/{op}"), **attributes))

    def _leads_to_a_layer(self, node: onnx.NodeProto) -> bool:
        """Whether what a node makes is read, through others, by what may be quantized: there pairs are placed."""
        readers = [reader for name in node.output for reader in self._readers.get(name, ())]
        return any(reader.op_type in _LAYERS or self._leads_to_a_layer(reader) for reader in readers)

    def _put(self, old: str) -> None:
        """Puts what was made in the place of the node that makes `old`, and drops what nothing reads any more."""
        nodes = [node for known in self._graph.node for node in (self._made if old in known.output else [known])]
        made = {name for node in self._made for name in node.output}
        wanted = {value.name for value in self._graph.output}
        kept = []
        for node in reversed(nodes):
            unread = not any(self._readers.get(name) for name in node.output) and not made.intersection(node.output)
            if unread or wanted.intersection(node.output):  # what nothing read before is not ours to drop
                wanted.update(reads(node))
                kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
        del self._graph.node[:]
        self._graph.node.extend(reversed(kept))
        self._made = []
        self._read()

    def _read(self) -> None:
        self._producer = {name: node for node in self._graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._graph.node:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)


def _permutes(node: onnx.NodeProto, order: Iterable[int]) -> bool:
    perm = next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), [])
    return node.op_type == "Transpose" and perm == list(order)


def _along(node: onnx.NodeProto, op: str, axis: int) -> bool:
    """Whether a node of three dimensions works along an axis."""
    return node.op_type == op and attribute(node, "axis", 0) in (axis, axis - 3)
