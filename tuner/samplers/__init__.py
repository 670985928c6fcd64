"""Samplers: who proposes the next scheme; every one is an Optuna sampler, and none repeats a scheme.

`ModelGuidedSampler.from_table` serves in any Optuna study.
"""

from __future__ import annotations

from typing import Protocol

from optuna.samplers import BaseSampler

from tuner.samplers.model_guided import ModelGuidedSampler
from tuner.samplers.problem import Problem
from tuner.samplers.unseen import Repair, UnseenSampler
from tuner.study.samplers import SAMPLERS

__all__ = ["ModelGuidedSampler", "SamplerFactory", "make_sampler"]


class SamplerFactory(Protocol):
    """What the table of samplers holds: a class of samplers, or a function that builds one."""

    def __call__(self, problem: Problem, seed: int, drawn: int) -> BaseSampler:
        """Builds a sampler; it may propose what the study holds already, and what the target cannot build.

        Args:
            problem: Choices, priors, layer graph and objectives.
            seed: For a sampler that mixes the trial's number into its random choices, and so needs no state.
            drawn: For one that draws on: a seed that differs from sitting to sitting of a study.
        """


def make_sampler(name: str, problem: Problem, seed: int, done: int = 0, repair: Repair = dict) -> BaseSampler:
    """Builds a seeded sampler of whole schemes.

    Args:
        name: One of `tuner.study.samplers.SAMPLERS`.
        problem: Choices, priors, layer graph and objectives.
        seed: Of all random choices.
        done: Trials that the study already holds, so that a resumed study draws other numbers.
        repair: Replaces choices that the target cannot build.

    Raises:
        InputError: No sampler has that name.
    """
    factory: SamplerFactory = SAMPLERS.get(name)
    drawn = (seed + 1_000_003 * done) % 2**32
    return UnseenSampler(factory(problem, seed, drawn), problem.parameters, drawn, repair)
