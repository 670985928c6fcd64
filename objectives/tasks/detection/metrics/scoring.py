"""Scores predictions by the metrics that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from objectives.scores import Accuracy
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.metrics.metric import LABELS, REFERENCE, Targets
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS, METRICS
from objectives.tasks.detection.predictions import Predictions
from search_spaces.errors import InputError


def score(
    dataset: CocoDataset,
    predictions: Predictions,
    metrics: Sequence[str] = DEFAULT_METRICS,
    reference: Predictions | None = None,
) -> Accuracy:
    """Scores predictions on all images of a dataset.

    Args:
        dataset: The images, with their labels where there are any. Images without predictions count as images without
            detections.
        predictions: May cover more images than the dataset.
        metrics: Names of `METRICS`.
        reference: The unquantized model's predictions on these images, for metrics that compare with them.

    Raises:
        InputError: A metric is unknown, needs what is not there, or the model's classes do not fit the labels.
    """
    held = predictions.holds | ({REFERENCE} if reference is not None else frozenset())
    held |= {LABELS} if dataset.labelled else frozenset()
    found: dict[str, float] = {}
    for name in metrics:
        metric = METRICS.get(name)()
        missing = sorted(metric.needs - held)
        if missing:
            raise InputError(f"metric {name!r}: needs {', '.join(missing)}, which is not there; leave the metric out")
        metric.update(predictions, Targets(dataset, reference))
        found.update(metric.compute())
    return Accuracy(metrics=found, images=len(dataset.images))


def figures(metrics: Sequence[str]) -> tuple[str, ...]:
    """Names of all figures that metrics yield.

    Raises:
        InputError: A metric is unknown, or two yield a figure of the same name.
    """
    owner: dict[str, str] = {}
    for name in metrics:
        for figure in METRICS.get(name).yields:
            if figure == "images" or owner.setdefault(figure, name) != name:
                other = owner.get(figure, "the number of images")
                raise InputError(f"metric {name!r}: its {figure!r} is already that of {other}; leave one out")
    return tuple(owner)


def needs(metrics: Sequence[str]) -> frozenset[str]:
    """What metrics must know, in the words of `Metric.needs`.

    Raises:
        InputError: A metric is unknown.
    """
    return frozenset().union(*(METRICS.get(name).needs for name in metrics))
