"""The quantized model that learns: the unquantized graph, read through a scheme's weights and Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from objectives.quantization.half_constants import LARGEST, lost
from objectives.quantization.materialize import Materializer
from objectives.quantization.qdq import QuantParams
from objectives.quantization.recovery import Recovered, can_shift
from objectives.quantization.refined import Refined
from objectives.quantization.weights import WeightSettings, weight_key
from objectives.refinement.executor import Executor, Node, Values
from objectives.refinement.fake_quant import LearnedRange, LearnedWeight
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, NumberSpec


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate.

    Attributes:
        kind: ``codes``, ``scales``, ``biases`` or ``ranges``.
        parameters: In no order that matters.
    """

    kind: str
    parameters: list[nn.Parameter]


class Student:
    """One scheme's numbers, and how a node of the unquantized model reads them.

    Args:
        executor: Of the unquantized model.
        materializer: Of the study; where learning begins.
        allocation: The scheme.
        settings: The study's.
    """

    def __init__(
        self, executor: Executor, materializer: Materializer, allocation: Allocation, settings: WeightSettings
    ) -> None:
        self._executor, self._settings, self._allocation = executor, settings, allocation
        self._dialect = materializer.dialect.name
        self.placement = materializer.placement(allocation)
        self.drop = 0.0
        graph, device = executor.graph, executor.device
        self.layers = {layer.name: layer for layer in graph.quantizable}
        nodes = {node.name: node for node in graph.nodes()}
        self.weights: dict[str, LearnedWeight] = {}
        self._halves: dict[str, Tensor] = {}
        self._start_shifts: dict[str, NDArray[np.float32] | None] = {}
        for layer in graph.quantizable:
            fmt = allocation.formats.get(layer.name)
            exact = np.asarray(graph.initializers[layer.weight], np.float32)
            if fmt is None or not FORMATS[fmt].quantizes_weight:
                held = np.abs(exact).max(initial=0.0) <= LARGEST and not lost(exact, whole=True)
                if materializer.dialect.half_weights and held:
                    self._halves[layer.name] = torch.from_numpy(exact.astype(np.float16).astype(np.float32)).to(device)
                continue
            found = materializer.numbers(layer, fmt, self.placement)
            bias = found.bias
            if bias is None and can_shift(graph, layer, nodes[layer.name]):
                bias = np.zeros(layer.output_channels, np.float32)
            if not can_shift(graph, layer, nodes[layer.name]):
                bias = None
            self.weights[layer.name] = LearnedWeight(layer, exact, found.weight, bias, device)
            self._start_shifts[layer.name] = found.shift
        made: dict[QuantParams, LearnedRange] = {}
        self._ranges: dict[tuple[str, NumberSpec], LearnedRange] = {}
        for (tensor, number), params in self.placement.pairs.items():
            unsigned = onnx.TensorProto.DataType.Name(params.elem_type) == number.unsigned_onnx
            if params not in made:  # pairs that share their numbers go on sharing them
                made[params] = LearnedRange(params, number, unsigned, device)
            self._ranges[tensor, number] = made[params]

    @property
    def apart(self) -> set[str]:
        """Names of the nodes and tensors that are read through a pair."""
        return {name for reader in self.placement.readers for name in reader} | set(self.placement.rounded)

    def read(self, node: Node, index: int, values: Values) -> Tensor | None:
        """Gives an input of a node as the artifact computes with it."""
        name, learned = node.inputs[index], self.weights.get(node.name)
        layer = self.layers.get(node.name)
        if layer is not None and name == layer.weight:
            if learned is not None:
                return learned()
            return self._halves.get(node.name, self._executor.constants[name])
        if learned is not None and index == 2 and learned.biased:
            return learned.bias()
        number = self.placement.readers.get((node.name, name)) or self.placement.rounded.get(name)
        return (
            self._quantized(name, number, values) if number is not None else self._executor.plain(node, index, values)
        )

    def _quantized(self, name: str, number: NumberSpec, values: Values) -> Tensor:
        """An activation behind its pair; where another pair comes first, behind both."""
        key = (name, number.name)
        if key not in values:
            made = self.placement.rounded.get(name)
            exact = values[name] if made is None or made == number else self._quantized(name, made, values)
            found = self._ranges[name, number](exact)
            if self.drop:
                found = torch.where(torch.rand_like(exact) < self.drop, exact, found)
            values[key] = found
        return values[key]

    def groups(self, layers: Iterable[str], tensors: Iterable[str]) -> list[Group]:
        """What some layers, and the pairs of some tensors, have to learn."""
        wanted = set(tensors)
        weights = [self.weights[name] for name in layers if name in self.weights]
        ranges = {id(one): one for (name, _), one in self._ranges.items() if name in wanted}
        found = {
            "codes": [one.position for one in weights],
            "scales": [one.growth for one in weights],
            "biases": [one.shift for one in weights],
            "ranges": [p for one in ranges.values() for p in (one.growth, one.tilt)],
        }
        return [Group(kind, [p for p in each if p.requires_grad]) for kind, each in found.items()]

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is learnt."""
        modules: list[nn.Module] = [*self.weights.values(), *dict.fromkeys(self._ranges.values())]
        for module in modules:
            yield from module.parameters()

    def state(self) -> list[Tensor]:
        """A copy of all that is learnt."""
        return [parameter.detach().clone() for parameter in self.parameters()]

    def restore(self, state: list[Tensor]) -> None:
        """Goes back to a copy."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), state, strict=True):
                parameter.copy_(value)

    def refined(self) -> Refined:
        """What was learnt, as the materializer takes it."""
        weights = {}
        for name, learned in self.weights.items():
            key = weight_key(self.layers[name], FORMATS[self._allocation[name]], self._settings)
            moved, start = learned.moved(), self._start_shifts[name]
            shift = start if moved is None else moved if start is None else start + moved
            weights[key] = Recovered(learned.quantized(), shift)
        pairs = {(tensor, number.name): one.quantized() for (tensor, number), one in self._ranges.items()}
        return Refined(weights, pairs, self._dialect)
