"""What the builder made of a scheme: the precision and the time of every engine layer, beside what was asked for.

Read back from the engine inspector, so that a layer that did not get its format is seen and not assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from objectives.runtimes.engine_report import EngineLayer, EngineReport
from objectives.runtimes.owners import Owners, first_layer
from objectives.runtimes.runtime import Opened
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.model_graph import ModelGraph

if TYPE_CHECKING:
    from objectives.runtimes.tensorrt.runner import TensorRtRunner

# How the inspector names number formats in "Format/Datatype", most specific first.
_DATATYPES = (
    ("fp8", re.compile(r"fp8|float8|e4m3", re.IGNORECASE)),
    ("int4", re.compile(r"int4", re.IGNORECASE)),
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|float16", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float|\btf32", re.IGNORECASE)),
    ("int32", re.compile(r"int32|int64|bool", re.IGNORECASE)),
)
_REFORMATS = ("reformat", "reformatting")


def report_of(
    opened: Opened, graph: ModelGraph, allocation: Allocation, folded: tuple[str, ...], version: str
) -> EngineReport:
    """Asks an engine's inspector and its profiler; nothing may be timed with it afterwards.

    Args:
        opened: Holds a `TensorRtRunner`.
        graph: The unquantized model.
        allocation: What was asked for.
        folded: Layers whose weights the builder was given unpacked.
        version: Of the TensorRT that built it.
    """
    runner: TensorRtRunner = opened.runner  # type: ignore[assignment]
    layers, unmet = read_engine(runner.inspection, runner.layer_times(), graph, allocation)
    size, seconds = runner.plan_bytes, opened.build_seconds
    return EngineReport(layers, unmet, size, seconds, version, folded, runner.method, opened.place_spread)


def read_engine(
    inspection: Sequence[Mapping[str, Any]],
    times: Mapping[str, float],
    graph: ModelGraph,
    allocation: Allocation,
) -> tuple[tuple[EngineLayer, ...], tuple[tuple[str, str, str], ...]]:
    """Reads the inspector's answer beside the allocation.

    Args:
        inspection: Layers as `ICudaEngine`'s inspector describes them (detailed verbosity).
        times: ``{engine layer: milliseconds}``.
        graph: The unquantized model.
        allocation: What was asked for.

    Returns:
        The layers in execution order, and what was not met. A model layer that the engine fused into one with several
        others (a "foreign node") is left out of the second, as the inspector does not say what each part ran in.
    """
    owners = Owners(graph)
    layers = []
    ran: dict[str, str] = {}
    for entry in inspection:
        name = str(entry.get("Name", ""))
        owned = first_layer(name, owners.quantizable)
        precision = _precision(entry)
        kind = _kind(entry, name)
        layers.append(EngineLayer(name, kind, owned or owners.above(name), precision, times.get(name, 0.0)))
        if owned and kind in ("Convolution", "MatrixMultiply", "FullyConnected", "Gemm", "Deconvolution"):
            ran[owned] = precision
    unmet = []
    for layer in owners.quantizable:
        asked = FORMATS[allocation.formats.get(layer, UNQUANTIZED)].activation.name
        if ran.get(layer, asked) not in (asked, ""):
            unmet.append((layer, asked, ran[layer]))
    return tuple(layers), tuple(unmet)


def _kind(entry: Mapping[str, Any], name: str) -> str:
    kind = str(entry.get("LayerType", ""))
    if kind.lower() in _REFORMATS or name.startswith("Reformatting CopyNode"):
        return "Reformat"
    # TensorRT 8.6 calls its convolution kernels "CaskConvolution" and those of later versions "CaskGemm..." alike.
    for known in ("Convolution", "Deconvolution", "MatrixMultiply", "Gemm", "PointWise", "Pooling", "SoftMax"):
        if known.lower() in kind.lower():
            return known
    return kind


def _precision(entry: Mapping[str, Any]) -> str:
    """The number format of the first input (an output's, where there is none)."""
    for side in ("Inputs", "Outputs"):
        for tensor in entry.get(side) or []:
            text = str(tensor.get("Format/Datatype", "")) if isinstance(tensor, Mapping) else ""
            for precision, pattern in _DATATYPES:
                if pattern.search(text):
                    return precision
    return ""
