"""Finds the scheme of least weighted cost on the layer graph, for many weightings at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.samplers.problem import Floats, Ints, Problem

_FORBIDDEN = 1e9
_SWEEPS = 3


def solve(problem: Problem, choices: Floats, reformats: Floats, breaks: Floats | None = None) -> Ints:
    """Minimises sums over choices and what edges cost.

    In model order most edges join neighbours: those are solved exactly by dynamic programming (Viterbi, 1967), with the
    other edges held at the last solution; single groups are then moved to their best format until nothing gains.

    Args:
        problem: The search.
        choices: Cost of each choice, shape ``(problems, groups, formats)``.
        reformats: Cost of a reformat on each edge, shape ``(problems, edges)``; negative ones count as 0.
        breaks: Cost of a broken fusion on each edge, likewise; None: they are free.

    Returns:
        One scheme per problem, shape ``(problems, groups)``.
    """
    costs = np.where(problem.allowed, choices, _FORBIDDEN)
    if not len(problem.edges):
        return np.asarray(costs.argmin(axis=2))
    kinds = [(problem.reformatted, np.maximum(reformats, 0.0))]
    if breaks is not None and problem.broken.any():
        kinds.append((problem.broken, np.maximum(breaks, 0.0)))
    graph = _Graph(problem, kinds)
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
    """The edges of a problem, sorted by what the two solvers need.

    Args:
        problem: The search.
        kinds: Which pairs of formats pay, shape ``(formats, formats)``, and what on each edge, shape
            ``(problems, edges)``.
    """

    def __init__(self, problem: Problem, kinds: Sequence[tuple[Floats, Floats]]) -> None:
        self._neighbours: list[list[tuple[int, int]]] = [[] for _ in range(problem.groups)]
        self._kinds = kinds
        self._steps = [np.zeros((len(costs), problem.groups)) for _, costs in kinds]  # the edge from the group before
        for index, (source, target) in enumerate(problem.edges):
            low, high = sorted((int(source), int(target)))
            if high == low + 1:
                for step, (_, costs) in zip(self._steps, kinds, strict=True):
                    step[:, high] += costs[:, index]
            else:
                self._neighbours[low].append((high, index))
                self._neighbours[high].append((low, index))

    def chain(self, costs: Floats, schemes: Ints | None) -> Ints:
        """Solves the chain of neighbouring groups, with the other edges as `schemes` would pay them."""
        count, groups, _ = costs.shape
        back: list[Ints] = []
        best = self._conditional(costs, schemes, 0)
        for group in range(1, groups):
            total = best[:, :, None] + self._step(group)  # (problems, format before, format here)
            chosen = total.argmin(axis=1)
            back.append(chosen)
            least = np.take_along_axis(total, chosen[:, None], axis=1)[:, 0]
            best = least + self._conditional(costs, schemes, group)
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
            for step, (pays, _) in zip(self._steps, self._kinds, strict=True):
                if group:
                    total = total + step[:, group, None] * pays[found[:, group - 1]]
                if group + 1 < costs.shape[1]:
                    total = total + step[:, group + 1, None] * pays[found[:, group + 1]]
            better = total.argmin(axis=1)
            gains = total[rows, better] < total[rows, found[:, group]] - 1e-12
            found[gains, group] = better[gains]
        return found, bool((found != schemes).any())

    def _step(self, group: int) -> Floats:
        """Cost of every pair of formats of a group and the one before, shape ``(problems, formats, formats)``."""
        found: Floats = sum(
            (step[:, group, None, None] * pays for step, (pays, _) in zip(self._steps, self._kinds, strict=True)),
            start=np.zeros(1),
        )
        return found

    def _conditional(self, costs: Floats, schemes: Ints | None, group: int) -> Floats:
        """Cost of each format of one group, its far edges included, shape ``(problems, formats)``."""
        total: NDArray[np.float64] = costs[:, group]
        if schemes is not None:
            for other, index in self._neighbours[group]:
                for pays, edges in self._kinds:
                    total = total + edges[:, index, None] * pays[schemes[:, other]]
        return total
