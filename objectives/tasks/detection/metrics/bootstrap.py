"""Resamples images, and re-accumulates mAP50-95 without matching again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 250


@dataclass(frozen=True)
class _Curve:
    """Detections of one class at one IoU threshold, reduced to what decides its average precision.

    Attributes:
        right: Shape (n, images), sparse: row j holds 1 at the image of the j-th best true positive.
        wrong: Shape (n, images), sparse: row j counts, by image, false positives ranked between j-1 and j.
    """

    right: sparse.csr_array
    wrong: sparse.csr_array


@dataclass(frozen=True)
class MatchTable:
    """All matches of one model.

    Attributes:
        curves: Per class, one curve per IoU threshold.
        objects: Shape (classes, images): labelled objects that count.
    """

    curves: tuple[tuple[_Curve, ...], ...]
    objects: NDArray[np.float64]

    @staticmethod
    def of(results: Sequence[Mapping[str, Any] | None], classes: int, images: int) -> MatchTable:
        """Reads ``COCOeval.evalImgs`` of one area range: class by class, image by image."""
        objects = np.zeros((classes, images))
        curves = []
        for index in range(classes):
            found = results[index * images : (index + 1) * images]
            for position, result in enumerate(found):
                objects[index, position] = np.count_nonzero(np.asarray(result["gtIgnore"]) == 0) if result else 0
            curves.append(_curves(found, images))
        return MatchTable(tuple(curves), objects)

    def mean_average_precision(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """MAP50-95 of resampled image sets.

        Args:
            weights: Shape (images, samples): how often each image occurs in each sample.

        Returns:
            Shape (samples,); 0 where a sample has no object.
        """
        total, counted = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for curves, objects in zip(self.curves, self.objects @ weights, strict=True):
            present = objects > 0
            counted += present
            for curve in curves:
                total += np.where(present, _average_precision(curve, weights, np.maximum(objects, 1)), 0) / len(curves)
        mean: NDArray[np.float64] = total / np.maximum(counted, 1)
        return mean


def resampled(table: MatchTable, samples: int, seed: int) -> NDArray[np.float64]:
    """MAP50-95 of the images themselves, and of each resample, shape (1 + samples,).

    Resamples of one seed are the same for every model, so that the results of two are paired.
    """
    images = table.objects.shape[1]
    drawn = [table.mean_average_precision(weights) for weights in draws(images, samples, seed)]
    return np.concatenate([table.mean_average_precision(np.ones((images, 1))), *drawn])


def draws(images: int, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image occurs in each resample, shape (images, up to `_CHUNK`)."""
    generator = np.random.default_rng(seed)
    for start in range(0, samples, _CHUNK):
        count = min(_CHUNK, samples - start)
        yield generator.multinomial(images, np.full(images, 1 / images), size=count).T.astype(np.float64)


def _curves(found: Sequence[Mapping[str, Any] | None], images: int) -> tuple[_Curve, ...]:
    kept = [(position, result) for position, result in enumerate(found) if result and len(result["dtScores"])]
    if not kept:
        return ()
    scores = np.concatenate([result["dtScores"] for _, result in kept])
    owner = np.concatenate([np.full(len(result["dtScores"]), position) for position, result in kept])
    matched = np.concatenate([np.asarray(result["dtMatches"]) for _, result in kept], 1) > 0
    ignored = np.concatenate([np.asarray(result["dtIgnore"]) for _, result in kept], 1).astype(bool)
    order = np.argsort(-scores, kind="mergesort")  # the order of pycocotools, ties included
    owner, matched, ignored = owner[order], matched[:, order], ignored[:, order]
    return tuple(_curve(owner, m & ~i, ~m & ~i, images) for m, i in zip(matched, ignored, strict=True))


def _curve(owner: NDArray[np.int64], right: NDArray[np.bool_], wrong: NDArray[np.bool_], images: int) -> _Curve:
    places = np.flatnonzero(right)
    errors = np.flatnonzero(wrong)
    rows = np.searchsorted(places, errors)
    before = rows < len(places)  # false positives behind the last true positive change nothing
    shape = (len(places), images)
    ones = np.ones(len(places))
    return _Curve(
        sparse.csr_array((ones, (np.arange(len(places)), owner[places])), shape=shape),
        sparse.csr_array((np.ones(int(before.sum())), (rows[before], owner[errors[before]])), shape=shape),
    )


def _average_precision(
    curve: _Curve, weights: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """101-point interpolated average precision of each sample, shape (samples,).

    An image drawn twice brings its detections twice, side by side in the ranking: the precision envelope and
    the recall that it is read at are those of the weighted counts behind each true positive.
    """
    if not curve.right.shape[0]:
        return np.zeros(weights.shape[1])
    right = np.cumsum(curve.right @ weights, 0)
    wrong = np.cumsum(curve.wrong @ weights, 0)
    precision = right / (right + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], 0)[::-1]
    reached = np.searchsorted(_RECALLS, right / objects, side="right")
    served = np.diff(reached, axis=0, prepend=0)
    result: NDArray[np.float64] = (envelope * served).sum(0) / len(_RECALLS)
    return result
