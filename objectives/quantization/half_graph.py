"""Types a float32 graph as fp16, for TensorRT's strongly typed networks: there the graph's types are the engine's.

Inputs and outputs stay float32, and so do the nodes that compute pixel coordinates, where a half's step is up to half
a pixel at 640, and those that `full_precision` names. A Cast stands at each border, one per tensor. Q/DQ scales become
fp16 as well: from opset 19 on the type of a DequantizeLinear's output is its scale's. No Cast comes between a
DequantizeLinear and the layers that it feeds, as they would not fuse: a pair or a weight takes its readers' type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.float_nodes import FloatNode
from search_spaces.names import FreshNames, names_in
from search_spaces.subgraphs import graph_reads, inner_graphs, reads, rename_reads

_FP16 = np.finfo(np.float16)
_PAIR = ("QuantizeLinear", "DequantizeLinear")
# Inputs that ONNX defines as float32 whatever the type of the others.
_ALWAYS_FLOAT = {"Resize": (1, 2)}
_FLOAT_ONLY = ("NonMaxSuppression",)


def to_half(
    model: onnx.ModelProto, keep: Collection[str], tensors: Collection[str] = ()
) -> tuple[onnx.ModelProto, tuple[FloatNode, ...]]:
    """Types a model as fp16.

    Args:
        model: A float32 model without inner shapes, Q/DQ pairs included.
        keep: Names of the nodes that stay float32. A node whose constants exceed fp16's range stays so too.
        tensors: Names of those that must not be fp16: whatever reads or makes one stays float32.

    Returns:
        The typed model, the argument is not changed; and the nodes that stay float32 for the scale of a Q/DQ pair.
    """
    typing = _Typing(model, keep, tensors)
    return typing.run(), tuple(typing.scaled)


class _Typing:
    """One run of `to_half`."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str], tensors: Collection[str]) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        values = [*inferred.input, *inferred.value_info, *inferred.output]
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._untyped = {v.name for v in values if not v.type.HasField("tensor_type")}
        self._keep = set(keep)
        self.scaled: list[FloatNode] = []
        self._added: dict[str, onnx.TensorProto] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._types = {v.name: TensorProto.FLOAT for v in inferred.input}
        self._nodes: list[onnx.NodeProto] = []
        self._fresh, self._fresh_node = map(FreshNames, names_in(model.graph))
        self._halves: dict[str, str] = {}
        self._maker: Mapping[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
        self._float = self._float_nodes(set(tensors))

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        outputs = {value.name for value in graph.output}
        for place, node in enumerate(list(graph.node)):
            kind = TensorProto.FLOAT if place in self._float else TensorProto.FLOAT16
            if kind == TensorProto.FLOAT16:
                self._halve_weight(node)
            inner = {name: self._read(node, -1, name, kind) for name in reads(node)[len(node.input) :]}
            for index, name in enumerate(node.input):
                node.input[index] = self._read(node, index, name, kind)
            rename_reads(node, inner)
            if node.op_type == "Cast" and kind == TensorProto.FLOAT16 and node.output[0] in self._floats:
                _set_target(node, TensorProto.FLOAT16)
            self._nodes.append(node)
            for index, name in enumerate(node.output):
                if name not in self._floats:
                    continue
                self._types[name] = kind
                if name in outputs and kind == TensorProto.FLOAT16:
                    node.output[index] = half = self._fresh(f"{name}_half")
                    self._names[name, TensorProto.FLOAT16] = half
                    self._types[name] = TensorProto.FLOAT16
                    self._cast(half, name, TensorProto.FLOAT)
                    self._names[name, TensorProto.FLOAT] = name
        del graph.node[:]
        graph.node.extend(self._nodes)
        read = set(graph_reads(graph))
        kept = [t for t in [*self._constants.values(), *self._added.values()] if t.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self._model

    def _float_nodes(self, tensors: set[str]) -> set[int]:
        """Places of the nodes that stay float32."""
        nodes = self._model.graph.node
        found: set[int] = set()
        pairs: dict[str, str] = {}  # what a pair that stays makes, and its scale
        for index, node in enumerate(nodes):
            scale = self._lost_scale(node)
            given = next((pairs[name] for name in node.input if name in pairs), None)
            if node.op_type in _PAIR and (scale or given or not tensors.isdisjoint(node.input)):
                pairs[node.output[0]] = node.input[1]
            elif given is not None and node.name not in self._keep and tensors.isdisjoint(node.input):
                self.scaled.append(FloatNode(node.name, given, f"is a scale below fp16's {_FP16.tiny:.1e}"))
            if scale or given or not tensors.isdisjoint([*node.input, *node.output]) or self._stays(node):
                found.add(index)
        readers: dict[str, list[int]] = {}
        for index, node in reversed(list(enumerate(nodes))):
            users = [reader for name in node.output for reader in readers.get(name, [])]
            if users and found.issuperset(users) and (node.op_type in _PAIR or self._is_constant(node)):
                found.add(index)
            for name in node.input:
                readers.setdefault(name, []).append(index)
        return found

    def _lost_scale(self, node: onnx.NodeProto) -> bool:
        """Whether a pair of an activation would be coarser with a scale that is a normal half."""
        if node.op_type not in _PAIR or node.input[0] in self._constants or node.input[1] not in self._constants:
            return False
        scale = numpy_helper.to_array(self._constants[node.input[1]])
        return bool((scale < _FP16.tiny).any())

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes something of constants alone, as the unpacking of a weight does."""
        while all(name in self._constants or not name for name in node.input[1:]):
            if not node.input or node.input[0] in self._constants:
                return True
            if (above := self._maker.get(node.input[0])) is None:
                return False
            node = above
        return False

    def _stays(self, node: onnx.NodeProto) -> bool:
        computed_within = any(inner_graphs(node)) or not self._untyped.isdisjoint(node.output)
        if node.name in self._keep or node.op_type in _FLOAT_ONLY or computed_within:
            return True
        exempt = _ALWAYS_FLOAT.get(node.op_type, ())
        reads = [name for index, name in enumerate(node.input) if self._is_float(name) and index not in exempt]
        makes = node.op_type == "Cast" and node.output[0] in self._floats
        if not reads and not makes:
            return True  # makes floats from nothing that is typed, or has none at all
        constants = [self._constants[name] for name in reads if name in self._constants]
        return any(np.abs(numpy_helper.to_array(t)).max(initial=0.0) > _FP16.max for t in constants)

    def _is_float(self, name: str) -> bool:
        constant = self._constants.get(name)
        return constant.data_type == TensorProto.FLOAT if constant is not None else name in self._floats

    def _read(self, node: onnx.NodeProto, index: int, name: str, kind: int) -> str:
        """The name under which a node of type `kind` reads an input."""
        if not name or not self._is_float(name) or index in _ALWAYS_FLOAT.get(node.op_type, ()):
            return name
        if name in self._constants:
            return name if kind == TensorProto.FLOAT else self._half_constant(name)
        if self._types.get(name, TensorProto.FLOAT) == kind:
            return self._names.get((name, kind), name)
        if (name, kind) not in self._names:
            self._names[name, kind] = self._fresh(f"{name}_{'half' if kind == TensorProto.FLOAT16 else 'float'}")
            source = self._names.get((name, self._types[name]), name)
            self._cast(source, self._names[name, kind], kind)
        return self._names[name, kind]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(
            helper.make_node("Cast", [source], [target], name=self._fresh_node(f"{target}_Cast"), to=kind)
        )

    def _half_constant(self, name: str) -> str:
        if name not in self._halves:
            values = numpy_helper.to_array(self._constants[name])
            self._halve(name, values.astype(np.float16))
        return self._halves[name]

    def _halve(self, name: str, values: NDArray[np.float16]) -> None:
        self._halves[name] = half = self._fresh(f"{name}_half")
        self._added[half] = numpy_helper.from_array(values, half)

    def _halve_weight(self, node: onnx.NodeProto) -> None:
        """Makes the scales of a Q or DQ normal halves; integer codes of a weight follow where a scale had to grow."""
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in self._constants:
            return
        name = node.input[1]
        scale: NDArray[np.float32] = numpy_helper.to_array(self._constants[name])
        if scale.dtype != np.float32 or name in self._halves:
            return
        half = np.maximum(scale.astype(np.float16), _FP16.tiny)
        self._halve(name, half)
        codes = self._constants.get(node.input[0])
        if codes is None or not (scale < _FP16.tiny).any():
            return
        ratio = (scale / half.astype(np.float32)).astype(np.float32)
        values = numpy_helper.to_array(codes)
        moved = values.astype(np.float32) * _spread(ratio, values.shape, node)
        if _is_integer(codes):
            moved = np.rint(moved)
        self._constants[codes.name] = numpy_helper.from_array(moved.astype(values.dtype), codes.name)


def _is_integer(codes: onnx.TensorProto) -> bool:
    return str(TensorProto.DataType.Name(codes.data_type)).startswith(("INT", "UINT"))


def _spread(ratio: NDArray[np.float32], shape: tuple[int, ...], node: onnx.NodeProto) -> NDArray[np.float32]:
    """Brings per-tensor, per-axis or per-block factors to the shape of the codes."""
    attributes = {entry.name: entry.i for entry in node.attribute}
    if ratio.ndim == 0:
        return ratio
    axis = attributes.get("axis", 1)
    if attributes.get("block_size"):
        return np.repeat(ratio, attributes["block_size"], axis=axis)[tuple(slice(n) for n in shape)]
    return ratio.reshape([-1 if index == axis else 1 for index in range(len(shape))])


def _set_target(node: onnx.NodeProto, kind: int) -> None:
    for entry in node.attribute:
        if entry.name == "to":
            entry.i = kind
