"""Knapsack points: schemes that the priors alone call optimal, reformats included."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.samplers.history import read_history
from tuner.samplers.problem import Floats, Ints, Problem, edge_costs, summed
from tuner.samplers.scheme_sampler import SchemeSampler
from tuner.samplers.solver import exchange_rates, solve

_PRICES = 160


def frontier(problem: Problem, weights: tuple[float, ...]) -> tuple[Ints, Floats]:
    """Schemes of least prior harm for each price of the costs, cheapest first, with their predicted cost.

    Args:
        problem: The search.
        weights: How the price is shared among the costs, in order.

    Returns:
        Schemes of shape ``(n, groups)``, and shape ``(n,)``.
    """
    costs = [objective for objective in problem.objectives if not objective.accuracy]
    choices = np.zeros_like(problem.harm)
    reformats, breaks = np.zeros((2, len(problem.edges)))
    for objective, weight in zip(costs, weights, strict=True):
        assert objective.prior is not None
        on_edges = edge_costs(problem, objective)
        choices = choices + weight * objective.prior
        reformats = reformats + weight * on_edges.reformats
        breaks = breaks + weight * on_edges.breaks
    low, high = exchange_rates(problem, problem.harm, choices)
    prices = np.concatenate([[low / 1e3], np.geomspace(low, high, _PRICES), [high * 1e3]])
    steps = prices[:, None]
    schemes = solve(problem, problem.harm + prices[:, None, None] * choices, steps * reformats, steps * breaks)
    schemes = np.unique(schemes, axis=0)
    total = summed(choices, schemes) + problem.mismatches(schemes) @ reformats + problem.breaks(schemes) @ breaks
    order = np.argsort(total, kind="stable")
    return schemes[order], total[order]


def knapsack_points(problem: Problem, points: int) -> list[Ints]:
    """Points of the predicted frontiers, evenly spaced in predicted cost; of several costs each gets its share.

    With bounds on costs, only points that are predicted to keep them, unless none is.

    Args:
        problem: The search.
        points: Number wanted; fewer come back where the frontiers have fewer.
    """
    costs = sum(not objective.accuracy for objective in problem.objectives)
    found: dict[bytes, Ints] = {}
    directions = [w for w in product((0.0, 1.0), repeat=costs) if any(w)]
    for weights in directions:
        schemes, total = frontier(problem, weights)
        within = _within_bounds(problem, schemes)
        if within.any():
            schemes, total = schemes[within], total[within]
        for target in np.linspace(total[0], total[-1], -(-points // len(directions))):
            scheme = schemes[int(np.abs(total - target).argmin())]
            found.setdefault(scheme.tobytes(), scheme)
    return list(found.values())


def _within_bounds(problem: Problem, schemes: Ints) -> NDArray[np.bool_]:
    """Which schemes are predicted to cost no more than the bounds allow, shape ``(schemes,)``."""
    limits = [np.inf if o.accuracy or o.bound is None else o.bound / o.reference for o in problem.objectives]
    return np.asarray((predicted(problem, schemes) <= limits).all(axis=1))


def predicted(problem: Problem, schemes: Ints) -> Floats:
    """What the priors alone expect of schemes: harm in their unit, costs as shares; shape ``(schemes, objectives)``."""
    mismatches, broken, columns = problem.mismatches(schemes), problem.breaks(schemes), []
    for objective in problem.objectives:
        table = problem.harm if objective.prior is None else objective.prior
        sums = summed(table, schemes)
        on_edges = edge_costs(problem, objective)
        columns.append(sums + mismatches @ on_edges.reformats + broken @ on_edges.breaks + objective.fixed)
    return np.stack(columns, axis=1)


class KnapsackSampler(SchemeSampler):
    """Proposes knapsack points alone, ever finer spaced: the priors without any learning."""

    def __init__(self, problem: Problem, seed: int = 0, drawn: int = 0) -> None:
        super().__init__(problem, seed, drawn)
        self._points: dict[int, list[Ints]] = {}  # by spacing; a function of the problem alone

    def propose(self, study: Study, trial: FrozenTrial) -> Ints:
        """The first point that the study does not hold, of the coarsest spacing that has one; else a random scheme."""
        held = read_history(study, self._problem, trial.number).held
        points = 13
        while points < 40 * _PRICES:
            if points not in self._points:
                self._points[points] = knapsack_points(self._problem, points)
            for scheme in self._points[points]:
                if scheme.tobytes() not in held:
                    return scheme
            points *= 2
        random = np.random.default_rng([self._seed, trial.number])
        return np.array([random.choice(np.flatnonzero(names)) for names in self._problem.allowed], dtype=np.int64)
