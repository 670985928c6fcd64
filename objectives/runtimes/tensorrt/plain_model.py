"""A model file that belongs to no study, as the builder of strongly typed networks takes it."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

_NOISE_IMAGES = 2


def unquantized(graph: ModelGraph, dialect: Dialect) -> bytes:
    """A model file as an engine builder takes it; what stays in float32 for its values' sake is said on stderr.

    Args:
        graph: Plain, or with Q/DQ or in fp16 already: an exported scheme, which stays as it is.
        dialect: Of the builder.
    """
    quantized = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes())
    if quantized or graph.narrow:
        return bytes(graph.in_own_types().SerializeToString(deterministic=True))
    table = noise_ranges(graph) if dialect.half_graph else CalibrationTable(graph.digest, "max", 0, {"max": {}})
    artifact = Materializer(graph, table, dialect).materialize(Allocation(()))
    for line in artifact.precision.lines():
        print(f"{graph.path}: {line}", file=sys.stderr, flush=True)
    return artifact.engine_model


def noise_ranges(graph: ModelGraph) -> CalibrationTable:
    """Ranges of a model that comes without calibration images, as noise shows them; none where its size is open."""
    if not all(graph.input_shape):
        return CalibrationTable(graph.digest, "max", 0, {"max": {}})
    draw = np.random.default_rng(0)
    found = calibrate(graph, (draw.random(graph.input_shape, dtype=np.float32) for _ in range(_NOISE_IMAGES)), "max")
    return replace(found, images=0)  # no calibration images: whoever reads it says so
