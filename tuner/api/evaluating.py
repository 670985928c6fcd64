"""Scores one model, quantized or not, without a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.agreement import AGREEMENT
from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.opening import open_file
from objectives.tasks.detection.data.data_yaml import YAML_SUFFIXES
from objectives.tasks.detection.data.dataset import CocoDataset, has_labels, load_dataset, load_unlabelled
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.low_score import NOTHING, low_score_reason, strays
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS
from objectives.tasks.detection.metrics.scoring import figures, needs, score
from objectives.tasks.detection.plausibility import check_reading, other_pixels, unsure
from objectives.tasks.detection.predictions import Predictions
from search_spaces.limits import scratch
from tuner.api.detectors import Tell, images_of, open_detector, quiet, usable_runtime
from tuner.prepare.predicting import detect
from tuner.study.model_file import onnx_file
from tuner.terminal.progress import Steps, silent


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation of a model found.

    Attributes:
        figures: ``{name: value}`` as the metrics yield them: ``map_50_95``, ``map_50``, ..., ``agreement``.
        images: Number of images scored.
        notes: What a person should know of images, labels and scores, a line each.
    """

    figures: Mapping[str, float]
    images: int
    notes: tuple[str, ...] = ()

    @property
    def map_50_95(self) -> float:
        """AP averaged over IoU 0.50:0.95, in [0, 1]."""
        return self.figures["map_50_95"]

    def to_json(self) -> dict[str, Any]:
        """Returns a flat JSON object."""
        return {**self.figures, "images": self.images}


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    split: str = "val",
    reference: str | Path | None = None,
    limit: int | None = None,
    metrics: Sequence[str] = (),
    runtime: str = DEFAULT_RUNTIME,
    runtime_keys: Sequence[str] = (),
    head: str | None = None,
    classes: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    tell: Tell = quiet,
    steps: Steps = silent,
) -> Evaluation:
    """Scores a model: COCO mAP by pycocotools, or its agreement with another model.

    Args:
        model: ONNX file, or Ultralytics checkpoint (``.pt``).
        data: Data yaml as Ultralytics and Roboflow write it, or the folder that holds it.
        images: Folder of images, in place of `data`.
        annotations: COCO json of these images.
        split: Of the data yaml: ``train``, ``val`` or ``test``.
        reference: Model that agreement is told with; no labels are needed then.
        limit: Only so many of the images, always the same ones.
        metrics: Names as in ``data.metrics`` of a study; by default ``coco_box`` where there are labels.
        runtime: Where it runs.
        runtime_keys: ``KEY=VALUE`` of the runtime's section in a study.
        head: How outputs are read, where the graph does not tell.
        classes: Class names in the model's order, where the model does not tell.
        image_size: Height and width, pixels, where the model leaves them open.
        tell: Takes each of the notes as soon as it is known.
        steps: Shows progress.

    Raises:
        InputError: Something that was named is missing, broken or contradictory.
        RuntimeUnavailable: The machine lacks what the runtime needs.
    """
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        tell(line)

    model, place = Path(model), images_of(_path(data), _path(images))
    labelled = annotations is not None or place.suffix.lower() in YAML_SUFFIXES or has_labels(place)
    alone = reference is not None and not labelled
    also = (AGREEMENT.metric,) if reference is not None else ()
    wanted = tuple(metrics) or (*(() if alone else DEFAULT_METRICS), *also)
    figures(wanted)  # before anything is run
    target = usable_runtime(runtime, runtime_keys)
    file = onnx_file(model, head=head, image_size=image_size, runtime=target)
    graph, contract = open_detector(file, head=head, image_size=image_size, classes=classes, tell=note)
    target.check_operators(graph)
    contract = contract.giving(needs(wanted), f"--metric {', '.join(wanted)}")
    if contract.note:
        note(f"note: {model}: {contract.note}")
    labels = load_unlabelled(place) if alone else load_dataset(place, annotations, split, contract.details)
    dataset = labels.subset(limit).matched(contract.classes, contract.class_count)
    for line in dataset.notes:
        note(f"note: {line}")
    with scratch() as folder:
        with steps("preprocessing images", len(dataset)) as done:
            pixels = PreprocessedImages.build(dataset.images, contract.preprocessing, Path(folder), done)
        with steps("evaluation", len(dataset)) as done, open_file(target, file, contract.image_size) as runner:
            check_reading(graph, contract, runner, pixels, target.settings.batch)
            predictions = detect(target, runner, pixels, contract, done)
            doubt = other_pixels(contract, runner, pixels, target.settings.batch) if unsure(predictions) else ""
        expected = None
        if reference is not None:
            other = onnx_file(Path(reference), head=head, image_size=image_size, runtime=target)
            how = open_detector(other, head=head, image_size=image_size, classes=classes, tell=note)[1]
            with steps("preprocessing for the reference", len(dataset)) as done:
                pixels = PreprocessedImages.build(dataset.images, how.preprocessing, Path(folder), done)
            with (
                steps("evaluation of the reference", len(dataset)) as done,
                open_file(target, other, how.image_size) as runner,
            ):
                expected = detect(target, runner, pixels, how, done)
        found = score(dataset, predictions, wanted, expected)
    for line in _warnings(dataset, predictions, doubt, found.metrics):
        note(f"warning: {line}")
    return Evaluation(found.metrics, found.images, tuple(notes))


def _warnings(dataset: CocoDataset, predictions: Predictions, doubt: str, found: Mapping[str, float]) -> list[str]:
    lines = [line for line in (strays(predictions), doubt) if line]
    whole = found.get("map_50_95", 1.0)
    if whole < NOTHING:
        lines.append(f"mAP50-95 is {max(whole, 0.0):.4f}: {low_score_reason(dataset, predictions)}")
    return lines


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
