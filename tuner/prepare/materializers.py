"""Makes the materializers of a study: one for its artifacts, one for comparisons in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import Recovered
from objectives.quantization.refined import Refined
from objectives.runtimes.registry import open_runtime
from search_spaces.formats import FORMATS
from search_spaces.model_graph import ModelGraph
from tuner.prepare.weights import weight_settings
from tuner.study.config import StudyConfig
from tuner.study.inputs import Inputs


def batched_graph(graph: ModelGraph, batch: int) -> ModelGraph:
    """A model at the batch of its study; calibration and sensitivity take its images one by one."""
    return graph if batch == 1 else ModelGraph(graph.path, batch=batch, image_size=graph.sized)


def make_materializer(
    config: StudyConfig,
    graph: ModelGraph,
    table: CalibrationTable,
    weights: Mapping[str, Recovered],
    version: str | None = None,
    refined: Mapping[str, Refined] | None = None,
) -> Materializer:
    """Makes what assembles the artifacts of a study.

    Args:
        config: The study.
        graph: Its model, at its batch.
        table: Its ranges.
        weights: Its reconstructed weights.
        version: Of the runtime that its artifacts were written for; by default the installed one.
        refined: ``{key: numbers}`` of its refined schemes.
    """
    dialect = open_runtime(config.runtime).dialect(version)
    return Materializer(graph, table, dialect, weight_settings(config.weights), weights, refined)


def float_materializer(
    inputs: Inputs,
    graph: ModelGraph,
    table: CalibrationTable,
    weights: Mapping[str, Recovered],
    refined: Mapping[str, Refined] | None = None,
) -> Materializer:
    """For runs in ONNX Runtime: of a runtime's dialects the one in float32, which runs faster and exactly there.

    Args:
        inputs: The study.
        graph: The model at the batch that it will be given.
        table: Ranges.
        weights: Reconstructed weights.
        refined: ``{key: numbers}`` of refined schemes.
    """
    names = {name for formats in inputs.space.formats for name in formats}
    dialect = inputs.runtime.portable_dialect([FORMATS[name] for name in names])
    return Materializer(graph, table, dialect, weight_settings(inputs.config.weights), weights, refined)
