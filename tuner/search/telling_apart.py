"""What noise can tell: whether one scheme is surely better than another, and which schemes then add nothing.

Accuracies are compared on bootstrap resamples of the images, the same ones for both schemes; latencies by their
intervals, which must not overlap; sizes are exact. Where noise was not measured, figures are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from objectives.objective import Objective
from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from tuner.search.records import FrontMember

#: A difference of accuracies is beyond noise where no more than this share of the resamples denies it.
_TAIL = 0.025


@dataclass(frozen=True, eq=False)
class Contender:
    """A scheme with its latest scores.

    Attributes:
        member: The scheme.
        scores: As `tuner.search.front.settled` gives them, on the scales of the search.
    """

    member: FrontMember
    scores: Scores

    @property
    def trial(self) -> int:
        """Its number."""
        return self.member.record.number


def surely_better(one: Contender, other: Contender, objective: Objective) -> bool:
    """Whether noise can tell that `one` is better than `other` in an objective."""
    mine, theirs = objective.value(one.scores), objective.value(other.scores)
    if objective.accuracy:
        return mine > theirs and not _perhaps_equal(one.member, other.member)
    ours, others = one.member.latency_interval, other.member.latency_interval
    if objective.timed and ours and others:
        return mine < theirs and ours[1] < others[0]
    return mine < theirs * (1 - 1e-9)


def _perhaps_equal(better: FrontMember, worse: FrontMember) -> bool:
    """Whether noise may have made the difference of two accuracies; not where it was not measured."""
    bounds, others = better.change_interval, worse.change_interval
    if bounds is None or others is None:
        return False
    first, second = (each.rescore.resampled if each.rescore else () for each in (better, worse))
    if len(first) == len(second) > 0:
        return float(np.mean(np.subtract(first, second) <= 0)) > _TAIL
    return bounds[0] <= others[1]


def best_of_the_cheapest(contenders: Sequence[Contender], objectives: ObjectiveSet) -> Contender:
    """Of the cheapest scheme and those that noise cannot tell from it in its cost, the most accurate.

    Args:
        contenders: At least one.
        objectives: Of the study; the cost is the one that figures draw the accuracy over.
    """
    axis, accuracy = objectives.axis, objectives.maximised
    cheapest = min(contenders, key=lambda each: axis.value(each.scores))
    near = [each for each in contenders if each is cheapest or not surely_better(cheapest, each, axis)]
    return max(near, key=lambda each: (accuracy.value(each.scores), -axis.value(each.scores)))


def fold(contenders: Sequence[Contender], objectives: ObjectiveSet, first: Contender | None = None) -> dict[int, int]:
    """Finds the schemes that add nothing that noise can tell, and under whom each is folded.

    A scheme is folded under a shown one where it is surely better than that one in no objective. They are shown from
    the cheapest on, and of those that cannot be told apart in cost the most accurate first, unless another is surely
    better than it in one objective, and it better in none.

    Args:
        contenders: Of a front.
        objectives: Of the study.
        first: One that is shown in any case: the recommended scheme.

    Returns:
        ``{trial: trial of the shown scheme}``; the shown ones are no keys.
    """
    gains = {
        (one, other): any(surely_better(one, other, objective) for objective in objectives.objectives)
        for one in contenders
        for other in contenders
        if one is not other
    }
    shown: list[Contender] = []
    left = list(contenders)
    while left:
        undominated = [
            one for one in left if not any(gains[o, one] and not gains[one, o] for o in left if o is not one)
        ]
        chosen = first if first in left else best_of_the_cheapest(undominated or left, objectives)
        assert chosen is not None
        shown.append(chosen)
        left = [each for each in left if each is not chosen and gains[each, chosen]]

    def nearest(folded: Contender) -> int:
        cost = objectives.axis.value
        over = [each for each in shown if not gains[folded, each]]
        return min(over, key=lambda each: abs(cost(each.scores) - cost(folded.scores))).trial

    return {each.trial: nearest(each) for each in contenders if each not in shown}
