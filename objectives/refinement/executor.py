"""Runs an ONNX graph in PyTorch, node by node, so that anything it reads can be learnt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives.refinement.operators import OPERATORS, NotSupported
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import without_plugins
from search_spaces.subgraphs import reads

_ALIKE = 0.02  # of a tensor's deviation: what rounding, TF32's on a GPU too, may make of it

Values = dict[Any, Tensor]  # by the tensor's name; a reader may keep more in it, under keys of its own


@dataclass(frozen=True)
class Node:
    """One operator of a graph.

    Attributes:
        name: Of the node.
        kind: Operator type.
        inputs: Names; empty of one that is left out.
        outputs: Names.
        attributes: By name.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


#: Gives the value of one input: the node, which of its inputs, and what was computed so far.
Reader = Callable[[Node, int, Values], "Tensor | None"]


class Executor:
    """A model that runs in PyTorch; its graph is written for one image, and takes several all the same.

    Args:
        graph: The model, for one image.
        device: A PyTorch device.
    """

    def __init__(self, graph: ModelGraph, device: str) -> None:
        self.graph = graph
        self.device = torch.device(device)
        # On a GPU a setting that is read there would be waited for.
        settings = {name for node in graph.nodes() if node.op_type in ("Resize", "Pad") for name in node.input[1:]}
        self.constants = {
            name: self._constant(np.asarray(value), name not in settings)
            for name, value in graph.initializers.items()
            if value.dtype.kind in "fiub"
        }
        self._nodes = {node.name: _node(node) for node in graph.nodes()}

    def _constant(self, value: NDArray[Any], computed: bool) -> Tensor:
        """Whole numbers are shapes, axes and indices, which are read on the CPU."""
        tensor = torch.from_numpy(np.array(value))
        return tensor.to(self.device) if computed and value.dtype.kind == "f" else tensor

    @property
    def half(self) -> bool:
        """Whether learning computes in half precision: on a GPU, whose units it is twice as fast on."""
        return bool(self.device.type == "cuda")

    def autocast(self) -> torch.autocast:
        """Half precision, where that pays, for what is run inside."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.half)

    def nodes(self, wanted: Iterable[str], given: Iterable[str]) -> list[Node]:
        """The nodes that compute some tensors from others, in order.

        Raises:
            InputError: One of them is of an operator that is not supported.
        """
        needed, known, found = set(wanted), set(given), []
        for node in reversed(list(self.graph.nodes())):
            if any(name in needed and name not in known for name in node.output):
                found.append(self._nodes[node.name])
                needed.update(reads(node))
                if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                    known_ones = ", ".join(sorted(OPERATORS))
                    raise InputError(
                        f"{self.graph.path}: node {node.name!r}: refinement does not know the operator "
                        f"{node.op_type}; it knows {known_ones}"
                    )
        return found[::-1]

    def plain(self, node: Node, index: int, values: Values) -> Tensor | None:
        """Reads an input as the unquantized model has it."""
        name = node.inputs[index]
        if not name:
            return None
        return values[name] if name in values else self.constants[name]

    def run(self, nodes: Sequence[Node], values: Values, wanted: Sequence[str], read: Reader | None = None) -> Values:
        """Computes tensors.

        Args:
            nodes: As `nodes` gave them.
            values: What is known: tensors of n images each; changed.
            wanted: Names of tensors.
            read: How inputs are read; as in the unquantized model by default.

        Returns:
            ``{name: tensor}`` of the wanted.
        """
        read = read or self.plain
        last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
        kept = {*wanted, *values}
        for place, node in enumerate(nodes):
            inputs = [read(node, index, values) for index in range(len(node.inputs))]
            attributes = {**node.attributes, "batch": self._batch(node, inputs), "outputs": len(node.outputs)}
            try:
                made = OPERATORS[node.kind](attributes, inputs)
            except NotSupported as missing:
                raise InputError(
                    f"{self.graph.path}: node {node.name!r}: refinement knows no {node.kind} of {missing}"
                ) from None
            for name, value in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=False):
                values[name] = value
            for name in node.inputs:
                if last.get(name) == place and name not in kept:
                    for key in [key for key in values if key == name or (isinstance(key, tuple) and key[0] == name)]:
                        del values[key]
        return {name: values[name] for name in wanted}

    def check(self, nodes: Sequence[Node], wanted: Sequence[str], image: Tensor) -> None:
        """Compares tensors of the unquantized model with those of ONNX Runtime, on one image.

        Args:
            nodes: As `nodes` gave them.
            wanted: Names of tensors.
            image: ``(1, 3, H, W)``.

        Raises:
            InputError: A node cannot be computed here, or an operator means something else in this model.
        """
        probe = onnx.ModelProto()
        probe.CopyFrom(without_plugins(self.graph.model))
        known = {value.name for value in probe.graph.output}
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
        with OnnxRuntimeRunner(probe.SerializeToString()) as runner:
            expected = dict(zip(runner.output_names, runner.infer(image.cpu().numpy()), strict=True))
        try:
            with torch.no_grad():
                found = self.run(nodes, {self.graph.input: image}, wanted)
        except (TypeError, ValueError, IndexError, KeyError, RuntimeError) as error:
            if isinstance(error, InputError | torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.graph.path}: refinement cannot run this model ({reason}); export it anew"
            ) from None
        for name in wanted:
            own, theirs = found[name].cpu().numpy(), expected[name].astype(np.float64)
            off = float(np.sqrt(np.square(own - theirs).mean())) if own.shape == theirs.shape else np.inf
            if not off <= _ALIKE * float(theirs.std()) + 1e-6:
                raise InputError(
                    f"{self.graph.path}: refinement computes tensor {name!r} otherwise than ONNX Runtime does: it does "
                    "not know all that this model's operators are set to, and cannot refine it"
                )

    def _batch(self, node: Node, inputs: Sequence[Tensor | None]) -> int:
        """How many times as many rows the first input has as the graph says: the images."""
        shape = self.graph.shapes.get(node.inputs[0], ()) if node.inputs else ()
        first = inputs[0] if inputs else None
        return first.shape[0] // shape[0] if shape and shape[0] and first is not None and first.ndim else 1

    def feed(self, images: NDArray[np.float32]) -> Values:
        """The image input of the graph, ``(n, 3, H, W)``."""
        return {self.graph.input: torch.from_numpy(np.ascontiguousarray(images)).to(self.device)}


def fused(nodes: Sequence[Node], wanted: Collection[str], apart: Collection[str]) -> list[Node]:
    """The nodes, where ``x * sigmoid(x)`` is one: half the time of a step goes there, and a third of its memory.

    Args:
        nodes: As `Executor.nodes` gave them.
        wanted: Tensors that must be computed.
        apart: Names of nodes, and of tensors, that are read in a way of their own and stay.
    """
    readers: dict[str, int] = {}
    for node in nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    gates = {
        node.outputs[0]: node
        for node in nodes
        if node.kind == "Sigmoid" and readers.get(node.outputs[0]) == 1 and node.name not in apart
    }
    gates = {name: node for name, node in gates.items() if name not in wanted and name not in apart}
    found, gone = [], set()
    for node in nodes:
        gate = next((name for name in node.inputs if name in gates), None) if node.kind == "Mul" else None
        if gate is not None and set(node.inputs) == {gate, gates[gate].inputs[0]} and node.name not in apart:
            gone.add(gates[gate].name)
            found.append(replace(node, kind="Silu", inputs=gates[gate].inputs, attributes={}))
        else:
            found.append(node)
    return [node for node in found if node.name not in gone]


def _node(node: onnx.NodeProto) -> Node:
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    texts = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    return Node(node.name, node.op_type, tuple(node.input), tuple(node.output), texts)
