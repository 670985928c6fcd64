"""TPE over the knobs of the knapsack: few numbers that steer the priors, in place of one choice per layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.samplers.optuna_compat import set_trial_attr
from tuner.samplers.problem import Floats, Ints, Problem, edge_costs
from tuner.samplers.scheme_sampler import SchemeSampler
from tuner.samplers.solver import exchange_rates, solve

_KNOBS = "lowdim:knobs"


class LowDimensionalSampler(SchemeSampler):
    """Samples prices of the costs, a weight of reformats, the prior's power and shrinkage, and a bias per format.

    The knobs of a trial are kept among its system attributes, so that any process can rebuild TPE's view.
    """

    def __init__(self, problem: Problem, seed: int = 0, drawn: int = 0) -> None:
        super().__init__(problem, seed, drawn)
        self._costs = [objective for objective in problem.objectives if not objective.accuracy]
        space: dict[str, FloatDistribution] = {f"price:{o.name}": FloatDistribution(0.0, 1.0) for o in self._costs}
        space |= {"reformat": FloatDistribution(0.0, 3.0), "power": FloatDistribution(0.3, 1.5)}
        space |= {"shrink": FloatDistribution(0.0, 0.9)}
        space |= {f"bias:{name}": FloatDistribution(-1.5, 1.5) for name in problem.formats}
        self._space: dict[str, BaseDistribution] = {**space}
        self._bounds = {name: (knob.low, knob.high) for name, knob in space.items()}

    def propose(self, study: Study, trial: FrozenTrial) -> Ints:
        """Asks TPE for knobs and solves the knapsack that they describe."""
        seed = int(np.random.default_rng([self._seed, trial.number]).integers(2**31))
        inner = optuna.create_study(
            directions=study.directions,
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8),
        )
        for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            knobs = other.system_attrs.get(_KNOBS)
            if self._whole(knobs):
                inner.add_trial(optuna.trial.create_trial(params=knobs, distributions=self._space, values=other.values))
        chosen = inner.ask(self._space).params
        set_trial_attr(study, trial, _KNOBS, chosen)
        return self._solve(chosen)

    def _whole(self, knobs: object) -> bool:
        """Whether a trial has knobs, and such as could be drawn: a damaged storage may hold anything."""
        return (
            isinstance(knobs, dict)
            and knobs.keys() == self._bounds.keys()
            and all(
                isinstance(knobs[name], float) and low <= knobs[name] <= high
                for name, (low, high) in self._bounds.items()
            )
        )

    def _solve(self, knobs: Mapping[str, float]) -> Ints:
        problem = self._problem
        harm = _shrunk(problem.harm, knobs["shrink"], knobs["power"])
        harm = harm * np.exp([knobs[f"bias:{name}"] for name in problem.formats])
        choices, reformats = harm, np.zeros(len(problem.edges))
        for objective in self._costs:
            assert objective.prior is not None
            low, high = exchange_rates(problem, harm, objective.prior)
            price = low * (high / low) ** knobs[f"price:{objective.name}"]
            choices = choices + price * objective.prior
            reformats = reformats + price * knobs["reformat"] * edge_costs(problem, objective).reformats
        found: Ints = solve(problem, choices[None], reformats[None])[0]
        return found


def _shrunk(harm: Floats, shrink: float, power: float) -> Floats:
    """Sensitivities to a power, scaled to mean 1 and drawn towards the mean of their format."""
    used = harm > 0
    raised = np.where(used, np.maximum(harm, 1e-12) ** power, 0.0)
    raised /= raised[used].mean() if used.any() else 1.0
    count = np.maximum(used.sum(axis=0), 1)
    return np.asarray(np.where(used, (1 - shrink) * raised + shrink * raised.sum(axis=0) / count, 0.0))
