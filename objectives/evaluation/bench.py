"""One evaluation, inside the process that owns the runtime: materialize, build, score, time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from objectives.evaluation.faults import fault_at
from objectives.evaluation.known_scores import Known, find_known
from objectives.evaluation.screening import Screener
from objectives.evaluation.settings import EvaluatorSettings
from objectives.latency import measure
from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import load_recovered
from objectives.quantization.refined import load_refined
from objectives.runners.runner import Runner, RuntimeUnavailable
from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.probing import LayerCosts, layer_costs
from objectives.runtimes.reference import reference_model
from objectives.runtimes.registry import default_runtime, open_runtime
from objectives.runtimes.runtime import Opened
from objectives.scores import Accuracy, Failure, FirstLook, Latency, Outcome, Scores, Screened, Size
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import NonFiniteOutputError, predict
from objectives.tasks.detection.prediction_file import merge_predictions, save_predictions
from objectives.tasks.detection.predictions import Predictions
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.model_graph import ModelGraph

REFERENCE = "reference"  # name of the reference's predictions
BROKEN_SHARE = 0.1  # of the reference's accuracy; below it a scheme detects nothing useful


@dataclass(frozen=True)
class Built:
    """An engine lies in the cache.

    Attributes:
        seconds: Time of its build; 0 where it lay there before.
        bytes: Its size.
        digest: SHA-256 of its file, hex.
    """

    seconds: float
    bytes: int
    digest: str


class Bench:
    """Keeps what all evaluations share: graph, materializer, images and the active reference.

    Args:
        settings: Of the study.
    """

    def __init__(self, settings: EvaluatorSettings) -> None:
        self._settings = settings
        size = settings.contract.image_size
        self._graph = ModelGraph(settings.model, batch=settings.runtime.batch, image_size=size)
        self._runtime = open_runtime(settings.runtime)
        # Where the engines cannot run here, ONNX Runtime computes what they would.
        self._runs = default_runtime(settings.runtime.batch) if self._runtime.emulated else self._runtime
        self._images = PreprocessedImages.build(
            settings.dataset.images, settings.contract.preprocessing, settings.cache
        )
        self._stack = ExitStack()  # keeps the reference open as long as this process lives

    @cached_property
    def _sample(self) -> NDArray[np.float32]:
        """The batch that is timed: real images, repeated where there are fewer than one batch holds."""
        batch = self._settings.runtime.batch
        pixels = self._images.batch(0, min(batch, len(self._images)))
        return np.resize(pixels, (batch, *pixels.shape[1:]))

    @cached_property
    def _screener(self) -> Screener | None:
        settings = self._settings
        if settings.screening is None or settings.predictions is None:
            return None
        return Screener(settings.screening, settings.dataset, settings.predictions, self._expected[0])

    @cached_property
    def _materializer(self) -> Materializer:
        """Makes the artifacts."""
        return self._materializer_of(self._runtime.dialect())

    @cached_property
    def _twins(self) -> Materializer:
        """Makes what is run: the artifacts, or what computes the same where they are emulated."""
        if not self._runtime.emulated:
            return self._materializer
        return self._materializer_of(self._runtime.portable_dialect(list(FORMATS.values())))

    def _materializer_of(self, dialect: Dialect) -> Materializer:
        table = CalibrationTable.from_json(self._settings.calibration.read_text())
        path = self._settings.recovered
        recovered = load_recovered(path) if path is not None else None
        refined = {key: load_refined(folder) for key, folder in self._settings.refined.items()}
        return Materializer(self._graph, table, dialect, self._settings.weights, recovered, refined)

    @cached_property
    def _unquantized(self) -> Allocation:
        return Allocation.uniform([layer.name for layer in self._graph.quantizable], UNQUANTIZED)

    @cached_property
    def _reference(self) -> Opened:
        """The unquantized model: the file itself, or its engine."""
        model = reference_model(self._runs, self._graph, lambda: self._twins)
        return self._stack.enter_context(self._runs.open(model, self._graph))

    @cached_property
    def _expected(self) -> tuple[Predictions, Accuracy]:
        """The reference's detections and their accuracy on the search images."""
        known = self._known_reference
        found = known.found if known else self._predict(self._reference.runner)
        self._keep(found, REFERENCE)
        return found, known.accuracy if known else self._score(found, found)

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
        with self._runtime.hold(alone=False):
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
        if self._runtime.reference_is_scheme:
            size = self._materializer.size(self._unquantized)
        return Scores(
            accuracy=accuracy,
            latency=latency,
            size=size,
            latency_ms=latency.p50_ms if latency else 0.0,
            agreement=1.0,
            artifact=self._graph.digest,
            seconds=steps,
            reused=known.run if known else "",
        )

    def evaluate(self, allocation: Allocation, reference: Scores, front: Mapping[str, Scores] | None = None) -> Outcome:
        """Scores one allocation against the reference.

        Args:
            allocation: The scheme.
            reference: The study's scores of the unquantized model: their latency is the unit of the scheme's.
            front: ``{allocation digest: scores}`` of the front so far: a scheme that it clearly dominates is screened,
                where the study does so. None: it is scored in full.
        """
        steps: dict[str, float] = {}
        with _step(steps, "materialize"):
            fault_at("materialize")
            artifact = self._materializer.materialize(allocation)
        with self._runtime.hold(alone=False), ExitStack() as stack:
            with _step(steps, "build"):
                twin = artifact if self._runs is self._runtime else self._twins.materialize(allocation)
                opened = stack.enter_context(self._runs.open(twin.engine_model, self._graph))
            latency: Latency | None = None
            if self._settings.timing is not None:  # before it is scored: its costs tell whom to compare it with
                with _step(steps, "time"):
                    timed = self._measure(opened, self._reference)
                if isinstance(timed, Failure):
                    return timed
                latency = timed
            latency_ms = reference.latency_ms * latency.ratio if latency else 0.0
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
                    return Screened(
                        look=look,
                        latency=latency,
                        size=artifact.size,
                        latency_ms=latency_ms,
                        agreement=close,
                        artifact=artifact.digest,
                        seconds=steps,
                    )
                with _step(steps, "evaluate"):
                    if not any(len(rows) for rows in found.detections):
                        return Failure("no_detections", f"detects nothing in {len(found.detections)} images")
                    accuracy = self._score(found, expected)
                    close = agreement(found, expected)
            self._keep(found, allocation.digest)
            _, best = self._expected
            if isinstance(self._runs, EngineBuilder) and self._settings.engines is not None:
                with _step(steps, "inspect"), self._runtime.hold(alone=True):  # it times each layer
                    report = self._runs.inspect(opened, self._graph, allocation, artifact.folded)
                write_durably(self._settings.engines / f"{allocation.digest}.json", json.dumps(report.to_json()))
        broken = self._searched(accuracy) < BROKEN_SHARE * self._searched(best)
        return Scores(
            accuracy=accuracy,
            latency=latency,
            size=artifact.size,
            latency_ms=latency_ms,
            agreement=close,
            artifact=artifact.digest,
            broken=broken,
            seconds=steps,
            reused=known.run if known is not None else "",
        )

    def time(self, allocation: Allocation) -> Latency | Failure:
        """Times one allocation against the reference, and does nothing else."""
        artifact = self._materializer.materialize(allocation)
        with self._runtime.hold(alone=False), self._runtime.open(artifact.engine_model, self._graph) as opened:
            return self._measure(opened, self._reference)

    def build(self, allocation: Allocation | None) -> Built:
        """Builds the engine of an allocation, None for the reference, and leaves it in the cache.

        Raises:
            BuildError: It cannot be built.
            RuntimeUnavailable: The runtime has no engines.
        """
        runtime = self._builder
        artifact = self._materializer.materialize(allocation or self._unquantized)
        with runtime.hold(alone=False):
            if allocation is not None:
                fault_at("build")
            plan, seconds = runtime.build(artifact.engine_model, self._graph)
            data = plan.read_bytes()
            return Built(seconds, len(data), hashlib.sha256(data).hexdigest())

    def costs(self, allocation: Allocation) -> LayerCosts | Failure:
        """Builds a scheme's engine and profiles it layer by layer.

        Raises:
            RuntimeUnavailable: The runtime has no engines.
        """
        runtime, graph = self._builder, self._graph
        artifact = self._materializer.materialize(allocation)
        if runtime.emulated:  # whether it is built is all that can be found here
            runtime.build(artifact.engine_model, graph)
            return LayerCosts({}, 0.0, runtime.device_name, runtime.versions()[runtime.version_key.split(".")[-1]])
        with (
            runtime.hold(alone=False),
            runtime.open(artifact.engine_model, graph) as opened,
            runtime.hold(alone=True),
        ):
            report = runtime.inspect(opened, graph, allocation, artifact.folded)
        return layer_costs(report, runtime.device_name)

    @property
    def _builder(self) -> EngineBuilder:
        if not isinstance(self._runtime, EngineBuilder):
            raise RuntimeUnavailable(f"{self._runtime.name}: has no engines")
        return self._runtime

    def close(self) -> None:
        """Frees the reference."""
        self._stack.close()

    def _measure(self, opened: Opened, reference: Opened | None) -> Latency | Failure:
        fault_at("time")
        with self._runtime.hold(alone=True):
            return measure(
                opened.runner,
                reference.runner if reference is not None else None,
                self._sample,
                self._settings.timing,
                observe=self._runtime.observe,
            )

    def _score(self, found: Predictions, expected: Predictions) -> Accuracy:
        return score(self._settings.dataset, found, self._settings.metrics, expected)

    def _searched(self, accuracy: Accuracy) -> float:
        """The figure that the study searches by."""
        return accuracy.figure(self._settings.accuracy.name)

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
            look = screener.look(first, leader, self._searched(front[leader].accuracy))
        if look is not None and look.dominated:
            return first, look
        with _step(steps, "evaluate"):
            return merge_predictions(first, self._predict(runner, screener.rest)).ordered(self._images.ids), look

    def _predict(self, runner: Runner, rows: Sequence[int] | None = None) -> Predictions:
        fault_at("evaluate", lambda: self._runtime.hold(alone=True))
        settings, batch = self._settings, self._settings.runtime.batch
        return predict(runner, self._images, settings.contract, workers=settings.workers, batch=batch, rows=rows)


class UnstableError(RuntimeError):
    """The reference's latency cannot be measured."""


@contextmanager
def _step(steps: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        steps[name] = round(steps.get(name, 0.0) + time.perf_counter() - start, 4)
