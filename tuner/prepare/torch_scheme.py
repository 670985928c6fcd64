"""One scheme materialized by torch, and how far it is from the same scheme materialized on the ONNX graph."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from objectives.quantization.artifact import Artifact
from objectives.runtimes.opening import open_model
from objectives.runtimes.registry import default_runtime
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.metrics.agreement import agreement
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import Granularity
from search_spaces.model_graph import ModelGraph
from tuner.prepare.predicting import detect
from tuner.study.model_file import CHECKPOINT_SUFFIX


def materialize_by_torch(
    checkpoint: Path,
    graph: ModelGraph,
    allocation: Allocation,
    pixels: PreprocessedImages,
    granularity: Granularity,
    out: Path,
) -> float:
    """Writes the Q/DQ model that torch makes of a scheme, and returns the seconds it took.

    Args:
        checkpoint: The ``.pt``.
        graph: Its export, whose layers the scheme names.
        allocation: The scheme; fp16, int8 and w8a16 only.
        pixels: Calibration images.
        granularity: ``per_tensor``, ``per_channel`` or ``auto``, which is per channel for 8 bits.
        out: File to write.

    Raises:
        InputError: It is no checkpoint, or the scheme has no such form.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    if checkpoint.suffix != CHECKPOINT_SUFFIX:
        raise InputError(f"--by torch: {str(checkpoint)!r} is not a PyTorch checkpoint; give the .pt, or --by onnx")
    if granularity is Granularity.BLOCK:
        raise InputError("--granularity block: torch exports no blocked scales; choose per_channel or --by onnx")
    from objectives.torch_models.checkpoint import load_checkpoint
    from objectives.torch_models.export import map_checkpoint
    from objectives.torch_models.materialize import materialize_torch
    from objectives.torch_models.quantizers import PER_CHANNEL, PER_LAYER

    loaded = load_checkpoint(checkpoint)
    end_to_end = recognise(graph).head.one_to_one
    nodes = map_checkpoint(loaded, graph, end_to_end)
    nodes.require_complete(str(checkpoint), str(graph.path))
    started = time.perf_counter()
    materialize_torch(
        loaded,
        nodes,
        allocation,
        [pixels.batch(index, index + 1) for index in range(len(pixels))],
        out,
        end_to_end=end_to_end,
        metadata=graph.metadata,
        granularity=PER_LAYER if granularity is Granularity.PER_TENSOR else PER_CHANNEL,
    )
    return time.perf_counter() - started


def difference(out: Path, native: Artifact, detector: Detector, pixels: PreprocessedImages) -> Mapping[str, Any]:
    """Compares a model with the natively materialized one, in ONNX Runtime's CPU.

    Returns:
        ``agreement``: of their detections, in [0, 1], 1 where they are the same; ``output_difference``: mean absolute
        difference of the detections' scores, best first.
    """
    found, scores, cpu = [], [], default_runtime()
    for model in (out, native.data):
        with open_model(cpu, model, None) as runner:
            predictions = detect(cpu, runner, pixels, detector)
        found.append(predictions)
        scores.append([np.sort(rows[:, 4])[::-1] for rows in predictions.detections])
    gaps = [np.abs(a[: len(b)] - b[: len(a)]).mean() for a, b in zip(*scores, strict=True) if len(a) and len(b)]
    return {"agreement": agreement(*found), "output_difference": float(np.mean(gaps)) if gaps else 0.0}
