"""Detects on images with all cores that a study may use."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil

from objectives.runners.runner import Runner
from objectives.runtimes.runtime import Runtime
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from objectives.tasks.detection.predict import predict
from objectives.tasks.detection.predictions import Predictions


def worker_count(threads: int = 1) -> int:
    """Python threads for scoring: one per physical core, as far as this process may use them.

    Args:
        threads: Cores that each inference takes.
    """
    physical = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):
        physical = min(physical, len(os.sched_getaffinity(0)))
    return max(1, physical // threads)


def detect(
    runtime: Runtime,
    runner: Runner,
    images: PreprocessedImages,
    contract: Detector,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Detects on images with an opened model.

    Args:
        runtime: In which it was opened.
        runner: What `objectives.runtimes.opening` opened.
        images: Preprocessed for the contract's image size.
        contract: How to read the model's outputs.
        progress: Called with the number of images done.
    """
    settings = runtime.settings
    workers = worker_count(settings.threads)
    return predict(runner, images, contract, workers=workers, progress=progress, batch=settings.batch)
