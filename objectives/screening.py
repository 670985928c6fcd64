"""The first look: a few images that tell whether a scheme is clearly dominated before the others are run.

A scheme is dominated if and only if the most accurate of those that cost no more is at least as accurate. So one
comparison decides, with that one, the leader: its detections on the same images are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from objectives.detection.dataset import CocoDataset
from objectives.detection.prediction_file import load_predictions
from objectives.detection.scoring import Predictions, bootstrap_difference
from objectives.scores import FirstLook, Latency, Scores, Size

_SAMPLES = 1000


@dataclass(frozen=True)
class ScreeningSettings:
    """When a scheme is not scored in full.

    Attributes:
        images: Of the first look.
        confidence: Of the bound that decides, in (0.5, 1).
        seed: Of the choice of these images.
        costs: Objectives in which the leader may not be worse: ``latency_ms``, ``weight_mib`` or both.
    """

    images: int
    confidence: float
    seed: int
    costs: tuple[str, ...]


class Screener:
    """Compares a scheme with its leader on some images.

    Args:
        settings: Of the study.
        dataset: The search images.
        predictions: Folder where the detections of every scheme are kept, as ``<digest>.npz``.
    """

    def __init__(self, settings: ScreeningSettings, dataset: CocoDataset, predictions: Path) -> None:
        ids = [image.id for image in dataset.images]
        drawn = np.random.default_rng(settings.seed).permutation(len(ids))
        self.rows = tuple(sorted(drawn[: settings.images].tolist()))
        self.rest = tuple(sorted(drawn[settings.images :].tolist()))
        self._settings = settings
        self._dataset = dataset.only({ids[row] for row in self.rows})
        self._predictions = predictions

    def leader(self, front: Mapping[str, Scores], latency: Latency | None, size: Size) -> str | None:
        """Digest of the most accurate scheme that costs no more.

        Args:
            front: ``{allocation digest: scores}`` of the front so far.
            latency: Of the scheme; None where the study has no latency objective.
            size: Of the scheme.
        """
        mine = self._costs(latency, size)
        cheaper = {
            digest: scores.accuracy.map_50_95
            for digest, scores in front.items()
            if all(a <= b for a, b in zip(self._costs(scores.latency, scores.size), mine, strict=True))
        }
        return max(cheaper, key=cheaper.__getitem__, default=None)

    def look(self, found: Predictions, leader: str, accuracy: float) -> FirstLook | None:
        """Compares detections of the first look with the leader's; None where those are not at hand.

        Args:
            found: Of the scheme.
            leader: Digest of the leader.
            accuracy: Its mAP50-95 on all search images.
        """
        kept, ids = load_predictions(self._predictions / f"{leader}.npz"), set(found.ids)
        if kept is None or not ids <= set(kept.ids):
            return None
        settings = self._settings
        level = 2 * settings.confidence - 1  # the upper end of that interval is the one-sided bound
        difference, (_, upper) = bootstrap_difference(
            self._dataset, found, kept.only(ids), _SAMPLES, settings.seed, level
        )
        expected = min(1.0, max(0.0, accuracy + difference))
        total = len(self.rows) + len(self.rest)
        return FirstLook(leader, len(ids), total, difference, upper, settings.confidence, expected)

    def _costs(self, latency: Latency | None, size: Size) -> Sequence[float]:
        """Costs that compare between schemes: of the latency the ratio to the reference, of the size the bytes."""
        known = {"latency_ms": latency.ratio if latency else 0.0, "weight_mib": float(size.weight_bytes)}
        return [known[name] for name in self._settings.costs]
