"""What OpenVINO made of a scheme: the precision and the time of every layer that it executes."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from objectives.runtimes.engine_report import EngineLayer, EngineReport
from objectives.runtimes.openvino.runner import OpenVinoRunner
from objectives.runtimes.owners import Owners
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.model_graph import ModelGraph

if TYPE_CHECKING:
    import openvino

_ITERATIONS = 10
_FULL = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
#: How the graph that is executed names element types.
_TYPES = {**_FULL, "i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4", "i32": "int32", "i64": "int32"}
_COMPUTING = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul")
#: What OpenVINO's passes hang on the name of a node whose work they split.
_ADDED = re.compile(r"(/WithoutBiases|_original|/DequantizeLinear|_(De)?[qQ]uantizeLinear)+$")


def report_of(
    compiled: openvino.CompiledModel,
    graph: ModelGraph,
    allocation: Allocation,
    *,
    engine_bytes: int,
    build_seconds: float,
    version: str,
    precision: str,
) -> EngineReport:
    """Profiles a model that was compiled with ``PERF_COUNT``.

    Args:
        compiled: The model.
        graph: The unquantized model.
        allocation: What was asked for.
        engine_bytes: Size of the compiled model.
        build_seconds: As of `EngineReport`.
        version: OpenVINO's.
        precision: What unquantized layers are to run in: ``f32``, ``f16``, ``bf16``.
    """
    layers, ran = read_layers(compiled.get_runtime_model(), layer_times(compiled), graph)
    unmet = []
    for name in (layer.name for layer in graph.quantizable):
        fmt = FORMATS[allocation.formats.get(name, UNQUANTIZED)]
        asked = fmt.activation.name if fmt.quantizes_activation else _FULL[precision]
        if ran.get(name, asked) not in (asked, ""):
            unmet.append((name, asked, ran[name]))
    return EngineReport(layers, tuple(unmet), engine_bytes, build_seconds, version, method="clock")


def layer_times(compiled: openvino.CompiledModel) -> dict[str, float]:
    """``{executed layer: median milliseconds}`` of inferences of noise; the first allocates and does not count."""
    request = compiled.create_infer_request()
    shape = OpenVinoRunner(compiled).input_shape
    kind = compiled.input(0).get_element_type().to_dtype()
    image = np.random.default_rng(0).random([size or 1 for size in shape], dtype=np.float32).astype(kind)
    found: dict[str, list[float]] = {}
    for _ in range(_ITERATIONS + 1):
        request.infer(image)
        for entry in request.profiling_info:
            found.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1000)
    return {name: statistics.median(times[1:] or times) for name, times in found.items()}


def read_layers(
    executed: openvino.Model, times: Mapping[str, float], graph: ModelGraph
) -> tuple[tuple[EngineLayer, ...], dict[str, str]]:
    """The layers of the graph that is executed, in its order; inputs, outputs and constants take no time.

    Args:
        executed: `CompiledModel.get_runtime_model`.
        times: ``{layer: milliseconds}``.
        graph: The unquantized model.

    Returns:
        The layers, and ``{quantizable model layer: precision that it runs in}``.
    """
    owners = Owners(graph)
    # A node that makes an output of the model goes by the output's name.
    names = {name: layer.name for layer in graph.quantizable for name in (layer.name, layer.output)}
    ran: dict[str, str] = {}
    belongs: dict[str, str] = {}
    layers = []
    for node in executed.get_ordered_ops():
        name, facts = node.get_friendly_name(), node.get_rt_info()
        kind = _text(facts, "layerType")
        sources = [node.input_value(index).get_node().get_friendly_name() for index in range(node.get_input_size())]
        above = next((belongs[source] for source in sources if belongs.get(source)), "")
        originals = [_ADDED.sub("", known) for known in _text(facts, "originalLayersNames").split(",") if known]
        own = next((names[known] for known in originals if known in names), "")
        belongs[name] = own or next((found for known in originals if (found := owners.above(known))), above)
        if kind in ("Input", "Output", "Const", "Constant", "Parameter", "Result") or name not in times:
            continue
        shown = "Reformat" if kind == "Reorder" else kind
        precision = _TYPES.get(_text(facts, "runtimePrecision").lower(), "")
        layers.append(EngineLayer(name, shown, belongs[name], precision, times[name]))
        if own and kind in _COMPUTING:
            ran[own] = precision
    return tuple(layers), ran


def _text(facts: Mapping[str, Any], key: str) -> str:
    return str(facts[key].astype(str)) if key in facts else ""
