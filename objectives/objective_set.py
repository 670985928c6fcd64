"""The objectives of one study together with their bounds: all that the search knows of what it optimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from objectives.objective import LATENCY_MS, MAP_50_95, OBJECTIVES, WEIGHT_MIB, Objective
from objectives.scores import Scores
from search_spaces.errors import InputError

#: Costs that every table shows of a scheme beside its accuracy, objective or not.
_SHOWN = (LATENCY_MS, WEIGHT_MIB)


@dataclass(frozen=True)
class ObjectiveSet:
    """What a study optimises and bounds.

    Attributes:
        objectives: In the order of the study's values; one of them is the accuracy.
        bounds: ``{objective: value}`` that no scheme may be worse than, of objectives and of other quantities.
        max_drop: Points (hundredths) of the accuracy that a scheme may lose against the reference; None for any. It is
            one of `bounds` once the reference is known, see `against`.
    """

    objectives: tuple[Objective, ...]
    bounds: Mapping[Objective, float] = field(default_factory=dict)
    max_drop: float | None = None

    @staticmethod
    def of(names: Sequence[str], constraints: Mapping[str, float | None] | None = None) -> ObjectiveSet:
        """Builds the set of a study.

        Args:
            names: Of the objectives, in order.
            constraints: ``{key: value}`` of the study file, ``max_drop`` among them; None where nothing is bounded.

        Raises:
            InputError: A name is unknown or twice there, or there is not one accuracy with at least one cost.
        """
        bounds = {key: value for key, value in (constraints or {}).items() if value is not None}
        return _built(tuple(names), tuple(bounds.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return tuple(objective.name for objective in self.objectives)

    @property
    def accuracy(self) -> int:
        """Position of the accuracy."""
        return next(index for index, objective in enumerate(self.objectives) if objective.accuracy)

    @property
    def maximised(self) -> Objective:
        """The accuracy."""
        return self.objectives[self.accuracy]

    @property
    def costs(self) -> tuple[Objective, ...]:
        """All but the accuracy."""
        return tuple(objective for objective in self.objectives if not objective.accuracy)

    @property
    def bounded(self) -> tuple[Objective, ...]:
        """Costs that are bounded and no objective; what needs timing is not known of every trial, and left out."""
        return tuple(o for o in self.bounds if o not in self.objectives and not o.accuracy and not o.timed)

    @property
    def timed(self) -> bool:
        """Whether schemes are timed."""
        return any(objective.timed for objective in self.objectives)

    @property
    def built(self) -> bool:
        """Whether engines are built."""
        return any(objective.built for objective in (*self.objectives, *self.bounds))

    @property
    def sized(self) -> bool:
        """Whether a smaller weight gains something by itself, in an objective or towards a bound."""
        return any(objective.prior == "weights" for objective in (*self.objectives, *self.bounds))

    @property
    def axis(self) -> Objective:
        """The cost that figures draw the accuracy over: one that is timed, where there is one."""
        return next((cost for cost in self.costs if cost.timed), self.costs[0])

    @property
    def shade(self) -> Objective | None:
        """The cost that colours the points of a figure; None where `axis` is the only one."""
        return next((cost for cost in self.costs if cost is not self.axis), None)

    @property
    def further(self) -> tuple[Objective, ...]:
        """Objectives beside the figures that every table shows."""
        return tuple(cost for cost in self.costs if cost not in _SHOWN)

    def values(self, scores: Scores) -> list[float]:
        """Values of the objectives, in order."""
        return [objective.value(scores) for objective in self.objectives]

    def losses(self, scores: Scores, reference: Scores) -> list[float]:
        """Coordinates to be minimised: the accuracy negated, costs as shares of the reference's."""
        return [o.loss(o.value(scores), o.value(reference)) for o in self.objectives]

    def violations(self, scores: Scores) -> dict[str, float]:
        """``{constraint: excess}``; a scheme is feasible where none is positive."""
        excesses = {o.bound or o.name: o.excess(o.value(scores), bound) for o, bound in self.bounds.items()}
        return {"broken": 1.0 if scores.broken else 0.0, **excesses}

    def feasible(self, scores: Scores) -> bool:
        """Whether a scheme keeps every bound and is not broken."""
        return all(excess <= 0 for excess in self.violations(scores).values())

    def against(self, reference: Scores) -> ObjectiveSet:
        """The same with `max_drop` as a bound of the accuracy, or with the tighter one that was there."""
        if self.max_drop is None:
            return self
        accuracy = self.maximised
        least = accuracy.value(reference) - self.max_drop / 100
        least = max(least, self.bounds.get(accuracy, least))
        return replace(self, bounds={**self.bounds, accuracy: least})

    @property
    def reference_point(self) -> tuple[float, ...]:
        """The hypervolume's reference point, as shares of the reference's values."""
        return tuple(objective.worst for objective in self.objectives)

    def worst_point(self, reference: Scores) -> NDArray[np.float64]:
        """The same in the coordinates of `losses`, shape ``(objectives,)``."""
        scale = [-o.value(reference) if o.accuracy else 1.0 for o in self.objectives]
        return np.array(self.reference_point) * scale


@cache
def _built(names: tuple[str, ...], bounds: tuple[tuple[str, float], ...]) -> ObjectiveSet:
    if len(set(names)) != len(names):
        raise InputError("objectives: one is named twice; name each once")
    objectives = tuple(OBJECTIVES.get(name) for name in names)
    if sum(objective.accuracy for objective in objectives) != 1 or len(objectives) < 2:
        raise InputError(
            f"objectives: {', '.join(names) or 'none'} given; one accuracy, such as {MAP_50_95.name}, and at least one "
            f"cost, such as {LATENCY_MS.name} or {WEIGHT_MIB.name}, are needed"
        )
    left, found = dict(bounds), dict[Objective, float]()
    max_drop = left.pop("max_drop", None)
    for name in OBJECTIVES.names():
        if left and (objective := OBJECTIVES.get(name)).bound in left:
            found[objective] = left.pop(objective.bound)
    return ObjectiveSet(objectives, found, max_drop)
