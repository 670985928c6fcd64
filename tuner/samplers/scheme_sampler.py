"""Base of the samplers that propose a whole scheme at once from what a problem tells."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.samplers.problem import Ints, Problem


class SchemeSampler(BaseSampler):
    """An Optuna sampler whose proposals are whole schemes.

    Args:
        problem: The search.
        seed: Of all random choices; the trial's number is mixed in.
        drawn: Not used, for no state is kept between two proposals.
    """

    def __init__(self, problem: Problem, seed: int = 0, drawn: int = 0) -> None:
        self._problem = problem
        self._seed = seed
        self._others = RandomSampler(seed)

    @abstractmethod
    def propose(self, study: Study, trial: FrozenTrial) -> Ints:
        """Format numbers of the next scheme, shape ``(groups,)``."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space, always."""
        return {name: CategoricalDistribution(choices) for name, choices in self._problem.parameters.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Proposes a scheme; an enqueued trial has its own and needs none."""
        if trial.system_attrs.get("fixed_params"):
            return {}
        return dict(self._problem.decode(self.propose(study, trial)))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, of a parameter that the problem does not hold: someone's study may have more."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)
