"""The schemes that a search begins with, by what its priors expect of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.samplers.acquisition import nondominated
from tuner.samplers.knapsack import knapsack_points, predicted
from tuner.samplers.problem import Ints, Problem
from tuner.study.samplers import SAMPLERS

#: Knapsack points for a sampler that learns nothing from the priors, and for one that learns from the first trial on.
_MANY, _FEW = 13, 4
#: Uniform schemes up to which all are run: they are what users compare with.
_UNIFORM = 3


def knapsack_opening(problem: Problem, sampler: str) -> list[Ints]:
    """Knapsack points to begin with; few where the sampler's own models soon choose better."""
    return knapsack_points(problem, _FEW if _learns(sampler) else _MANY)


def uniform_opening(problem: Problem, sampler: str, schemes: Sequence[Ints]) -> list[int]:
    """Which of the uniform schemes to begin with, as indices.

    Of many formats, a sampler that learns from the first trial on is spared those that are expected to be both less
    accurate and dearer than another.
    """
    if len(schemes) <= _UNIFORM or not _learns(sampler):
        return list(range(len(schemes)))
    return [int(index) for index in nondominated(predicted(problem, np.array(schemes)))]


def _learns(sampler: str) -> bool:
    return bool(getattr(SAMPLERS.get(sampler), "learns_from_priors", False))
