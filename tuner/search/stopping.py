"""Ends a study that finds no more: no gain of hypervolume beyond noise for `search.patience` proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from objectives.scores import Scores
from tuner.samplers.acquisition import improvement
from tuner.samplers.history import read_history
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Problem
from tuner.search.front import front_of, hypervolume
from tuner.search.records import TrialRecord
from tuner.search.trials import Trials, counted

#: A duplicate of a front member counts as lucky by so many standard deviations: about the best of twenty.
LUCK = 2.0


@dataclass(frozen=True)
class Patience:
    """When a study has stopped to gain.

    A gain counts if it exceeds what luck alone could bring: the most that a second measurement of a front member would
    add if its accuracy came out by `LUCK` standard deviations higher. The deviation is the noise that the accuracy
    model finds in the trials.

    Attributes:
        problem: The search, for the model.
        reference: Scores of the unquantized model.
        trials: Proposals of the sampler that may pass without a gain; None: the study goes on.
        start: Trials that do not count, for they were over when the study was extended.
    """

    problem: Problem
    reference: Scores
    trials: int | None
    start: int = 0

    def over(self, trials: Trials) -> str:
        """Why the study is to end; empty where it is not."""
        if self.trials is None:
            return ""
        records = trials.records()
        ended = [record for record in records if counted([record])]
        last = ended[self.start :][-self.trials :]
        waiting = any(record.state == "WAITING" for record in records)
        if waiting or len(last) < self.trials or any(record.origin != "sampler" for record in last):
            return ""
        objectives = trials.config.objective_set
        before, now = (hypervolume(found, objectives, self.reference) for found in (ended[: -self.trials], ended))
        gain = now - before
        noise = self._noise(trials, ended) if gain > 0 else 0.0
        if gain > noise:
            return ""
        return (
            f"no gain beyond noise in {self.trials} trials (hypervolume {now:.4f}, {gain:.2g} more, noise {noise:.2g})"
            f": the study ends; `tuner resume {trials.run.path} --trials N` extends it"
        )

    def _noise(self, trials: Trials, records: Sequence[TrialRecord]) -> float:
        """Hypervolume that the luckiest duplicate of a front member would add."""
        objectives, reference = trials.config.objective_set, self.reference
        front = front_of(records, objectives, reference)
        history = read_history(trials.study, self.problem)
        if not front or not len(history.schemes):
            return 0.0
        share = JointPosterior(self.problem, history).accuracy.hyperparameters["noise"]
        points = np.array([objectives.losses(m.record.scores, reference) for m in front if m.record.scores])
        lucky = points.copy()
        lucky[:, objectives.accuracy] -= LUCK * share * objectives.values(reference)[objectives.accuracy]
        return float(improvement(lucky, points, objectives.worst_point(reference)).max())
