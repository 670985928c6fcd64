"""The first look: a few images that tell whether a scheme is clearly dominated before the others are run.

A scheme is dominated if and only if the most accurate of those that cost no more is at least as accurate. So one
comparison decides, with that one, the leader: its detections on the same images are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.objective import MAP_50_95, Objective
from objectives.scores import FirstLook, Latency, Scores, Size
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.metrics.comparison import resamples
from objectives.tasks.detection.metrics.metric import Targets
from objectives.tasks.detection.prediction_file import load_predictions
from objectives.tasks.detection.predictions import Predictions

_SAMPLES = 500
#: A leader is faster by this share at least: measured again, quiet latencies differed by half of it in the median.
TIMING_MARGIN = 0.02


@dataclass(frozen=True)
class ScreeningSettings:
    """When a scheme is not scored in full.

    Attributes:
        images: Of the first look.
        confidence: Of the bound that decides, in (0.5, 1).
        seed: Of the choice of these images.
        costs: Objectives in which the leader may not be worse; each is known before the accuracy is (`quick`).
        accuracy: In which the leader must be better.
    """

    images: int
    confidence: float
    seed: int
    costs: tuple[Objective, ...]
    accuracy: Objective = MAP_50_95


class Screener:
    """Compares a scheme with its leader on some images.

    Args:
        settings: Of the study.
        dataset: The search images.
        predictions: Folder where the detections of every scheme are kept, as ``<digest>.npz``.
        reference: The unquantized model's detections, for an accuracy that compares with them.
    """

    def __init__(
        self, settings: ScreeningSettings, dataset: CocoDataset, predictions: Path, reference: Predictions | None = None
    ) -> None:
        ids = [image.id for image in dataset.images]
        drawn = np.random.default_rng(settings.seed).permutation(len(ids))
        self.rows = tuple(sorted(drawn[: settings.images].tolist()))
        self.rest = tuple(sorted(drawn[settings.images :].tolist()))
        self._settings = settings
        self._dataset = dataset.only({ids[row] for row in self.rows})
        self._reference = reference
        self._predictions = predictions
        self._leaders: dict[str, NDArray[np.float64]] = {}

    def leader(self, front: Mapping[str, Scores], latency: Latency | None, size: Size) -> str | None:
        """Digest of the most accurate scheme that costs no more, its latency less by `TIMING_MARGIN`.

        Args:
            front: ``{allocation digest: scores}`` of the front so far.
            latency: Of the scheme; None where the study has no latency objective.
            size: Of the scheme.
        """
        mine = self._costs(latency, size, 1 - TIMING_MARGIN)
        cheaper = {
            digest: scores.accuracy.figure(self._settings.accuracy.name)
            for digest, scores in front.items()
            if all(a <= b for a, b in zip(self._costs(scores.latency, scores.size), mine, strict=True))
        }
        return max(cheaper, key=cheaper.__getitem__, default=None)

    def look(self, found: Predictions, leader: str, accuracy: float) -> FirstLook | None:
        """Compares detections of the first look with the leader's; None where those are not at hand.

        Args:
            found: Of the scheme.
            leader: Digest of the leader.
            accuracy: The leader's on all search images.
        """
        theirs, settings = self._kept(leader), self._settings
        if theirs is None:
            return None
        drawn = self._resampled(found) - theirs
        difference, upper = float(drawn[0]), float(np.quantile(drawn[1:], settings.confidence))
        expected = min(1.0, max(0.0, accuracy + difference))
        total = len(self.rows) + len(self.rest)
        return FirstLook(leader, len(found), total, difference, upper, settings.confidence, expected)

    def _kept(self, digest: str) -> NDArray[np.float64] | None:
        """What `_resampled` gives of a scheme that was scored in full; the leaders of a study are few."""
        if digest not in self._leaders:
            kept, ids = load_predictions(self._predictions / f"{digest}.npz"), {i.id for i in self._dataset.images}
            if kept is None or not ids <= set(kept.ids):
                return None
            self._leaders[digest] = self._resampled(kept.only(ids))
        return self._leaders[digest]

    def _resampled(self, found: Predictions) -> NDArray[np.float64]:
        targets, settings = Targets(self._dataset, self._reference), self._settings
        return resamples(settings.accuracy.metric, found, targets, _SAMPLES, settings.seed)

    def _costs(self, latency: Latency | None, size: Size, factor: float = 1.0) -> Sequence[float]:
        """Costs that compare between schemes; what was timed is multiplied by `factor`."""
        found = [(cost.timed, cost.quick(latency, size)) for cost in self._settings.costs if cost.quick is not None]
        return [factor * value if timed else value for timed, value in found]
