"""Candidates: schemes that may be good, from draws of the models and from changes of the posterior front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Floats, Ints, Problem, Target, summed
from tuner.samplers.solver import exchange_rates, solve

DRAWS = 24
WEIGHTINGS = 10
CHANGED = 240
_BOUND_STEPS = 24


def drawn(posterior: JointPosterior, random: np.random.Generator) -> Ints:
    """Solves draws of the models for random prices, shape ``(DRAWS * WEIGHTINGS, groups)``.

    From what the models expect to full draws of them (Thompson sampling): the first are the best bets, the last learn.
    """
    problem = posterior.problem
    draws = posterior.draw(random, np.linspace(0.0, 1.0, DRAWS))
    choices = np.zeros((DRAWS, WEIGHTINGS, problem.groups, len(problem.formats)))
    edges = [np.zeros((DRAWS, WEIGHTINGS, len(problem.edges))) for _ in range(2)]
    for objective, (cost, *on_edges) in zip(problem.objectives, draws, strict=True):
        if objective.accuracy:
            weight = np.ones((DRAWS, WEIGHTINGS))
        else:
            low, high = _prices(problem, objective, draws[_accuracy(problem)][0], cost, on_edges)
            weight = np.exp(random.uniform(np.log(low), np.log(high), (DRAWS, WEIGHTINGS)))
        choices = choices + weight[:, :, None, None] * cost[:, None]
        edges = [total + weight[:, :, None] * part[:, None] for total, part in zip(edges, on_edges, strict=True)]
    count = DRAWS * WEIGHTINGS
    reformats, breaks = (part.reshape(count, -1) for part in edges)
    return solve(problem, choices.reshape(count, *choices.shape[2:]), reformats, breaks)


def changed(posterior: JointPosterior, front: Ints, random: np.random.Generator) -> Ints:
    """Mutations of and crossovers between schemes of the front, shape ``(CHANGED, groups)``."""
    problem = posterior.problem
    first = front[random.integers(len(front), size=CHANGED)]
    second = front[random.integers(len(front), size=CHANGED)]
    # A child takes a run of neighbouring groups from the other parent: neighbours pay for differing.
    ends = np.sort(random.integers(0, problem.groups + 1, (CHANGED, 2)), axis=1)
    position = np.arange(problem.groups)
    crossed = (position >= ends[:, :1]) & (position < ends[:, 1:]) & (np.arange(CHANGED)[:, None] % 2 == 0)
    found = np.where(crossed, second, first)
    allowed = [np.flatnonzero(row) for row in problem.allowed]
    for row in range(CHANGED):
        flips = random.choice(problem.groups, min(problem.groups, int(random.geometric(0.4))), replace=False)
        for group in flips:
            found[row, group] = random.choice(allowed[group])
    return found


def _prices(
    problem: Problem, objective: Target, loss: Floats, cost: Floats, on_edges: Sequence[Floats]
) -> tuple[float, float]:
    """Range of prices of a cost at which schemes differ; with a bound, from about the one that keeps it.

    Args:
        problem: The search.
        objective: The cost.
        loss: Draws of the loss of each choice, shape ``(draws, groups, formats)``.
        cost: Draws of the cost of each choice, same shape.
        on_edges: Draws of the cost of a reformat and of a broken fusion on each edge, each ``(draws, edges)``.
    """
    # The first draw is what is expected.
    loss, cost, reformats, breaks = loss[0], cost[0], on_edges[0][0], on_edges[1][0]
    low, high = exchange_rates(problem, loss, cost)
    if objective.bound is None:
        return low, high
    prices = np.geomspace(low, high, _BOUND_STEPS)
    steps = prices[:, None]
    schemes = solve(problem, loss + prices[:, None, None] * cost, steps * reformats, steps * breaks)
    spent = summed(cost, schemes)
    spent = spent + problem.mismatches(schemes) @ reformats + problem.breaks(schemes) @ breaks + objective.fixed
    keeps = spent <= objective.bound / objective.reference
    return (float(prices[keeps.argmax()]) / 3 if keeps.any() else high / 3), high


def _accuracy(problem: Problem) -> int:
    return next(index for index, objective in enumerate(problem.objectives) if objective.accuracy)
