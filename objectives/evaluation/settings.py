"""What an evaluator is given: plain data, for it crosses to a child process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from objectives.evaluation.screening import ScreeningSettings
from objectives.latency import TimingProtocol
from objectives.objective import MAP_50_95, Objective
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.settings import RuntimeSettings
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.detector import Detector
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS


@dataclass(frozen=True)
class EvaluatorSettings:
    """Everything an evaluation needs; crosses to the child process.

    Attributes:
        model: The unquantized ONNX file.
        calibration: File of the calibration table.
        contract: How to read the model's outputs.
        dataset: The search images.
        cache: Folder of preprocessed images.
        runtime: Where it runs: runtime, device, threads and batch, and after how long it counts as hung.
        metrics: Names of the metrics that trials are scored by.
        accuracy: The one that is searched by, a figure of `metrics`.
        workers: Inferences at once when scored; timing always runs alone.
        weights: How weights are quantized.
        recovered: File of recovered weights, as `recovery` writes it; None where no format wants them.
        refined: ``{key: folder}`` of the refined numbers, as `refined` writes them, of allocations that ask for them.
        timing: The protocol; None where latency is no objective.
        predictions: Folder where the detections of every artifact are kept, as ``<digest>.npz``; None: not kept.
        screening: When a scheme is not scored in full, which needs `predictions`; None: all are.
        known: Folder of scores of a linked run, as `find_known` reads it: artifacts whose accuracy is not scored again.
        engines: Folder where what every engine became is kept, as ``<digest>.json``; None: not kept.
        log: File that the child's output goes to.
        failures: Folder where the log of every failed evaluation is kept; None: not kept.
    """

    model: Path
    calibration: Path
    contract: Detector
    dataset: CocoDataset
    cache: Path
    runtime: RuntimeSettings
    metrics: tuple[str, ...] = DEFAULT_METRICS
    accuracy: Objective = MAP_50_95
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    weights: WeightSettings = field(default_factory=WeightSettings)
    recovered: Path | None = None
    refined: Mapping[str, Path] = field(default_factory=dict)
    timing: TimingProtocol | None = field(default_factory=TimingProtocol)
    predictions: Path | None = None
    screening: ScreeningSettings | None = None
    known: Path | None = None
    engines: Path | None = None
    log: Path | None = None
    failures: Path | None = None
