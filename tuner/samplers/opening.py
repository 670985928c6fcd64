"""The schemes that a search begins with, by what its priors expect of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.samplers.acquisition import nondominated
from tuner.samplers.knapsack import knapsack_points, predicted
from tuner.samplers.optuna_compat import hypervolume
from tuner.samplers.problem import Ints, Problem
from tuner.study.samplers import SAMPLERS

#: Knapsack points for a sampler that learns nothing from the priors, and for one that learns from the first trial on.
_MANY, _FEW = 13, 4
#: Share of the hypervolume that a scheme of a taught opening must add.
_GAIN = 0.01
#: Uniform schemes up to which all are run: they are what users compare with.
_UNIFORM = 3


def knapsack_opening(problem: Problem, sampler: str) -> list[Ints]:
    """Knapsack points to begin with; few where the sampler's own models soon choose better."""
    return knapsack_points(problem, _FEW if learns(sampler) and not problem.taught else _MANY)


def uniform_opening(problem: Problem, sampler: str, schemes: Sequence[Ints]) -> list[int]:
    """Which of the uniform schemes to begin with, as indices.

    Of many formats, a sampler that learns from the first trial on is spared those that are expected to be both less
    accurate and dearer than another.
    """
    if all_uniform(len(schemes), sampler):
        return list(range(len(schemes)))
    return [int(index) for index in nondominated(predicted(problem, np.array(schemes)))]


def all_uniform(count: int, sampler: str) -> bool:
    """Whether so many uniform schemes are all run, whatever priors expect of them."""
    return count <= _UNIFORM or not learns(sampler)


def taught_opening(problem: Problem, schemes: Sequence[Ints]) -> list[int]:
    """Which schemes to begin with where earlier studies taught what to expect of them, as indices, the best first.

    Each is the one that adds most to the hypervolume of those before it; they end where none adds a hundredth. What an
    earlier search measured of a scheme counts in place of what the priors expect.

    Args:
        problem: Whose harm is taught.
        schemes: To choose from; the first is taken in any case.
    """
    coordinates = predicted(problem, np.array(schemes))
    accuracy = np.array([target.accuracy for target in problem.objectives])
    outcomes = np.where(accuracy, -np.exp(-coordinates), coordinates)
    known = {each.scheme: np.where(accuracy, -1, 1) * each.shares for each in problem.earlier}
    outcomes = np.array(
        [known.get(tuple(map(int, scheme)), row) for scheme, row in zip(schemes, outcomes, strict=True)]
    )
    optimised = [target.optimised for target in problem.objectives]
    worst = np.array([(-1 if o.accuracy else 1) * o.worst / o.reference for o in problem.objectives])
    outcomes, worst = outcomes[:, optimised], worst[optimised]
    chosen = [0]
    volume, whole = hypervolume(outcomes[chosen], worst), hypervolume(outcomes, worst)
    while len(chosen) < len(schemes):
        volumes = [hypervolume(outcomes[[*chosen, row]], worst) for row in range(len(schemes))]
        best = int(np.argmax(volumes))
        if volumes[best] - volume < _GAIN * whole:
            break
        chosen.append(best)
        volume = volumes[best]
    return chosen


def learns(sampler: str) -> bool:
    """Whether a sampler learns from priors, so that a study begins with few seeds."""
    return bool(getattr(SAMPLERS.get(sampler), "learns_from_priors", False))
