"""Optuna's own samplers; of the problem they read the choices alone."""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from tuner.samplers.problem import Problem

_POPULATION = 20


def nsga2(problem: Problem, seed: int, drawn: int) -> BaseSampler:
    """A genetic algorithm (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002)."""
    return NSGAIISampler(population_size=_POPULATION, seed=drawn)


def tpe(problem: Problem, seed: int, drawn: int) -> BaseSampler:
    """A tree of Parzen estimators (Ozaki et al., "Multiobjective tree-structured Parzen estimator", 2022)."""
    # The joint model perturbs good schemes as a whole; marginals would mix the two ends of a front.
    return TPESampler(n_startup_trials=2, multivariate=True, constant_liar=False, seed=drawn)


def uniform(problem: Problem, seed: int, drawn: int) -> BaseSampler:
    """Every choice by chance."""
    return RandomSampler(seed=drawn)
