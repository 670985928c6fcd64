"""Wraps any Optuna sampler so that it proposes whole schemes, and none that the study already holds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

#: Mutations tried before a duplicate is let through; only a space that is all but exhausted gets there.
ATTEMPTS = 200


#: ``{group: format}`` in, the same without blocked pairs out.
Repair = Callable[[Mapping[str, str]], dict[str, str]]


class UnseenSampler(BaseSampler):
    """Proposes by an inner sampler; a proposal that the study holds is mutated until it is new.

    The whole scheme is drawn in `sample_relative`, so that the search space is known from the first trial on
    and the inner sampler sees enqueued trials as well (NSGA-II marks its generations there).

    Args:
        inner: Proposes.
        parameters: ``{group: formats}``.
        seed: Of the mutations.
        repair: Replaces choices that the target cannot build; applied to every proposal before it is compared.
    """

    def __init__(
        self,
        inner: BaseSampler,
        parameters: Mapping[str, Sequence[str]],
        seed: int,
        repair: Repair = dict,
    ) -> None:
        self._repair = repair
        self._inner = inner
        self._space: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(choices)) for name, choices in parameters.items()
        }
        self._choices = {name: tuple(choices) for name, choices in parameters.items()}
        self._free = [name for name, choices in self._choices.items() if len(choices) > 1]
        self._draw = random.Random(seed)

    def __str__(self) -> str:
        return f"{type(self._inner).__name__} (unseen)"

    def reseed_rng(self) -> None:
        """Takes a fresh seed."""
        self._inner.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space, always."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws a whole scheme; an enqueued one is passed through."""
        several = {name: space for name, space in search_space.items() if name in self._free}
        proposal = self._inner.sample_relative(study, trial, several)
        enqueued = trial.system_attrs.get("fixed_params")
        if enqueued:
            return dict(enqueued)
        for name, space in several.items():
            if name not in proposal:
                proposal[name] = self._inner.sample_independent(study, trial, name, space)
        chosen = {name: proposal.get(name, choices[0]) for name, choices in self._choices.items()}
        return self._unseen(chosen, self._held(study, trial))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draws one group; not reached while `sample_relative` draws them all."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passes the call on."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Passes the call on."""
        self._inner.after_trial(study, trial, state, values)

    def _held(self, study: Study, trial: FrozenTrial) -> set[tuple[str, ...]]:
        """Schemes of all other trials of the study, whatever their state."""
        held = set()
        for other in study.get_trials(deepcopy=False):
            if other.number != trial.number:
                params = other.params
                if len(params) < len(self._choices):
                    params = {**other.system_attrs.get("fixed_params", {}), **params}
                if params.keys() >= self._choices.keys():
                    held.add(tuple([params[name] for name in self._choices]))  # a list is twice as fast here
        return held

    def _unseen(self, chosen: dict[str, Any], held: set[tuple[str, ...]]) -> dict[str, Any]:
        """Flips a few groups, more with every attempt, until the scheme is new."""
        chosen = self._repair(chosen)
        fresh = dict(chosen)
        for attempt in range(ATTEMPTS):
            if tuple(fresh.values()) not in held or not self._free:
                return fresh
            fresh = dict(chosen)
            flips = min(len(self._free), 1 + attempt // 8)
            for name in self._draw.sample(self._free, flips):
                fresh[name] = self._draw.choice([c for c in self._choices[name] if c != chosen[name]])
            fresh = self._repair(fresh)
        return fresh
