"""One evaluation, inside the process that owns the runtime: materialize, build, score, time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from objectives.accuracy import NonFiniteOutputError, predict
from objectives.detection.agreement import agreement
from objectives.detection.cache import PreprocessedImages
from objectives.detection.contract import DetectorContract
from objectives.detection.dataset import CocoDataset
from objectives.detection.prediction_file import save_predictions
from objectives.detection.scoring import Predictions, score
from objectives.latency import TimingProtocol, device_lock, measure
from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.scores import Accuracy, Failure, Latency, Scores, Size
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

REFERENCE = "reference"  # name of the reference's predictions
BROKEN_SHARE = 0.1  # of the reference's mAP; below it a scheme detects nothing useful


@dataclass(frozen=True)
class EvaluatorSettings:
    """Everything an evaluation needs; crosses to the child process.

    Attributes:
        model: The unquantized ONNX file.
        calibration: File of the calibration table.
        contract: How to read the model's outputs.
        dataset: The search images.
        cache: Folder of preprocessed images.
        runtime: ``onnxruntime-cpu`` or ``onnxruntime-cuda``.
        threads: Threads of one inference, when timed and when scored.
        workers: Inferences at once when scored; timing always runs alone.
        weights: How weights are quantized.
        timing: The protocol; None where latency is no objective.
        predictions: Folder where the detections of every artifact are kept, as ``<digest>.npz``; None: not kept.
        log: File that the child's output goes to.
        limit_s: Seconds after which an evaluation counts as hung.
    """

    model: Path
    calibration: Path
    contract: DetectorContract
    dataset: CocoDataset
    cache: Path
    runtime: str = "onnxruntime-cpu"
    threads: int = 1
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    weights: WeightSettings = field(default_factory=WeightSettings)
    timing: TimingProtocol | None = field(default_factory=TimingProtocol)
    predictions: Path | None = None
    log: Path | None = None
    limit_s: float = 1800.0


class Bench:
    """Keeps what all evaluations share: graph, materializer, images and the active reference.

    Args:
        settings: Of the study.
    """

    def __init__(self, settings: EvaluatorSettings) -> None:
        self._settings = settings
        self._images = PreprocessedImages.build(settings.dataset.images, settings.contract.image_size, settings.cache)
        self._sample = self._images.batch(0, 1)

    @cached_property
    def _graph(self) -> ModelGraph:
        return ModelGraph(self._settings.model)

    @cached_property
    def _materializer(self) -> Materializer:
        table = CalibrationTable.from_json(self._settings.calibration.read_text())
        return Materializer(self._graph, table, self._settings.runtime, self._settings.weights)

    @cached_property
    def _reference(self) -> OnnxRuntimeRunner:
        runner = self._runner(self._settings.model)
        runner.activate()
        return runner

    @cached_property
    def _expected(self) -> tuple[Predictions, Accuracy]:
        """The reference's detections and their accuracy on the search images."""
        found = self._predict(self._reference)
        self._keep(found, REFERENCE)
        return found, score(self._settings.dataset, found)

    def reference(self) -> Scores:
        """Scores the unquantized model itself."""
        steps: dict[str, float] = {}
        with _step(steps, "evaluate"):
            _, accuracy = self._expected
        latency = None
        if self._settings.timing is not None:
            with _step(steps, "time"), device_lock(self._device):
                timed = measure(self._reference, None, self._sample, self._settings.timing)
            if isinstance(timed, Failure):
                raise UnstableError(timed.message)
            latency = timed
        parameters = sum(layer.parameters for layer in self._graph.layers)
        size = Size(4 * parameters, 32.0, parameters)
        return Scores(
            accuracy,
            latency,
            size,
            latency.p50_ms if latency else 0.0,
            1.0,
            self._graph.digest,
            seconds=steps,
        )

    def evaluate(self, allocation: Allocation) -> Scores | Failure:
        """Scores one allocation against the reference."""
        steps: dict[str, float] = {}
        with _step(steps, "materialize"):
            artifact = self._materializer.materialize(allocation)
        runner = self._runner(artifact.data)
        with _step(steps, "build"):
            runner.activate()
        try:
            with _step(steps, "evaluate"):
                expected, best = self._expected
                try:
                    found = self._predict(runner)
                except NonFiniteOutputError as error:
                    return Failure("nan", str(error))
                accuracy = score(self._settings.dataset, found)
                close = agreement(found, expected)
                self._keep(found, allocation.digest)
            latency: Latency | None = None
            if self._settings.timing is not None:
                with _step(steps, "time"), device_lock(self._device):
                    timed = measure(runner, self._reference, self._sample, self._settings.timing)
                if isinstance(timed, Failure):
                    return timed
                latency = timed
        finally:
            runner.deactivate()
        broken = accuracy.map_50_95 < BROKEN_SHARE * best.map_50_95
        paired_ms = latency.reference_p50_ms * latency.ratio if latency else 0.0
        return Scores(accuracy, latency, artifact.size, paired_ms, close, artifact.digest, broken, steps)

    def _keep(self, found: Predictions, name: str) -> None:
        if self._settings.predictions is not None:
            save_predictions(found, self._settings.predictions / f"{name}.npz")

    @property
    def _device(self) -> str:
        return "cuda-0" if self._settings.runtime == "onnxruntime-cuda" else "cpu"

    def _runner(self, model: bytes | Path) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(model, self._settings.threads, cuda=self._settings.runtime == "onnxruntime-cuda")

    def _predict(self, runner: OnnxRuntimeRunner) -> Predictions:
        workers = self._settings.workers if self._settings.runtime == "onnxruntime-cpu" else 1
        return predict(runner, self._images, self._settings.contract, workers=workers)


class UnstableError(RuntimeError):
    """The reference's latency cannot be measured."""


@contextmanager
def _step(steps: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        steps[name] = round(time.perf_counter() - start, 4)
