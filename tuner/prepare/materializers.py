"""Makes the materializers of a study: one for its artifacts, one for comparisons in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import Recovered
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Number
from search_spaces.model_graph import ModelGraph
from tuner.prepare.targets import float_dialect, has_engines, materializer_dialect
from tuner.prepare.weights import weight_settings
from tuner.study.config import StudyConfig
from tuner.study.inputs import Inputs


def batched_graph(graph: ModelGraph, batch: int) -> ModelGraph:
    """A model at the batch of its study; calibration and sensitivity take its images one by one."""
    return graph if batch == 1 else ModelGraph(graph.path, batch=batch)


def make_materializer(
    config: StudyConfig,
    graph: ModelGraph,
    table: CalibrationTable,
    weights: Mapping[str, Recovered],
    version: str | None = None,
) -> Materializer:
    """Makes what assembles the artifacts of a study.

    Args:
        config: The study.
        graph: Its model, at its batch.
        table: Its ranges.
        weights: Its reconstructed weights.
        version: TensorRT's, where the study runs on it: by default the installed one.

    Raises:
        RuntimeUnavailable: No version is given, and TensorRT is not installed.
    """
    name = materializer_dialect(config.runtime.name, version)
    return Materializer(graph, table, name, weight_settings(config.weights), weights)


def float_materializer(
    inputs: Inputs, graph: ModelGraph, table: CalibrationTable, weights: Mapping[str, Recovered]
) -> Materializer:
    """For runs in ONNX Runtime: of a runtime's dialects the one in float32, which runs faster and exactly there.

    Args:
        inputs: The study.
        graph: The model at the batch that it will be given.
        table: Ranges.
        weights: Reconstructed weights.
    """
    names = {name for formats in inputs.space.formats for name in formats}
    float8 = any(FORMATS[name].activation is Number.FP8 for name in names)
    dialect = float_dialect(inputs.config.runtime.name, float8)
    return Materializer(graph, table, dialect, weight_settings(inputs.config.weights), weights)


def reference_model(config: StudyConfig, graph: ModelGraph) -> bytes | Path:
    """The unquantized model, with which every scheme is compared: the file itself, or what its engine is built from.

    Args:
        config: The study.
        graph: Its model, at its batch.

    Returns:
        Serialized ONNX, or its path.
    """
    if has_engines(config.runtime.name):
        nothing = CalibrationTable(graph.digest, "max", 0, {"max": {}})
        return make_materializer(config, graph, nothing, {}).materialize(Allocation(())).engine_model
    return graph.model.SerializeToString() if config.runtime.batch > 1 else graph.path
