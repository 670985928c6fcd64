"""Candidates: schemes that may be good, from draws of the models and from changes of the posterior front."""

from __future__ import annotations

import numpy as np

from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Floats, Ints, Problem, Target
from tuner.samplers.solver import exchange_rates, solve

DRAWS = 24
WEIGHTINGS = 10
CHANGED = 240
_BOUND_STEPS = 24


def drawn(posterior: JointPosterior, random: np.random.Generator) -> Ints:
    """Solves draws of the models for random prices (Thompson sampling), shape ``(DRAWS * WEIGHTINGS, groups)``."""
    problem = posterior.problem
    draws = posterior.draw(random, DRAWS)
    choices = np.zeros((DRAWS, WEIGHTINGS, problem.groups, len(problem.formats)))
    reformats = np.zeros((DRAWS, WEIGHTINGS, len(problem.edges)))
    for objective, (cost, edges) in zip(problem.objectives, draws, strict=True):
        if objective.accuracy:
            weight = np.ones((DRAWS, WEIGHTINGS))
        else:
            low, high = _prices(problem, objective, draws[_accuracy(problem)][0], cost, edges)
            weight = np.exp(random.uniform(np.log(low), np.log(high), (DRAWS, WEIGHTINGS)))
        choices = choices + weight[:, :, None, None] * cost[:, None]
        reformats = reformats + weight[:, :, None] * edges[:, None]
    count = DRAWS * WEIGHTINGS
    return solve(problem, choices.reshape(count, *choices.shape[2:]), reformats.reshape(count, -1))


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


def _prices(problem: Problem, objective: Target, loss: Floats, cost: Floats, reformats: Floats) -> tuple[float, float]:
    """Range of prices of a cost at which schemes differ; with a bound, from about the one that keeps it.

    Args:
        problem: The search.
        objective: The cost.
        loss: Draws of the loss of each choice, shape ``(draws, groups, formats)``.
        cost: Draws of the cost of each choice, same shape.
        reformats: Draws of the cost of a reformat on each edge, shape ``(draws, edges)``.
    """
    loss, cost, reformats = loss.mean(axis=0), cost.mean(axis=0), reformats.mean(axis=0)
    low, high = exchange_rates(problem, loss, cost)
    if objective.bound is None:
        return low, high
    prices = np.geomspace(low, high, _BOUND_STEPS)
    schemes = solve(problem, loss + prices[:, None, None] * cost, prices[:, None] * reformats)
    spent = np.take_along_axis(cost[None], schemes[..., None], axis=2)[..., 0].sum(axis=1)
    spent = spent + problem.mismatches(schemes) @ reformats + objective.fixed
    keeps = spent <= objective.bound / objective.reference
    return (float(prices[keeps.argmax()]) / 3 if keeps.any() else high / 3), high


def _accuracy(problem: Problem) -> int:
    return next(index for index, objective in enumerate(problem.objectives) if objective.accuracy)
