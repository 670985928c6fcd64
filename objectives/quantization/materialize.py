"""Materializes an allocation: from the model, its ranges and cached weights to one Q/DQ ONNX artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.artifact import Artifact
from objectives.quantization.biases import as_vector, bias_scale, with_room
from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.decoding import decoding
from objectives.quantization.dialect import Dialect
from objectives.quantization.float_nodes import FullPrecision
from objectives.quantization.full_precision import full_precision
from objectives.quantization.half_constants import LARGEST, lost
from objectives.quantization.half_graph import to_half
from objectives.quantization.opsets import at_opset
from objectives.quantization.placement import Placement
from objectives.quantization.qdq import QdqWriter, unpacked_from
from objectives.quantization.recovery import Recovered
from objectives.quantization.refined import Refined
from objectives.quantization.weights import LayerNumbers, QuantizedWeight, WeightSettings, quantize_weight, weight_key
from objectives.scores import Size
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError, nearest
from search_spaces.formats import FORMATS, UNQUANTIZED, NumberSpec
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph
from search_spaces.subgraphs import reads

_BLOCKS = 21  # the first opset whose DequantizeLinear knows blocks


class Materializer:
    """Assembles artifacts of one model for one runtime; each (layer, weight format) is quantized once and kept.

    Args:
        graph: The unquantized model.
        table: Ranges of its activations.
        dialect: How the runtime wants its graphs: placement rules and types.
        weights: How weights are quantized.
        recovered: ``{weight_key: weight}`` of the weights that `weights` wants recovered.
        refined: ``{key: better numbers}`` of single schemes, for allocations whose `numbers` is that key.
    """

    def __init__(
        self,
        graph: ModelGraph,
        table: CalibrationTable,
        dialect: Dialect,
        weights: WeightSettings | None = None,
        recovered: Mapping[str, Recovered] | None = None,
        refined: Mapping[str, Refined] | None = None,
    ) -> None:
        self._graph = graph
        self._settings = weights or WeightSettings()
        self._dialect = dialect
        self._table = table
        self._rules = dialect.placement(graph, table)
        self._recovered = recovered or {}
        self._refined = refined or {}
        self._numbers, self._own = "", Refined({}, {}, dialect.name)
        self._others: dict[str, Materializer] = {}
        self._cache: dict[str, QuantizedWeight] = {}
        self._layers = {layer.name: layer for layer in graph.quantizable}
        self._base: dict[int, onnx.ModelProto] = {}

    def materialize(self, allocation: Allocation, extra_outputs: Sequence[str] = ()) -> Artifact:
        """Builds the artifact of one allocation.

        Args:
            allocation: A format per layer; layers that it leaves out stay unquantized.
            extra_outputs: Tensors of the model to add as outputs, after the model's own.

        Raises:
            InputError: The allocation names an unknown or unquantizable layer, or refined numbers that are not here or
                stand in other pairs.
        """
        if allocation.numbers != self._numbers:
            return self._with(allocation.numbers).materialize(allocation, extra_outputs)
        self._check(allocation)
        folded = self._folded(allocation)
        size = self.size(allocation)
        data, precision = self._assemble(allocation, frozenset(), extra_outputs)
        if not folded:
            return Artifact(data, size, precision=precision)
        build, _ = self._assemble(allocation, frozenset(folded), extra_outputs)
        return Artifact(data, size, build, folded, precision)

    def _with(self, key: str) -> Materializer:
        """One that has refined numbers in the place of the shared ones."""
        if key not in self._refined:
            raise InputError(f"scheme: its refined numbers ({key}) are not there; refine the trial again")
        if key not in self._others:
            own = self._refined[key]
            recovered = {**self._recovered, **own.weights}
            found = Materializer(self._graph, self._table, self._dialect, self._settings, recovered, self._refined)
            found._numbers, found._own = key, own
            self._others[key] = found
        return self._others[key]

    def _folded(self, allocation: Allocation) -> tuple[str, ...]:
        """Layers whose weights the engine builder must be given unpacked."""
        return tuple(
            name
            for name, fmt in allocation.items
            if FORMATS[fmt].quantizes_weight and self._dialect.unpacks(self._layers[name], FORMATS[fmt])
        )

    def _assemble(
        self, allocation: Allocation, folded: frozenset[str], extra_outputs: Sequence[str]
    ) -> tuple[bytes, FullPrecision]:
        """Serializes the model with the weights of the `folded` layers unpacked; and what of it stays float32."""
        placement = self.placement(allocation)
        model = onnx.ModelProto()
        model.CopyFrom(self._skeleton(self._opset(allocation, folded)))
        writer = QdqWriter(model.graph, self._graph.initializers)
        nodes, used = self._rewrite(model.graph.node, allocation, placement, writer, folded)
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
        self._dialect.finish(model, self._graph.shapes)
        precision = self.precision
        if self._dialect.half_graph:
            model, scaled = to_half(model, self._late | precision.names, precision.tensors)
            precision = replace(precision, nodes=(*precision.nodes, *scaled))
        return bytes(model.SerializeToString(deterministic=True)), precision

    @property
    def graph(self) -> ModelGraph:
        """The unquantized model."""
        return self._graph

    @property
    def dialect(self) -> Dialect:
        """How the runtime wants its graphs."""
        return self._dialect

    def placement(self, allocation: Allocation) -> Placement:
        """Every Q/DQ pair of one allocation."""
        placed, own = self._rules.place(allocation), self._own
        if not self._numbers:
            return placed
        if own.pairs.keys() != {(tensor, number.name) for tensor, number in placed.pairs}:
            raise InputError(f"refined numbers are those of {own.dialect}, not of {self._dialect.name}; refine for it")
        pairs = {(tensor, number): own.pairs[tensor, number.name] for tensor, number in placed.pairs}
        return replace(placed, pairs=pairs)

    def numbers(self, layer: Layer, fmt: str, placement: Placement) -> LayerNumbers:
        """What the artifact stores of a quantized layer; raises as `weight` does."""
        weight = self.weight(layer, fmt)
        entry = self._recovered.get(weight_key(layer, FORMATS[fmt], self._settings))
        shift = entry.shift if entry is not None else None
        bias = self._bias(self._nodes[layer.name], layer, shift)
        if layer.name not in placement.integer_bias or bias is None:
            return LayerNumbers(weight, bias, shift)
        input_scale = placement.pairs[layer.input, FORMATS[fmt].activation].scale
        return LayerNumbers(with_room(weight, layer, bias, input_scale), bias, shift, input_scale)

    def size(self, allocation: Allocation) -> Size:
        """Weight size of an allocation, exact, without building it."""
        total = parameters = 0
        for layer in self._graph.layers:
            if layer.parameters:
                parameters += layer.parameters
                total += self.layer_bytes(layer, allocation.formats.get(layer.name, UNQUANTIZED))
        return Size(total, 8 * total / parameters, parameters)

    def layer_bytes(self, layer: Layer, fmt: str) -> int:
        """Bytes of one layer's weight in a format, scales counted.

        Raises:
            InputError: As `weight` does.
        """
        if not FORMATS[fmt].quantizes_weight:
            return FORMATS[fmt].weight.bits // 8 * layer.parameters
        weight = self.weight(layer, fmt)
        return weight.code_bytes + weight.scale_bytes(self._dialect.scale_bytes or weight.scale.itemsize)

    def weight(self, layer: Layer, fmt: str) -> QuantizedWeight:
        """The quantized weight of a layer, computed once per number format and granularity.

        Raises:
            InputError: It should have been recovered on calibration images, and was not.
        """
        key = weight_key(layer, FORMATS[fmt], self._settings)
        if key in self._recovered:
            return self._recovered[key].weight
        if self._settings.recovers(layer, FORMATS[fmt]):
            raise InputError(
                f"weights.method: {self._settings.method!r} needs calibration images for layer {layer.name!r} in "
                f"{fmt}, and has none here; choose rtn"
            )
        if key not in self._cache:
            self._cache[key] = quantize_weight(self._array(layer.weight), layer, FORMATS[fmt], self._settings)
        return self._cache[key]

    def _rewrite(
        self,
        source: Sequence[onnx.NodeProto],
        allocation: Allocation,
        placement: Placement,
        writer: QdqWriter,
        folded: frozenset[str],
    ) -> tuple[list[onnx.NodeProto], set[str]]:
        """Returns the new node list, and the names of the float initializers that it still reads."""
        nodes: list[onnx.NodeProto] = []
        names: dict[tuple[str, NumberSpec], str] = {}
        used = set(self._graph.outputs)
        kinds = sorted({number: None for _, number in placement.pairs}, key=lambda number: not number.is_integer)

        def pairs_after(tensor: str) -> None:
            made = placement.rounded.get(tensor)  # its pair comes first, all others read it; then integers, then floats
            first = True
            for number in kinds if made is None else [made, *(kind for kind in kinds if kind != made)]:
                params = placement.pairs.get((tensor, number))
                if params is None:
                    continue
                read = tensor if made is None or number == made else names[tensor, made]
                if self._dialect.saturates and not number.is_integer:
                    read = writer.saturate(read, params, number.largest)
                label = "" if first and number.is_integer else f"_{number.name}"
                names[tensor, number] = writer.activation(read, params, label)
                first = False

        pairs_after(self._graph.input)
        nodes.extend(writer.take())
        for node in source:
            layer = self._layers.get(node.name)
            original = list(node.input)
            if layer is not None:
                self._write_weight(node, layer, allocation, placement, writer, folded)
                nodes.extend(writer.take())
            for index, name in enumerate(original):
                number = placement.readers.get((node.name, name)) or placement.rounded.get(name)
                if number is not None:
                    node.input[index] = names[name, number]
            nodes.append(node)
            used.update(reads(node) if node.name in self._graph.holders else node.input)
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
        folded: frozenset[str],
    ) -> None:
        name = allocation.formats.get(layer.name, UNQUANTIZED)
        index = list(node.input).index(layer.weight)
        if not FORMATS[name].quantizes_weight:
            values = self._array(layer.weight)
            held = np.abs(values).max(initial=0.0) <= LARGEST and not lost(values, whole=True)
            if self._dialect.half_weights and held:
                node.input[index] = writer.half(layer.weight, values)
            return
        found = self.numbers(layer, name, placement)
        weight, bias = found.weight, found.bias
        if layer.name in folded:
            node.input[index] = writer.array(f"{layer.weight}_unpacked", weight.dequantized())
        else:
            fold = self._dialect.unpacked_at_load and layer.name not in placement.integer_nodes
            if fold:
                node.input[index] = writer.folded_weight(layer.weight, weight)
            else:
                node.input[index] = writer.weight(layer.weight, weight, self._dialect.flat_blocks)
        if bias is not None and found.input_scale is not None:
            step = bias_scale(weight, layer, found.input_scale)
            _set_bias(node, writer.bias(f"{layer.name}_bias", bias, step))
        elif bias is not None and found.shift is not None:
            _set_bias(node, writer.array(f"{layer.name}_bias_corrected", bias))

    @cached_property
    def _nodes(self) -> dict[str, onnx.NodeProto]:
        return {node.name: node for node in self._graph.nodes()}

    def _bias(
        self, node: onnx.NodeProto, layer: Layer, shift: NDArray[np.float32] | None
    ) -> NDArray[np.float32] | None:
        """A layer's constant bias with what its recovered weight adds to it, per output channel; None without one."""
        name = node.input[2] if len(node.input) > 2 else ""
        if name not in self._graph.initializers:
            return shift
        bias = as_vector(self._array(name), layer)
        return bias if bias is None or shift is None else bias + shift

    @cached_property
    def precision(self) -> FullPrecision:
        """What fp16 cannot hold of the model, whatever the scheme; of a float32 graph nothing."""
        if not self._dialect.half_graph:
            return FullPrecision()
        return full_precision(self._graph, self._table, self._late)

    @cached_property
    def _late(self) -> frozenset[str]:
        """Nodes that compute pixel coordinates."""
        return decoding(self._graph)

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(self._graph.initializers[name], dtype=np.float32)

    def _check(self, allocation: Allocation) -> None:
        for name, fmt in allocation.items:
            if refusal := self._dialect.refuses(FORMATS[fmt]):
                raise InputError(f"scheme: {fmt} of layer {name!r} {refusal}")
            if name not in self._layers:
                reason = next((layer.reason for layer in self._graph.layers if layer.name == name), None)
                why = f"cannot be quantized: {reason}" if reason else "is not in the model"
                raise InputError(f"scheme: layer {name!r} {why}{nearest(name, self._layers)}")
            if lack := self._layers[name].lacks(FORMATS[fmt]):
                raise InputError(f"scheme: layer {name!r}: {lack}")

    def _opset(self, allocation: Allocation, folded: frozenset[str]) -> int:
        """The least opset that has everything the artifact holds, and that its reader knows."""
        kept = [(name, FORMATS[fmt]) for name, fmt in allocation.items]
        at_load = self._dialect.unpacked_at_load
        weights = {
            unpacked_from(fmt.weight) if at_load and not fmt.activation.is_integer else fmt.weight
            for name, fmt in kept
            if name not in folded
        }
        numbers = weights | {fmt.activation for _, fmt in kept}
        needed = max((number.opset for number in numbers), default=0)
        if not at_load and any(
            self.weight(self._layers[name], fmt.name).block_size
            for name, fmt in kept
            if fmt.quantizes_weight and name not in folded
        ):
            needed = max(needed, _BLOCKS)
        own, highest = self._graph.opset, self._dialect.highest_opset
        return max(needed, self._dialect.least_opset, own if highest is None else min(own, highest))

    def _skeleton(self, opset: int) -> onnx.ModelProto:
        """The model at an opset, without initializers and inner shapes, which change from scheme to scheme."""
        if opset not in self._base:
            model = self._graph.model
            if opset != self._graph.opset:
                remedy = f"export it with opset={self._dialect.export_opset}"
                model = at_opset(model, opset, self._graph.path, remedy)
            bare = onnx.ModelProto()
            bare.CopyFrom(model)
            bare.ir_version = max(
                model.ir_version, 11 if opset >= 23 else 10 if opset >= 21 else 9 if opset >= 19 else 8
            )
            self._dialect.rewrite(bare, opset)
            known = {tensor.name for tensor in self._graph.model.graph.initializer}
            added = [t for t in bare.graph.initializer if t.name not in known]
            del bare.graph.initializer[:]
            bare.graph.initializer.extend(added)
            del bare.graph.value_info[:]
            self._base[opset] = bare
        return self._base[opset]


def _set_bias(node: onnx.NodeProto, name: str) -> None:
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)
