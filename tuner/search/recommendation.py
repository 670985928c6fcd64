"""Which scheme of a front to ship: one rule, and its words, for the report, the files, the terminal and Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from objectives.objective_set import ObjectiveSet
from tuner.search.records import FrontMember
from tuner.search.telling_apart import Contender, best_of_the_cheapest
from tuner.terminal.units import budget, change, interval, lost

#: Points of the accuracy that a recommended scheme may lose where the study does not say.
DEFAULT_DROP = 1.0


class Verdict(Enum):
    """How far a scheme can be trusted to keep the budget."""

    SURE = "sure"  # the upper end of its paired interval is within the budget
    ESTIMATED = "estimated"  # its figure on the search images is; it has no interval yet
    NEAREST = "nearest"  # no scheme is: this one comes nearest


@dataclass(frozen=True)
class Recommendation:
    """The scheme that a front's answer names.

    Attributes:
        member: The scheme.
        verdict: Whether it keeps the budget.
        max_drop: The budget: accuracy that may be lost, in [0, 1].
        drop: What it loses, by the latest figures.
    """

    member: FrontMember
    verdict: Verdict
    max_drop: float
    drop: float

    @property
    def trial(self) -> int:
        """Its number."""
        return self.member.record.number

    @property
    def kept(self) -> bool:
        """Whether it keeps the budget, as far as that is known."""
        return self.verdict is not Verdict.NEAREST

    def sentence(self, objectives: ObjectiveSet) -> str:
        """Which scheme, by which rule, and how sure: plain words."""
        name, best = objectives.maximised.brief, cheapest(objectives)
        bound = f"within {budget(self.max_drop)} {name} points of the unquantized model"
        found = f"{change(-self.drop)} points"
        if bounds := self.member.loss_interval:
            found += f" (95 % interval {interval(-bounds[1], -bounds[0])})"
        if self.verdict is Verdict.SURE:
            tied = f" Of those that noise cannot tell apart in {objectives.axis.label}, it is the most accurate."
            sure = f"Trial {self.member.record.name} is the {best} scheme that is surely {bound}: {found}."
            return sure + tied * objectives.axis.timed
        if self.verdict is Verdict.ESTIMATED:
            return (
                f"Trial {self.member.record.name} is the {best} scheme {bound} by the figures of the search images: "
                f"{found}. "
                "How sure that is, is not known: it was not scored on all images."
            )
        crossed = f", and its interval crosses the budget of {lost(self.max_drop)}" if self._crosses else ""
        return f"No scheme is surely {bound}. The nearest is trial {self.member.record.name}: {found}{crossed}."

    @property
    def _crosses(self) -> bool:
        bounds = self.member.loss_interval
        return bounds is not None and bounds[0] <= self.max_drop < bounds[1]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object; accuracies in [0, 1]."""
        return {
            "trial": self.trial,
            "verdict": self.verdict.value,
            "max_drop": self.max_drop,
            "drop": self.drop,
            "drop_interval": list(self.member.loss_interval) if self.member.loss_interval else None,
            "interval_crosses_budget": self._crosses if self.member.loss_interval else None,
        }


def no_answer(front: bool) -> str:
    """What is said where no scheme can be named.

    Args:
        front: Whether the front holds any scheme, which is then the unquantized one.
    """
    if front:
        return "No quantized scheme is on the front: ship the unquantized model, or resume the run with more trials."
    return "The front is empty: no scheme is complete that keeps the constraints; resume the run with more trials."


def cheapest(objectives: ObjectiveSet) -> str:
    """What the best scheme of a front is called: ``fastest`` or ``smallest``."""
    return "fastest" if objectives.axis.timed else "smallest"


def recommend(contenders: Sequence[Contender], objectives: ObjectiveSet, reference: float) -> Recommendation | None:
    """Chooses the scheme to ship.

    It is surely within the budget: the upper end of the paired 95 % interval of its drop is. Of those it is the
    cheapest, and among the ones that noise cannot tell from that one in cost the most accurate. Where none is sure, the
    figures of the search must do for schemes that were not scored again. Where none keeps the budget, the one is named
    whose upper end (or whose drop) exceeds it least. The unquantized model is no answer.

    Args:
        contenders: Of the front, with their latest scores.
        objectives: Of the study; they hold the budget.
        reference: Accuracy of the unquantized model on the search images, in [0, 1].

    Returns:
        None where no quantized scheme is on the front.
    """
    most = (DEFAULT_DROP if objectives.max_drop is None else objectives.max_drop) / 100
    quantized = [each for each in contenders if not each.member.record.allocation.unquantized]
    if not quantized:
        return None
    scored = [each for each in quantized if each.member.loss_interval is not None]

    def drop(one: Contender) -> float:
        loss = one.member.loss
        return reference - objectives.maximised.value(one.scores) if loss is None else loss

    def worst(one: Contender) -> float:
        bounds = one.member.loss_interval
        return drop(one) if bounds is None else bounds[1]

    within = [each for each in quantized if worst(each) <= most + 1e-9]
    if sure := [each for each in within if each in scored]:
        chosen, verdict = best_of_the_cheapest(sure, objectives), Verdict.SURE
    elif within:
        chosen, verdict = best_of_the_cheapest(within, objectives), Verdict.ESTIMATED
    else:
        chosen = min(scored or quantized, key=lambda each: (worst(each), objectives.axis.value(each.scores)))
        verdict = Verdict.NEAREST
    return Recommendation(chosen.member, verdict, most, drop(chosen))
