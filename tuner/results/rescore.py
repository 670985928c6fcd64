"""Scores schemes again: on all evaluation images, and apart on those that the search never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from objectives.evaluation.bench import REFERENCE
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.data.image_files import ImageRecord
from objectives.tasks.detection.metrics.coco import Predictions, bootstrap_difference, score
from objectives.tasks.detection.predict import predict
from objectives.tasks.detection.prediction_file import load_predictions, merge_predictions
from search_spaces.allocation import Allocation
from search_spaces.formats import UNQUANTIZED
from tuner.prepare.measuring import builder_settings, open_runner, worker_count
from tuner.prepare.workbench import Workbench
from tuner.results.retime import read_ratios
from tuner.search.records import Rescore
from tuner.study.run_folder import RunFolder, read_json, write_durably

_SAMPLES = 1000


def rescore(workbench: Workbench, allocations: Sequence[Allocation]) -> None:
    """Re-scores the schemes that are not yet.

    Args:
        workbench: Makes artifacts and images.
        allocations: The schemes.
    """
    known = read_rescores(workbench.run)
    missing = [allocation for allocation in allocations if allocation.digest not in known]
    if not missing:
        return
    detector = Detector(workbench, workbench.data.full.images)
    data = workbench.data
    unseen = data.full.without(data.search)
    reference = detector.predict(None)
    for count, allocation in enumerate(missing, 1):
        candidate = detector.predict(allocation, f"re-scoring {count}/{len(missing)}")
        found = _compare(data.full, unseen, candidate, reference)
        if workbench.inputs.config.runtime.name == "tensorrt":
            twin = detector.predict_in_onnxruntime(allocation, f"in ONNX Runtime {count}/{len(missing)}")
            found = replace(found, onnxruntime=score(data.full, twin))
        write_durably(workbench.run.rescores / f"{allocation.digest}.json", json.dumps(asdict(found)))


def read_rescores(run: RunFolder) -> dict[str, Rescore]:
    """Returns ``{allocation digest: rescore}`` of what was re-scored so far."""
    ratios = read_ratios(run)
    return {
        path.stem: replace(read_json(path, Rescore), ratios=ratios.get(path.stem, ()))
        for path in sorted(run.rescores.glob("*.json"))
    }


class Detector:
    """Runs artifacts of a study over images.

    Args:
        workbench: Makes the artifacts.
        records: The images.
    """

    def __init__(self, workbench: Workbench, records: Sequence[ImageRecord]) -> None:
        self._workbench = workbench
        self._records = records

    def predict(self, allocation: Allocation | None, title: str = "re-scoring the reference") -> Predictions:
        """Detections of one scheme on the images, in their order; None is the model file itself.

        What the evaluator kept is read; only images that it did not see are run.
        """
        bench, ids = self._workbench, [record.id for record in self._records]
        kept = load_predictions(bench.run.predictions / f"{allocation.digest if allocation else REFERENCE}.npz")
        seen = set(kept.ids) if kept is not None else set()
        missing = [record for record in self._records if record.id not in seen]
        if kept is not None and not missing:
            return kept.ordered(ids)
        images = bench.images(missing)
        runtime = bench.inputs.config.runtime
        graph = bench.graph
        model: bytes | Path = bench.inputs.graph.path
        if allocation is not None:
            model = bench.materializer.materialize(allocation).engine_model
        elif runtime.name == "tensorrt":
            unquantized = Allocation.uniform([layer.name for layer in graph.quantizable], UNQUANTIZED)
            model = bench.materializer.materialize(unquantized).engine_model
        elif runtime.batch > 1:
            model = graph.model.SerializeToString()
        workers = max(1, worker_count() // runtime.threads)
        with (
            bench.step(title, len(images)) as done,
            open_runner(runtime.name, model, runtime.threads, builder_settings(runtime), graph) as runner,
        ):
            found = predict(runner, images, bench.data.contract, workers=workers, progress=done, batch=runtime.batch)
        return (found if kept is None else merge_predictions(kept, found)).ordered(ids)

    def predict_in_onnxruntime(self, allocation: Allocation, title: str) -> Predictions:
        """Detections of the same Q/DQ graph in ONNX Runtime's CPU, to compare the engine's with.

        In float32: ONNX Runtime 1.24 truncates where its fp16 QuantizeLinear should round.
        """
        bench = self._workbench
        images, batch = bench.images(self._records), bench.inputs.config.runtime.batch
        model = bench.float_materializer(bench.graph).materialize(allocation).data
        with bench.step(title, len(images)) as done, open_runner("onnxruntime-cpu", model) as runner:
            return predict(runner, images, bench.data.contract, workers=worker_count(), progress=done, batch=batch)


def _compare(full: CocoDataset, unseen: CocoDataset | None, candidate: Predictions, reference: Predictions) -> Rescore:
    difference, interval = bootstrap_difference(full, candidate, reference, _SAMPLES)
    if unseen is None:
        return Rescore(score(full, candidate), None, difference, interval)
    ids = {image.id for image in unseen.images}
    own, base = candidate.only(ids), reference.only(ids)
    unseen_difference, unseen_interval = bootstrap_difference(unseen, own, base, _SAMPLES)
    accuracy = score(unseen, own)
    return Rescore(score(full, candidate), accuracy, difference, interval, unseen_difference, unseen_interval)
