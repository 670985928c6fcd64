"""The latency prior: milliseconds of each layer in each format, read from ONNX Runtime's own profiler.

Few runs suffice: the unquantized artifact, and one uniform artifact per integer type of activations. The time of an
operator that is no layer (SiLU, Concat, Q/DQ, ...) counts for the nearest layer above it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from objectives.quantization.materialize import Materializer
from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable
from search_spaces.formats import FORMATS, UNQUANTIZED, NumberSpec
from search_spaces.model_graph import ModelGraph

_ITERATIONS = 8
_EMULATION = 1.5  # of float activations without kernels, in times of the unquantized layer
_INPUT = ""  # time of operators that no layer stands above


def profile_costs(
    graph: ModelGraph, materializer: Materializer, image: NDArray[np.float32], threads: int = 1
) -> CostTable:
    """Profiles the model on ONNX Runtime's CPU.

    Args:
        graph: The unquantized model.
        materializer: Of this model, for ONNX Runtime.
        image: One batch ``(1, 3, H, W)`` float32.
        threads: As in the study.

    Returns:
        Milliseconds of every (layer, format). Weight-only formats cost what the unquantized layer costs, because
        their weights are unpacked when the model loads; fp8 adds the time of its emulation, taken as 1.5 x.
    """
    layers = [layer.name for layer in graph.quantizable]
    profiled: dict[NumberSpec, str] = {}  # by what the kernels compute in
    for name, fmt in FORMATS.items():
        if name == UNQUANTIZED or fmt.activation.is_integer:
            profiled.setdefault(fmt.activation, name)
    times = {
        fmt: _by_layer(graph, _profile(materializer.materialize(Allocation.uniform(layers, fmt)).data, image, threads))
        for fmt in profiled.values()
    }
    costs = {}
    for layer in layers:
        for name, fmt in FORMATS.items():
            base = times[profiled.get(fmt.activation, UNQUANTIZED)].get(layer, 0.0)
            costs[layer, name] = base * (1.0 if fmt.activation in profiled else _EMULATION)
    fixed = sum(time for layer, time in times[UNQUANTIZED].items() if layer not in layers)
    return CostTable("ms", costs, f"ONNX Runtime profile, {_ITERATIONS} iterations, {threads} threads", fixed)


def _profile(model: bytes, image: NDArray[np.float32], threads: int) -> dict[str, float]:
    """Median milliseconds of every executed node."""
    with TemporaryDirectory(prefix="tuner-profile-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for _ in range(_ITERATIONS):
            session.run(None, {name: image})
        events = json.loads(Path(session.end_profiling()).read_text())
    found: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event["dur"] / 1000)
    # The first iteration allocates; it is not the model's time.
    return {name: statistics.median(times[1:] or times) for name, times in found.items()}


def _by_layer(graph: ModelGraph, times: dict[str, float]) -> dict[str, float]:
    """Sums node times by the layer they belong to; optimized nodes keep the first name's beginning."""
    owner = _owners(graph)
    names = sorted(owner, key=len, reverse=True)
    found: dict[str, float] = {}
    for name, time in times.items():
        original = _original(name, names)
        layer = owner.get(original, _INPUT)
        found[layer] = found.get(layer, 0.0) + time
    return found


def _original(name: str, names: Iterable[str]) -> str:
    return next((known for known in names if name.startswith(known)), "")


def _owners(graph: ModelGraph) -> dict[str, str]:
    """``{node or tensor name: the last layer at or above it}``."""
    layers = {layer.name: rank for rank, layer in enumerate(graph.quantizable)}
    above: dict[str, str] = {}
    owner: dict[str, str] = {}
    for node in graph.nodes():
        sources = [above[name] for name in node.input if above.get(name)]
        chosen = node.name if node.name in layers else max(sources, key=layers.__getitem__, default=_INPUT)
        owner[node.name] = chosen
        for name in node.output:
            above[name] = owner[name] = chosen
    return owner
