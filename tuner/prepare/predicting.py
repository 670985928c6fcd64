"""The one way in which a study opens a model in a runtime and has it detect on images."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from objectives.runners.runner import Runner
from objectives.tasks.detection.contract import DetectorContract
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.coco import Predictions
from objectives.tasks.detection.predict import predict
from search_spaces.model_graph import ModelGraph
from tuner.prepare.runtimes import builder_settings, open_runner
from tuner.study.config import RuntimeSection


def worker_count(threads: int = 1) -> int:
    """Python threads for scoring: one per physical core, as far as this process may use them.

    Args:
        threads: Cores that each inference takes.
    """
    physical = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):
        physical = min(physical, len(os.sched_getaffinity(0)))
    return max(1, physical // threads)


def open_model(
    runtime: RuntimeSection, model: bytes | Path, graph: ModelGraph | None = None
) -> AbstractContextManager[Runner]:
    """Opens a model in a runtime as a study sets it; builds its engine first where the runtime has engines.

    Args:
        runtime: Of the study.
        model: Serialized ONNX, or its path.
        graph: The unquantized model, where `model` is one of its schemes.

    Raises:
        InputError: The model cannot be built.
        RuntimeUnavailable: The machine lacks what the runtime needs.
    """
    return open_runner(runtime.name, model, runtime.threads, builder_settings(runtime), graph, runtime.batch)


def detect(
    runtime: RuntimeSection,
    runner: Runner,
    images: PreprocessedImages,
    contract: DetectorContract,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Detects on images with an opened model, on all cores.

    Args:
        runtime: In which it was opened.
        runner: What `open_model` opened.
        images: Preprocessed for the contract's image size.
        contract: How to read the model's outputs.
        progress: Called with the number of images done.
    """
    workers = worker_count(runtime.threads)
    return predict(runner, images, contract, workers=workers, progress=progress, batch=runtime.batch)


def cpu_section(batch: int = 1) -> RuntimeSection:
    """ONNX Runtime on one thread of the CPU: where schemes are compared apart from what their own runtime does."""
    return RuntimeSection(name="onnxruntime-cpu", batch=batch)
