"""Finds the scheme of least weighted cost on the layer graph, for many weightings at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.samplers.problem import Floats, Ints, Problem

_FORBIDDEN = 1e9
_SWEEPS = 3


def solve(problem: Problem, choices: Floats, reformats: Floats) -> Ints:
    """Minimises sums over choices and reformats.

    In model order most edges join neighbours: those are solved exactly by dynamic programming (Viterbi, 1967), with the
    other edges held at the last solution; single groups are then moved to their best format until nothing gains.

    Args:
        problem: The search.
        choices: Cost of each choice, shape ``(problems, groups, formats)``.
        reformats: Cost of a reformat on each edge, shape ``(problems, edges)``; negative ones count as 0.

    Returns:
        One scheme per problem, shape ``(problems, groups)``.
    """
    costs = np.where(problem.allowed, choices, _FORBIDDEN)
    if not len(problem.edges):
        return np.asarray(costs.argmin(axis=2))
    graph = _Graph(problem, np.maximum(reformats, 0.0))
    schemes = graph.chain(costs, None)
    for _ in range(_SWEEPS):
        schemes = graph.chain(costs, schemes)
        schemes, moved = graph.descend(costs, schemes)
        if not moved:
            break
    return schemes


def exchange_rates(problem: Problem, loss: Floats, cost: Floats) -> tuple[float, float]:
    """Range of prices of a cost, in units of loss, at which single groups change their format.

    Args:
        problem: The search.
        loss: Of each choice, shape ``(groups, formats)``.
        cost: Of each choice, same shape.
    """
    gain = loss[:, :, None] - loss[:, None, :]
    saved = cost[:, None, :] - cost[:, :, None]
    both = problem.allowed[:, :, None] & problem.allowed[:, None, :] & (gain > 1e-12) & (saved > 1e-12)
    if not both.any():
        return 0.1, 10.0
    low, high = np.quantile(gain[both] / saved[both], [0.02, 0.98])
    return float(low) / 3, float(high) * 3


class _Graph:
    """The edges of a problem, sorted by what the two solvers need."""

    def __init__(self, problem: Problem, reformats: Floats) -> None:
        self._domains = problem.domains
        self._differs = (problem.domains[:, None] != problem.domains[None, :]).astype(np.float64)
        self._neighbours: list[list[tuple[int, int]]] = [[] for _ in range(problem.groups)]
        self._step = np.zeros((len(reformats), problem.groups))  # cost of the edge from the group before
        for index, (source, target) in enumerate(problem.edges):
            low, high = sorted((int(source), int(target)))
            if high == low + 1:
                self._step[:, high] += reformats[:, index]
            else:
                self._neighbours[low].append((high, index))
                self._neighbours[high].append((low, index))
        self._reformats = reformats

    def chain(self, costs: Floats, schemes: Ints | None) -> Ints:
        """Solves the chain of neighbouring groups, with the other edges as `schemes` would pay them."""
        count, groups, _ = costs.shape
        back: list[Ints] = []
        best = self._conditional(costs, schemes, 0)
        for group in range(1, groups):
            # (problems, format before, format here)
            total = best[:, :, None] + self._step[:, group, None, None] * self._differs
            back.append(total.argmin(axis=1))
            best = total.min(axis=1) + self._conditional(costs, schemes, group)
        found = np.zeros((count, groups), dtype=np.int64)
        found[:, -1] = best.argmin(axis=1)
        rows = np.arange(count)
        for group in range(groups - 1, 0, -1):
            found[:, group - 1] = back[group - 1][rows, found[:, group]]
        return found

    def descend(self, costs: Floats, schemes: Ints) -> tuple[Ints, bool]:
        """Moves each group to its best format given all others; returns whether any moved."""
        found, rows = schemes.copy(), np.arange(len(schemes))
        for group in range(costs.shape[1]):
            total = self._conditional(costs, found, group)
            if group:
                total = total + self._step[:, group, None] * self._differs[found[:, group - 1]]
            if group + 1 < costs.shape[1]:
                total = total + self._step[:, group + 1, None] * self._differs[found[:, group + 1]]
            better = total.argmin(axis=1)
            gains = total[rows, better] < total[rows, found[:, group]] - 1e-12
            found[gains, group] = better[gains]
        return found, bool((found != schemes).any())

    def _conditional(self, costs: Floats, schemes: Ints | None, group: int) -> Floats:
        """Cost of each format of one group, its far edges included, shape ``(problems, formats)``."""
        total: NDArray[np.float64] = costs[:, group]
        if schemes is not None:
            for other, index in self._neighbours[group]:
                total = total + self._reformats[:, index, None] * self._differs[schemes[:, other]]
        return total
