"""One evaluation, inside the process that owns the runtime: materialize, build, score, time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.evaluation.faults import fault_at
from objectives.evaluation.known_scores import Known, find_known
from objectives.evaluation.screening import Screener, ScreeningSettings
from objectives.latency import TimingProtocol, measure
from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import load_recovered
from objectives.quantization.weights import WeightSettings
from objectives.runners.runner import Runner, RuntimeUnavailable
from objectives.runtimes.backends import Opened, TensorRtBackend, hold, make_backend
from objectives.runtimes.probing import LayerCosts
from objectives.runtimes.tensorrt.rules import BuilderSettings
from objectives.scores import Accuracy, Failure, FirstLook, Latency, Outcome, Scores, Screened, Size
from objectives.tasks.detection.contract import DetectorContract
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.metrics.coco import Predictions, score
from objectives.tasks.detection.predict import NonFiniteOutputError, predict
from objectives.tasks.detection.prediction_file import merge_predictions, save_predictions
from search_spaces.allocation import Allocation
from search_spaces.formats import UNQUANTIZED
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
        runtime: ``onnxruntime-cpu``, ``onnxruntime-cuda`` or ``tensorrt``.
        threads: Threads of one inference, when timed and when scored.
        workers: Inferences at once when scored; timing always runs alone.
        weights: How weights are quantized.
        recovered: File of recovered weights, as `recovery` writes it; None where no format wants them.
        timing: The protocol; None where latency is no objective.
        predictions: Folder where the detections of every artifact are kept, as ``<digest>.npz``; None: not kept.
        screening: When a scheme is not scored in full, which needs `predictions`; None: all are.
        known: Folder of scores of a linked run, as `find_known` reads it: artifacts whose accuracy is not scored again.
        batch: Images of one inference.
        builder: Settings of the engine builder; names the GPU.
        engines: Folder where what every engine became is kept, as ``<digest>.json``; None: not kept.
        log: File that the child's output goes to.
        failures: Folder where the log of every failed evaluation is kept; None: not kept.
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
    recovered: Path | None = None
    timing: TimingProtocol | None = field(default_factory=TimingProtocol)
    predictions: Path | None = None
    screening: ScreeningSettings | None = None
    known: Path | None = None
    batch: int = 1
    builder: BuilderSettings = field(default_factory=BuilderSettings)
    engines: Path | None = None
    log: Path | None = None
    failures: Path | None = None
    limit_s: float = 1800.0


@dataclass(frozen=True)
class Built:
    """An engine lies in the cache.

    Attributes:
        seconds: Time of its build; 0 where it lay there before.
    """

    seconds: float


class Bench:
    """Keeps what all evaluations share: graph, materializer, images and the active reference.

    Args:
        settings: Of the study.
    """

    def __init__(self, settings: EvaluatorSettings) -> None:
        self._settings = settings
        self._graph = ModelGraph(settings.model, batch=settings.batch)
        self._backend = make_backend(settings.runtime, settings.threads, settings.builder, self._graph)
        self._images = PreprocessedImages.build(settings.dataset.images, settings.contract.image_size, settings.cache)
        self._stack = ExitStack()  # keeps the reference open as long as this process lives

    @cached_property
    def _sample(self) -> NDArray[np.float32]:
        """The batch that is timed: real images, repeated where there are fewer than one batch holds."""
        batch = self._settings.batch
        pixels = self._images.batch(0, min(batch, len(self._images)))
        return np.resize(pixels, (batch, *pixels.shape[1:]))

    @cached_property
    def _screener(self) -> Screener | None:
        settings = self._settings
        if settings.screening is None or settings.predictions is None:
            return None
        return Screener(settings.screening, settings.dataset, settings.predictions)

    @cached_property
    def _materializer(self) -> Materializer:
        table = CalibrationTable.from_json(self._settings.calibration.read_text())
        path = self._settings.recovered
        recovered = load_recovered(path) if path is not None else None
        return Materializer(self._graph, table, self._backend.dialect, self._settings.weights, recovered)

    @cached_property
    def _unquantized(self) -> Allocation:
        return Allocation.uniform([layer.name for layer in self._graph.quantizable], UNQUANTIZED)

    @cached_property
    def _reference(self) -> Opened:
        """The unquantized model: the file itself, or its fp16 engine."""
        model: bytes | Path = self._settings.model
        if isinstance(self._backend, TensorRtBackend):
            model = self._materializer.materialize(self._unquantized).engine_model
        elif self._settings.batch > 1:
            model = self._graph.model.SerializeToString()
        return self._stack.enter_context(self._backend.open(model))

    @cached_property
    def _expected(self) -> tuple[Predictions, Accuracy]:
        """The reference's detections and their accuracy on the search images."""
        known = self._known_reference
        found = known.found if known else self._predict(self._reference.runner)
        self._keep(found, REFERENCE)
        return found, known.accuracy if known else score(self._settings.dataset, found)

    @cached_property
    def _known_reference(self) -> Known | None:
        return self._known(REFERENCE, self._graph.digest)

    def _known(self, name: str, artifact: str) -> Known | None:
        return find_known(self._settings.known, name, artifact, self._images.ids)

    def reference(self) -> Scores:
        """Scores the unquantized model itself.

        Raises:
            UnstableError: Its latency cannot be measured.
        """
        steps: dict[str, float] = {}
        with hold(self._backend, alone=False):
            with _step(steps, "build"):
                opened = self._reference
            known = self._known_reference
            with _step(steps, "evaluate") if known is None else nullcontext():
                _, accuracy = self._expected
            latency = None
            if self._settings.timing is not None:
                with _step(steps, "time"):
                    timed = self._measure(opened, None)
                if isinstance(timed, Failure):
                    raise UnstableError(timed.message)
                latency = timed
        parameters = sum(layer.parameters for layer in self._graph.layers)
        size = Size(4 * parameters, 32.0, parameters)
        if isinstance(self._backend, TensorRtBackend):
            size = self._materializer.size(self._unquantized)
        return Scores(
            accuracy,
            latency,
            size,
            latency.p50_ms if latency else 0.0,
            1.0,
            self._graph.digest,
            seconds=steps,
            reused=known.run if known else "",
        )

    def evaluate(self, allocation: Allocation, front: Mapping[str, Scores] | None = None) -> Outcome:
        """Scores one allocation against the reference.

        Args:
            allocation: The scheme.
            front: ``{allocation digest: scores}`` of the front so far: a scheme that it clearly dominates is screened,
                where the study does so. None: it is scored in full.
        """
        steps: dict[str, float] = {}
        with _step(steps, "materialize"):
            fault_at("materialize")
            artifact = self._materializer.materialize(allocation)
        with hold(self._backend, alone=False), ExitStack() as stack:
            with _step(steps, "build"):
                opened = stack.enter_context(self._backend.open(artifact.engine_model))
            latency: Latency | None = None
            if self._settings.timing is not None:  # before it is scored: its costs tell whom to compare it with
                with _step(steps, "time"):
                    timed = self._measure(opened, self._reference)
                if isinstance(timed, Failure):
                    return timed
                latency = timed
            paired_ms = latency.reference_p50_ms * latency.ratio if latency else 0.0
            known = self._known(allocation.digest, artifact.digest)
            if known is not None:
                accuracy, close, found = known.accuracy, known.agreement, known.found
            else:
                with _step(steps, "evaluate"):
                    expected, _ = self._expected
                try:
                    found, look = self._detect(opened.runner, front or {}, latency, artifact.size, steps)
                except NonFiniteOutputError as error:
                    return Failure("nan", str(error))
                if look is not None and look.dominated:
                    close = agreement(found, expected.ordered(found.ids))
                    return Screened(look, latency, artifact.size, paired_ms, close, artifact.digest, steps)
                with _step(steps, "evaluate"):
                    if not any(len(rows) for rows in found.detections):
                        return Failure("no_detections", f"detects nothing in {len(found.detections)} images")
                    accuracy = score(self._settings.dataset, found)
                    close = agreement(found, expected)
            self._keep(found, allocation.digest)
            _, best = self._expected
            if isinstance(self._backend, TensorRtBackend) and self._settings.engines is not None:
                with _step(steps, "inspect"), hold(self._backend, alone=True):  # it times each layer
                    report = self._backend.report(opened, self._graph, allocation, artifact.folded)
                _write(self._settings.engines / f"{allocation.digest}.json", json.dumps(report.to_json()))
        broken = accuracy.map_50_95 < BROKEN_SHARE * best.map_50_95
        run = known.run if known is not None else ""
        return Scores(accuracy, latency, artifact.size, paired_ms, close, artifact.digest, broken, steps, run)

    def time(self, allocation: Allocation) -> Latency | Failure:
        """Times one allocation against the reference, and does nothing else."""
        artifact = self._materializer.materialize(allocation)
        with hold(self._backend, alone=False), self._backend.open(artifact.engine_model) as opened:
            return self._measure(opened, self._reference)

    def build(self, allocation: Allocation | None) -> Built:
        """Builds the engine of an allocation, None for the reference, and leaves it in the cache.

        Raises:
            BuildError: It cannot be built.
            RuntimeUnavailable: The runtime has no engines.
        """
        if not isinstance(self._backend, TensorRtBackend):
            raise RuntimeUnavailable(f"{self._settings.runtime}: has no engines to build")
        artifact = self._materializer.materialize(allocation or self._unquantized)
        with hold(self._backend, alone=False):
            if allocation is not None:
                fault_at("build")
            return Built(self._backend.build(artifact.engine_model)[1])

    def costs(self, allocation: Allocation) -> LayerCosts | Failure:
        """Builds a scheme's engine and profiles it layer by layer.

        Raises:
            RuntimeUnavailable: The runtime has no engines.
        """
        backend = self._backend
        if not isinstance(backend, TensorRtBackend):
            raise RuntimeUnavailable(f"{self._settings.runtime}: has no engines to probe")
        artifact = self._materializer.materialize(allocation)
        with hold(backend, alone=False), backend.open(artifact.engine_model) as opened, hold(backend, alone=True):
            report = backend.report(opened, self._graph, allocation, artifact.folded)
        times: dict[str, float] = {}
        for layer in report.layers:
            times[layer.layer] = times.get(layer.layer, 0.0) + layer.ms
        fixed = times.pop("", 0.0)
        unmet = {layer: ran for layer, _, ran in report.unmet}
        return LayerCosts(times, fixed, backend.device_name, backend.version, unmet)

    def close(self) -> None:
        """Frees the reference."""
        self._stack.close()

    def _measure(self, opened: Opened, reference: Opened | None) -> Latency | Failure:
        fault_at("time")
        with hold(self._backend, alone=True):
            return measure(
                opened.runner,
                reference.runner if reference is not None else None,
                self._sample,
                self._settings.timing,
                observe=self._backend.observe,
            )

    def _keep(self, found: Predictions, name: str) -> None:
        if self._settings.predictions is not None:
            save_predictions(found, self._settings.predictions / f"{name}.npz")

    def _detect(
        self,
        runner: Runner,
        front: Mapping[str, Scores],
        latency: Latency | None,
        size: Size,
        steps: dict[str, float],
    ) -> tuple[Predictions, FirstLook | None]:
        """Detections, and what the first look showed, where there was one: only on its images if it was enough."""
        screener = self._screener
        leader = screener.leader(front, latency, size) if screener is not None else None
        if screener is None or leader is None:
            with _step(steps, "evaluate"):
                return self._predict(runner), None
        with _step(steps, "look"):
            first = self._predict(runner, screener.rows)
        with _step(steps, "compare"):
            look = screener.look(first, leader, front[leader].accuracy.map_50_95)
        if look is not None and look.dominated:
            return first, look
        with _step(steps, "evaluate"):
            return merge_predictions(first, self._predict(runner, screener.rest)).ordered(self._images.ids), look

    def _predict(self, runner: Runner, rows: Sequence[int] | None = None) -> Predictions:
        fault_at("evaluate", lambda: hold(self._backend, alone=True))
        settings, workers = self._settings, self._settings.workers
        return predict(runner, self._images, settings.contract, workers=workers, batch=settings.batch, rows=rows)


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


class UnstableError(RuntimeError):
    """The reference's latency cannot be measured."""


@contextmanager
def _step(steps: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        steps[name] = round(steps.get(name, 0.0) + time.perf_counter() - start, 4)
