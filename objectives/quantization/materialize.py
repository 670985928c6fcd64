"""Materializes an allocation: from the model, its ranges and cached weights to one Q/DQ ONNX artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.placement import Placement, PlacementRules
from objectives.quantization.placement_onnxruntime import OnnxRuntimePlacement
from objectives.quantization.placement_tensorrt import TensorRtPlacement
from objectives.quantization.qdq import QdqWriter
from objectives.quantization.rewrites import rewrite_dfl
from objectives.quantization.weights import (
    QuantizedWeight,
    WeightSettings,
    quantize_weight,
    resolve_granularity,
)
from objectives.scores import Size
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError, nearest
from search_spaces.formats import FORMATS, UNQUANTIZED, Granularity, Number
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph

_FP16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Artifact:
    """One materialized scheme.

    Attributes:
        data: Serialized ONNX model.
        size: Weight size.
    """

    data: bytes
    size: Size

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `data`, hex."""
        return hashlib.sha256(self.data).hexdigest()

    def check(self) -> None:
        """Runs onnx.checker with full shape inference.

        Raises:
            onnx.checker.ValidationError: The artifact is not valid ONNX.
        """
        onnx.checker.check_model(onnx.load_model_from_string(self.data), full_check=True)

    def save(self, path: Path) -> None:
        """Writes the model, whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(self.data)
        partial.replace(path)


class Materializer:
    """Assembles artifacts of one model for one runtime; each (layer, weight format) is quantized once and kept.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
        runtime: ``onnxruntime-cpu``, ``onnxruntime-cuda`` or ``tensorrt``: whose placement rules to follow.
        weights: How weights are quantized.
    """

    def __init__(
        self,
        graph: ModelGraph,
        table: CalibrationTable,
        runtime: str = "onnxruntime-cpu",
        weights: WeightSettings | None = None,
    ) -> None:
        self._graph = graph
        self._settings = weights or WeightSettings()
        self._rules = _rules(runtime, graph, table)
        self._runtime = runtime
        self._cache: dict[tuple[str, Number, Granularity], QuantizedWeight] = {}
        self._layers = {layer.name: layer for layer in graph.quantizable}
        self._base: dict[int, onnx.ModelProto] = {}

    def materialize(self, allocation: Allocation, extra_outputs: Sequence[str] = ()) -> Artifact:
        """Builds the artifact of one allocation.

        Args:
            allocation: A format per layer; layers that it leaves out stay unquantized.
            extra_outputs: Tensors of the model to add as outputs, after the model's own.

        Raises:
            InputError: The allocation names an unknown or unquantizable layer.
        """
        self._check(allocation)
        placement = self._rules.place(allocation)
        model = onnx.ModelProto()
        model.CopyFrom(self._skeleton(self._opset(allocation)))
        writer = QdqWriter()
        nodes, used = self._rewrite(model.graph.node, allocation, placement, writer)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        float_values = (t for t in self._graph.model.graph.initializer if t.name in used)
        model.graph.initializer.extend(float_values)
        model.graph.initializer.extend(writer.initializers)
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, self._graph.shapes.get(name))
            for name in extra_outputs
            if name not in self._graph.outputs
        )
        return Artifact(model.SerializeToString(deterministic=True), self.size(allocation))

    def size(self, allocation: Allocation) -> Size:
        """Weight size of an allocation, exact, without building it."""
        total = parameters = 0
        for layer in self._graph.layers:
            if not layer.parameters:
                continue
            fmt = FORMATS[allocation.formats.get(layer.name, UNQUANTIZED)]
            parameters += layer.parameters
            if fmt.quantizes_weight:
                total += self.weight(layer, allocation[layer.name]).stored_bytes
            else:
                total += 2 * layer.parameters
        return Size(total, 8 * total / parameters, parameters)

    def weight(self, layer: Layer, fmt: str) -> QuantizedWeight:
        """The quantized weight of a layer, computed once per number format and granularity."""
        key = (layer.name, FORMATS[fmt].weight, resolve_granularity(layer, FORMATS[fmt], self._settings))
        if key not in self._cache:
            self._cache[key] = quantize_weight(self._array(layer.weight), layer, FORMATS[fmt], self._settings)
        return self._cache[key]

    def _rewrite(
        self,
        source: Sequence[onnx.NodeProto],
        allocation: Allocation,
        placement: Placement,
        writer: QdqWriter,
    ) -> tuple[list[onnx.NodeProto], set[str]]:
        """Returns the new node list, and the names of the float initializers that it still reads."""
        nodes: list[onnx.NodeProto] = []
        names: dict[tuple[str, Number], str] = {}
        used: set[str] = set()

        def pairs_after(tensor: str) -> None:
            if (tensor, Number.INT8) in placement.pairs:
                params = placement.pairs[tensor, Number.INT8]
                names[tensor, Number.INT8] = writer.activation(tensor, params)
            if (tensor, Number.FP8) in placement.pairs:
                read = names[tensor, Number.INT8] if tensor in placement.rounded else tensor
                params = placement.pairs[tensor, Number.FP8]
                if self._runtime.startswith("onnxruntime"):
                    read = writer.saturate(read, params)
                names[tensor, Number.FP8] = writer.activation(read, params, "_fp8")

        pairs_after(self._graph.input)
        nodes.extend(writer.take())
        for node in source:
            layer = self._layers.get(node.name)
            original = list(node.input)
            if layer is not None:
                self._write_weight(node, layer, allocation, placement, writer)
                nodes.extend(writer.take())
            for index, name in enumerate(original):
                number = placement.readers.get((node.name, name))
                if number is None and name in placement.rounded:
                    number = Number.INT8
                if number is not None:
                    node.input[index] = names[name, number]
            nodes.append(node)
            used.update(node.input)
            for name in node.output:
                pairs_after(name)
            nodes.extend(writer.take())
        return nodes, used

    def _write_weight(
        self,
        node: onnx.NodeProto,
        layer: Layer,
        allocation: Allocation,
        placement: Placement,
        writer: QdqWriter,
    ) -> None:
        name = allocation.formats.get(layer.name, UNQUANTIZED)
        index = list(node.input).index(layer.weight)
        if not FORMATS[name].quantizes_weight:
            values = self._array(layer.weight)
            if self._runtime.startswith("onnxruntime") and np.abs(values).max(initial=0.0) <= _FP16_MAX:
                node.input[index] = writer.half(layer.weight, values)
            return
        weight = self.weight(layer, name)
        fold = self._runtime.startswith("onnxruntime") and layer.name not in placement.integer_nodes
        node.input[index] = (writer.folded_weight if fold else writer.weight)(layer.weight, weight)
        bias = node.input[2] if len(node.input) > 2 else ""
        if layer.name in placement.integer_bias and bias in self._graph.initializers:
            scale = placement.pairs[layer.input, Number.INT8].scale
            node.input[2] = writer.bias(f"{layer.name}_bias", self._array(bias), scale, weight)

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(self._graph.initializers[name], dtype=np.float32)

    def _check(self, allocation: Allocation) -> None:
        for name, _ in allocation.items:
            if name not in self._layers:
                reason = next((layer.reason for layer in self._graph.layers if layer.name == name), None)
                why = f"cannot be quantized: {reason}" if reason else "is not in the model"
                raise InputError(f"scheme: layer {name!r} {why}{nearest(name, self._layers)}")

    def _opset(self, allocation: Allocation) -> int:
        numbers = {n for _, f in allocation.items for n in (FORMATS[f].weight, FORMATS[f].activation)}
        needed = 21 if Number.INT4 in numbers else 19 if Number.FP8 in numbers else 13
        return max(needed, self._graph.opset)

    def _skeleton(self, opset: int) -> onnx.ModelProto:
        """The model at an opset, without initializers and inner shapes, which change from scheme to scheme."""
        if opset not in self._base:
            model = self._graph.model
            if opset != self._graph.opset:
                model = onnx.version_converter.convert_version(model, opset)
            bare = onnx.ModelProto()
            bare.CopyFrom(model)
            bare.ir_version = max(model.ir_version, 10 if opset >= 21 else 9 if opset >= 19 else 8)
            if self._runtime.startswith("onnxruntime"):
                rewrite_dfl(bare, opset)
            known = {tensor.name for tensor in self._graph.model.graph.initializer}
            added = [t for t in bare.graph.initializer if t.name not in known]
            del bare.graph.initializer[:]
            bare.graph.initializer.extend(added)
            del bare.graph.value_info[:]
            self._base[opset] = bare
        return self._base[opset]


def _rules(runtime: str, graph: ModelGraph, table: CalibrationTable) -> PlacementRules:
    if runtime in ("onnxruntime-cpu", "onnxruntime-cuda"):
        return OnnxRuntimePlacement(graph, table)
    if runtime == "tensorrt":
        return TensorRtPlacement(graph, table)
    raise InputError(f"runtime.name: {runtime!r} is not one of onnxruntime-cpu, onnxruntime-cuda, tensorrt")
