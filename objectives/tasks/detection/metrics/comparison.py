"""Compares two models' predictions in the figure of an accuracy, with what chance has in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.metrics.metric import Resampled, Targets
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS, METRICS
from objectives.tasks.detection.predictions import Predictions
from search_spaces.errors import InputError


def resamples(metric: str, predictions: Predictions, targets: Targets, samples: int, seed: int) -> NDArray[np.float64]:
    """The first figure of a metric on the images and on bootstrap samples of them, shape ``(1 + samples,)``.

    Raises:
        InputError: The metric cannot be resampled.
    """
    made = METRICS.get(metric)()
    if not isinstance(made, Resampled):
        raise InputError(f"metric {metric!r}: cannot be resampled, so it is no accuracy to search by; choose another")
    return made.resampled(predictions, targets, samples, seed)


def bootstrap_difference(
    dataset: CocoDataset,
    candidate: Predictions,
    reference: Predictions,
    samples: int = 1000,
    seed: int = 0,
    metric: str = DEFAULT_METRICS[0],
) -> tuple[float, tuple[float, float]]:
    """Paired bootstrap over images of the difference in a metric's first figure, candidate minus reference.

    Args:
        dataset: The images, with labels where the metric needs them.
        candidate: Predictions of one model.
        reference: Predictions of the unquantized one, on the same images.
        samples: Resamples of the images.
        seed: Of the resampling.
        metric: Of `METRICS`; mAP50-95 by default.

    Returns:
        The difference on the images themselves, and the 95 % interval (low, high), all in [-1, 1].
    """
    difference = resampled_difference(dataset, candidate, reference, samples, seed, metric)
    return float(difference[0]), central(difference[1:]) if samples else (float(difference[0]), float(difference[0]))


def resampled_difference(
    dataset: CocoDataset,
    candidate: Predictions,
    reference: Predictions,
    samples: int = 1000,
    seed: int = 0,
    metric: str = DEFAULT_METRICS[0],
) -> NDArray[np.float64]:
    """The difference of `bootstrap_difference` on the images themselves, then on each resample of them.

    Of equal images, samples and seed the resamples are the same ones: what two models lose against one reference may
    be subtracted resample by resample, which pairs the two models as well.

    Returns:
        Shape ``(1 + samples,)``, in [-1, 1].
    """
    targets = Targets(dataset, reference)
    first, second = (resamples(metric, found, targets, samples, seed) for found in (candidate, reference))
    return first - second


def central(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of bootstrap values: their 2.5 and 97.5 % quantiles."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
