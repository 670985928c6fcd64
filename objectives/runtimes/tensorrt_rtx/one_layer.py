"""What TensorRT-RTX builds at all: every distinct layer in every format is built alone, and the answers are kept.

A build takes a fraction of a second on the CPU. What an answer depends on names it in the table, which lies in the
cache of the builder's version and of the GPU's compute capability.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings, resolve_granularity
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.tensorrt_rtx.capability import Capability, capability_text
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS
from search_spaces.layers import Layer
from search_spaces.limits import STEP_SECONDS, scratch
from search_spaces.model_graph import ModelGraph
from search_spaces.spawned import NoAnswer, Spawned, calling


@dataclass(frozen=True)
class Answer:
    """Whether one kind of layer is built in one format.

    Attributes:
        op: ONNX operator; a Conv of one input channel a group is called depthwise.
        weight_shape: As of `Layer`.
        input_shape: As of `Layer`.
        format: Name of the format.
        granularity: Of the weight's scales.
        reason: Why not; empty where it is built.
    """

    op: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    format: str
    granularity: str
    reason: str


class SupportTable:
    """The answers of one builder's version for one compute capability.

    Args:
        path: Where they are kept; need not exist.
        dialect: How the builder wants its graphs.
        capability: Of the GPU.
    """

    def __init__(self, path: Path, dialect: Dialect, capability: Capability) -> None:
        self._path = path
        self._dialect = dialect
        self._capability = capability
        self._answers: dict[str, Answer] = {}
        if path.is_file():
            for key, row in json.loads(path.read_text())["answers"].items():
                shapes = {name: tuple(row[name]) for name in ("weight_shape", "input_shape")}
                self._answers[key] = Answer(**{**row, **shapes})

    def unbuildable(
        self, graph: ModelGraph, wanted: Mapping[str, Sequence[str]], weights: WeightSettings
    ) -> dict[tuple[str, str], str]:
        """``{(layer, format): reason}`` of the pairs that cannot be built.

        Args:
            graph: The unquantized model.
            wanted: ``{format: layers that may take it}``.
            weights: How weights are quantized; the codes themselves are no matter, so they are rounded.
        """
        weights = replace(weights, method="rtn", sequential=1)
        nodes = {node.name: node for node in graph.nodes()}
        layers = {layer.name: layer for layer in graph.quantizable}
        refused: dict[tuple[str, str], str] = {}
        keys: dict[tuple[str, str], str] = {}
        missing: dict[str, tuple[Layer, str]] = {}
        for fmt, names in wanted.items():
            for name in names:
                if why := self._dialect.refuses(FORMATS[fmt]):
                    refused[name, fmt] = f"{fmt} {why}"
                    continue
                layer = layers[name]
                keys[name, fmt] = key = _key(layer, nodes[name], fmt, weights)
                if key not in self._answers:
                    missing[key] = layer, fmt
        for key, reason in self._build(graph, nodes, missing, weights):
            layer, fmt = missing[key]
            granularity = resolve_granularity(layer, FORMATS[fmt], weights).value
            op = f"depthwise {layer.op}" if layer.depthwise else layer.op
            self._answers[key] = Answer(op, layer.weight_shape, layer.input_shape, fmt, granularity, reason)
        if missing:
            rows = {key: asdict(answer) for key, answer in self._answers.items()}
            capability = capability_text(self._capability)
            write_durably(self._path, json.dumps({"compute_capability": capability, "answers": rows}, indent=1))
        return refused | {pair: self._answers[key].reason for pair, key in keys.items() if self._answers[key].reason}

    def _build(
        self,
        graph: ModelGraph,
        nodes: Mapping[str, onnx.NodeProto],
        missing: Mapping[str, tuple[Layer, str]],
        weights: WeightSettings,
    ) -> Iterator[tuple[str, str]]:
        """``(key, reason)`` of each; in a process of its own, which a crash of the builder may end."""
        with scratch() as folder, Spawned("building", calling) as builder:
            for key, (layer, fmt) in missing.items():
                alone = one_layer(graph, layer, nodes[layer.name], Path(folder) / "layer.onnx")
                ranges = {name: (-1.0, 1.0) for name in (layer.input, layer.output)}
                table = CalibrationTable(alone.digest, "max", 0, {"max": ranges})
                made = Materializer(alone, table, self._dialect, weights).materialize(Allocation.of({layer.name: fmt}))
                try:
                    yield key, builder.ask(_reason, made.engine_model, self._capability, seconds=STEP_SECONDS)
                except NoAnswer as error:
                    if error.kind != "crash":  # of this machine at this moment, which no table may keep
                        raise InputError(f"{graph.path}: layer {layer.name} alone in {fmt}: {error}") from None
                    yield key, str(error)


def one_layer(graph: ModelGraph, layer: Layer, node: onnx.NodeProto, path: Path) -> ModelGraph:
    """A model of one layer, with random weights.

    Args:
        graph: The model that it is from.
        layer: The layer.
        node: Its node.
        path: Where the file is written.
    """
    draw = np.random.default_rng(0)
    arrays = [graph.initializers[name] for name in node.input if name in graph.initializers]
    names = [name for name in node.input if name in graph.initializers]
    values = [draw.normal(size=array.shape).astype(np.float32) for array in arrays]
    inputs = [onnx.helper.make_tensor_value_info(layer.input, onnx.TensorProto.FLOAT, layer.input_shape)]
    outputs = [onnx.helper.make_tensor_value_info(layer.output, onnx.TensorProto.FLOAT, layer.output_shape)]
    kept = [onnx.numpy_helper.from_array(value, name) for value, name in zip(values, names, strict=True)]
    body = onnx.helper.make_graph([node], "layer", inputs, outputs, kept)
    opset = onnx.helper.make_opsetid("", graph.opset)
    onnx.save(onnx.helper.make_model(body, opset_imports=[opset], ir_version=graph.model.ir_version), path)
    return ModelGraph(path)


def _key(layer: Layer, node: onnx.NodeProto, fmt: str, weights: WeightSettings) -> str:
    """Digest of all that decides an answer, hex."""
    granularity = resolve_granularity(layer, FORMATS[fmt], weights).value
    attributes = sorted(entry.SerializeToString(deterministic=True).hex() for entry in node.attribute)
    shapes = [layer.weight_shape, layer.input_shape, len(node.input)]
    facts = [layer.op, shapes, attributes, asdict(FORMATS[fmt]), granularity, weights.block_size]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _reason(model: bytes, capability: Capability) -> str:
    from objectives.runtimes.tensorrt_rtx.build import build_engine

    try:
        build_engine(model, capability)
    except BuildError as error:
        return str(error)
    return ""
