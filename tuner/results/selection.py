"""Which member of a front is the best for a stated budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from search_spaces.errors import InputError
from tuner.search.front import recommendation, settled
from tuner.search.records import FrontMember


@dataclass(frozen=True)
class Budget:
    """What a user can afford; None where it does not matter.

    Attributes:
        max_drop: Points of the accuracy (hundredths) lost against the reference.
        max_latency_ms: Milliseconds in the study's scale.
        max_weight_mib: MiB of weights.
    """

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_weight_mib: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and math.isnan(value):
                option = name.removesuffix("_ms").removesuffix("_mib").replace("_", "-")
                raise InputError(f"--{option} nan: must be a number")

    @property
    def stated(self) -> bool:
        """Whether anything is bounded."""
        return any(value is not None for value in (self.max_drop, self.max_latency_ms, self.max_weight_mib))

    def objectives(self, study: ObjectiveSet) -> ObjectiveSet:
        """The study's objectives with this budget of accuracy in place of its own."""
        return study if self.max_drop is None else replace(study, max_drop=self.max_drop)

    def within(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the front (of `tuner.results.front_files.row`) that keep the budget, by the latest figures."""
        kept = []
        for entry in rows:
            values = (100 * entry["drop"], latency_of(entry), entry["weight_bytes"] / 2**20)
            bounds = (self.max_drop, self.max_latency_ms, self.max_weight_mib)
            if all(b is None or v <= b + 1e-9 for v, b in zip(values, bounds, strict=True)):
                kept.append(entry)
        return kept

    def best(self, members: Sequence[FrontMember], reference: Scores, study: ObjectiveSet) -> int | None:
        """Trial of the best member: by the rule of the recommendation where only the loss is bounded.

        Where a latency or a size is, it is the most accurate that keeps every bound.

        Args:
            members: Of the front.
            reference: Scores of the unquantized model.
            study: Its objectives.

        Returns:
            None where nothing is bounded, or no member keeps the bounds; a loss must surely be kept where it has an
            interval.
        """
        if not self.stated:
            return None
        objectives = self.objectives(study)
        if self.max_latency_ms is None and self.max_weight_mib is None:
            answer = recommendation(members, reference, objectives)
            return answer.trial if answer is not None and answer.kept else None
        left = []
        for member in members:
            scores = settled(member, reference, objectives.maximised)
            lost = objectives.maximised.value(reference) - objectives.maximised.value(scores)
            worst = member.loss_interval[1] if member.loss_interval else lost
            values = (100 * worst, scores.latency_ms, scores.size.weight_bytes / 2**20)
            bounds = (self.max_drop, self.max_latency_ms, self.max_weight_mib)
            if all(b is None or v <= b + 1e-9 for v, b in zip(values, bounds, strict=True)):
                left.append((lost, member.record.number))
        return min(left)[1] if left else None


def latency_of(entry: Mapping[str, Any]) -> float:
    """Latency of a row of the front, milliseconds: as measured again where it was."""
    again = entry["rescored"]
    return float(again["latency_ms"] if again and again["latency_ms"] is not None else entry["latency_ms"])
