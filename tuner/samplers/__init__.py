"""Samplers: who proposes the next scheme; every one is an Optuna sampler, and none repeats a scheme."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler

from tuner.samplers.knapsack import KnapsackSampler
from tuner.samplers.lowdim import LowDimensionalSampler
from tuner.samplers.model_guided import ModelGuidedSampler
from tuner.samplers.problem import Problem
from tuner.samplers.unseen import Repair, UnseenSampler

SAMPLERS = ("model", "lowdim-tpe", "knapsack", "nsga2", "tpe", "random")
_POPULATION = 20


def make_sampler(name: str, problem: Problem, seed: int, done: int = 0, repair: Repair = dict) -> BaseSampler:
    """Builds a seeded sampler of whole schemes.

    Args:
        name: One of `SAMPLERS`.
        problem: Choices, priors, layer graph and objectives; only ``model``, ``lowdim-tpe`` and ``knapsack`` read more
            of it than the choices.
        seed: Of all random choices.
        done: Trials that the study already holds, so that a resumed study draws other numbers.
        repair: Replaces choices that the target cannot build.

    Raises:
        KeyError: No sampler has that name.
    """
    drawn = (seed + 1_000_003 * done) % 2**32
    inner: BaseSampler
    if name == "model":
        inner = ModelGuidedSampler(problem, seed)
    elif name == "lowdim-tpe":
        inner = LowDimensionalSampler(problem, seed)
    elif name == "knapsack":
        inner = KnapsackSampler(problem, seed)
    elif name == "tpe":
        # The joint model perturbs good schemes as a whole; marginals would mix the two ends of a front.
        inner = optuna.samplers.TPESampler(n_startup_trials=2, multivariate=True, constant_liar=False, seed=drawn)
    elif name == "nsga2":
        inner = optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=drawn)
    elif name == "random":
        inner = optuna.samplers.RandomSampler(seed=drawn)
    else:
        raise KeyError(name)
    return UnseenSampler(inner, problem.parameters, drawn, repair)
