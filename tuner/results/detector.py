"""Detections of a study's schemes on any of its images, what the search kept of them included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from objectives.evaluation.bench import REFERENCE
from objectives.runtimes.opening import open_model
from objectives.runtimes.reference import reference_model
from objectives.runtimes.registry import default_runtime
from objectives.tasks.detection.data.image_files import ImageRecord
from objectives.tasks.detection.prediction_file import load_predictions, merge_predictions
from objectives.tasks.detection.predictions import Predictions
from search_spaces.allocation import Allocation
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.materializers import float_materializer
from tuner.prepare.predicting import detect
from tuner.prepare.prepared import ArtifactParts
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent


class Detector:
    """Runs artifacts of a study over images.

    Args:
        inputs: The study.
        run: Where detections and preprocessed images are kept.
        parts: Of the artifacts.
        records: The images.
        steps: Shows progress.
    """

    def __init__(
        self,
        inputs: Inputs,
        run: RunFolder,
        parts: ArtifactParts,
        records: Sequence[ImageRecord],
        steps: Steps = silent,
    ) -> None:
        self._inputs = inputs
        self._run = run
        self._parts = parts
        self._records = records
        self._steps = steps

    def predict(self, allocation: Allocation | None, title: str = "re-scoring the reference") -> Predictions:
        """Detections of one scheme on the images, in their order; None is the reference.

        What the evaluator kept is read; only images that it did not see are run.
        """
        ids = [record.id for record in self._records]
        kept = load_predictions(self._run.predictions / f"{allocation.digest if allocation else REFERENCE}.npz")
        seen = set(kept.ids) if kept is not None else set()
        missing = [record for record in self._records if record.id not in seen]
        if kept is not None and not missing:
            return kept.ordered(ids)
        images = ensure_images(self._inputs, self._run, missing, self._steps)
        runtime, parts = self._inputs.runtime, self._parts
        model: bytes | Path
        if runtime.emulated:
            runtime = default_runtime(self._inputs.config.runtime.batch)
        if allocation is None:
            model = reference_model(runtime, parts.graph, lambda: parts.materializer)
        elif self._inputs.runtime.emulated:
            made = float_materializer(self._inputs, parts.graph, parts.calibration, parts.weights, parts.refined)
            model = made.materialize(allocation).engine_model
        else:
            model = parts.materializer.materialize(allocation).engine_model
        with (
            self._steps(title, len(images)) as done,
            open_model(runtime, model, parts.graph) as runner,
        ):
            found = detect(runtime, runner, images, data_of(self._inputs).contract, done)
        return (found if kept is None else merge_predictions(kept, found)).ordered(ids)

    def predict_in_onnxruntime(self, allocation: Allocation, title: str) -> Predictions:
        """Detections of the same Q/DQ graph in ONNX Runtime's CPU, to compare the engine's with.

        In float32: ONNX Runtime 1.24 truncates where its fp16 QuantizeLinear should round.
        """
        images = ensure_images(self._inputs, self._run, self._records, self._steps)
        runtime, parts = default_runtime(self._inputs.config.runtime.batch), self._parts
        made = float_materializer(self._inputs, parts.graph, parts.calibration, parts.weights, parts.refined)
        model = made.materialize(allocation).data
        with self._steps(title, len(images)) as done, open_model(runtime, model, parts.graph) as runner:
            return detect(runtime, runner, images, data_of(self._inputs).contract, done)
