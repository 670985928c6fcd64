"""Quantizing in stages: later layers see what the quantized weights of earlier ones give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.weights import QuantizedWeight
from search_spaces.formats import Format
from search_spaces.layers import Layer
from search_spaces.names import FreshNames, names_in

Pairs = dict[str, tuple[Layer, Format]]


def split_stages(pairs: Pairs, order: Sequence[str], count: int) -> Iterator[Pairs]:
    """Splits layers, in the order of the model's nodes, into stages of about equal size.

    Args:
        pairs: ``{weight_key: (layer, format)}``; all formats of a layer fall into one stage.
        order: Names of the model's nodes.
        count: Stages; with fewer layers than stages, each layer is one.
    """
    wanted = {layer.name for layer, _ in pairs.values()}
    names = [name for name in order if name in wanted]
    for stage in np.array_split(np.array(names, dtype=object), max(1, min(count, len(names)))):
        inside = set(stage)
        yield {key: pair for key, pair in pairs.items() if pair[0].name in inside}


def lowest(pairs: Pairs) -> Iterator[tuple[str, Layer]]:
    """The key of every layer's format of fewest bits, which stands for all formats that it may get."""
    chosen: dict[str, tuple[str, Layer, Format]] = {}
    for key, (layer, fmt) in pairs.items():
        if layer.name not in chosen or fmt.weight.bits < chosen[layer.name][2].weight.bits:
            chosen[layer.name] = key, layer, fmt
    for key, layer, _ in chosen.values():
        yield key, layer


def with_weights(
    model: onnx.ModelProto,
    initializers: Mapping[str, NDArray[np.generic]],
    entries: Iterable[tuple[Layer, QuantizedWeight, NDArray[np.float32] | None]],
) -> onnx.ModelProto:
    """A copy of a model whose layers compute in float with their quantized weights and corrected biases.

    Args:
        model: Not changed.
        initializers: Values of the unquantized model's.
        entries: Layers that are still unquantized in `model`, their weights, and what is added to their biases.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = {node.name: node for node in copy.graph.node}
    fresh = FreshNames(names_in(copy.graph)[0])
    for layer, weight, shift in entries:
        node = nodes[layer.name]
        # New names: other layers may read the same initializers.
        name = fresh(f"{layer.name}_stage_weight")
        values = {name: weight.dequantized()}
        node.input[list(node.input).index(layer.weight)] = name
        if shift is not None:
            bias = node.input[2] if len(node.input) > 2 else ""
            old = np.asarray(initializers[bias], np.float32).reshape(-1) if bias else np.float32(0)
            del node.input[2:]
            node.input.append(fresh(f"{layer.name}_stage_bias"))
            values[node.input[2]] = old + shift
        copy.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    return copy
