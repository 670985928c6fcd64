"""The front that the models of a study believe in, among the schemes that were measured."""

from __future__ import annotations

import numpy as np

from search_spaces.allocation import Allocation
from tuner.results.loaded import LoadedRun
from tuner.samplers.acquisition import nondominated
from tuner.samplers.history import read_history
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Problem
from tuner.search.front import feasible


def posterior_front(loaded: LoadedRun, problem: Problem) -> list[Allocation]:
    """Complete, feasible trials that no other dominates by posterior means; whatever sampler proposed them.

    The models share what all trials say of a layer, so that the noise of one measurement counts for little.

    Args:
        loaded: The run.
        problem: Its search.
    """
    wanted = loaded.config.objective_set
    if loaded.reference is not None:
        wanted = wanted.against(loaded.reference)
    records = feasible(loaded.records, wanted)
    history = read_history(loaded.trials.study, problem)
    if not records or not len(history.schemes):
        return []
    schemes = np.array([problem.encode(loaded.space.choices(record.allocation)) for record in records])
    posterior = JointPosterior(problem, history)
    optimised = [objective.optimised for objective in problem.objectives]
    mean = posterior.mean(schemes)
    return [records[row].allocation for row in nondominated(posterior.outcomes(mean)[:, optimised])]
