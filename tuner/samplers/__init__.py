"""Samplers: who proposes the next scheme; every one is an Optuna sampler, and none repeats a scheme."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler

from search_spaces.space import SearchSpace
from tuner.samplers.unseen import Repair, UnseenSampler

SAMPLERS = ("tpe", "nsga2", "random")
_POPULATION = 20


def make_sampler(name: str, space: SearchSpace, seed: int, done: int = 0, repair: Repair = dict) -> BaseSampler:
    """Builds a seeded sampler over the groups of a space.

    Args:
        name: One of `SAMPLERS`.
        space: Groups and their formats.
        seed: Of all random choices.
        done: Trials that the study already holds, so that a resumed study draws other numbers.
        repair: Replaces choices that the target cannot build.

    Raises:
        KeyError: No sampler has that name.
    """
    seed = (seed + 1_000_003 * done) % 2**32
    if name == "tpe":
        # The joint model perturbs good schemes as a whole; marginals would mix the two ends of a front.
        inner: BaseSampler = optuna.samplers.TPESampler(
            n_startup_trials=2, multivariate=True, constant_liar=False, seed=seed
        )
    elif name == "nsga2":
        inner = optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed)
    elif name == "random":
        inner = optuna.samplers.RandomSampler(seed=seed)
    else:
        raise KeyError(name)
    return UnseenSampler(inner, space.parameters(), seed, repair)
