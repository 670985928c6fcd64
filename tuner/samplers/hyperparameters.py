"""Fits a model to trials: hyperparameters by type II maximum likelihood on a small grid, effects by Newton steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_array

from tuner.samplers.problem import Floats
from tuner.samplers.regression import Linearized, Observations, Posterior, Prior, log_marginal_likelihood, process

#: Steps towards the mode; each begins with the hyperparameters that are best there.
_STEPS = 5
#: Trials that choose the hyperparameters and lead to the mode: the last ones, which lie near the front.
_RECENT = 200


_SCALES = ("spread", "noise", "residual")  # of deviations; all other hyperparameters move the prior mean


@dataclass(frozen=True)
class Family:
    """The priors among which the trials choose.

    Attributes:
        members: As in `Prior`.
        own: Deviations that the hyperparameter ``spread`` multiplies, 0 for other deviates, shape ``(deviates,)``.
        shared: Deviations of the others, shape ``(deviates,)``.
        mean: Logarithms of the effects under the hyperparameters that are neither ``spread``, ``noise`` nor
            ``residual``, in the order in which the grid names them.
        grid: ``{hyperparameter: values to try}``.
        start: Where to begin: plausible ones, which win where the trials say nothing.
    """

    members: csr_array
    own: Floats
    shared: Floats
    mean: Callable[..., Floats]
    grid: Mapping[str, Sequence[float]]
    start: Mapping[str, float]

    def prior(self, scales: Mapping[str, float]) -> Prior:
        """The prior under some hyperparameters."""
        deviation = scales["spread"] * self.own + self.shared
        return Prior(self.located(scales), self.members, deviation, scales["noise"], scales["residual"])

    def located(self, scales: Mapping[str, float]) -> Floats:
        """Prior mean of the effects' logarithms, shape ``(effects,)``."""
        return self.mean(*self.location(scales))

    def location(self, scales: Mapping[str, float]) -> tuple[float, ...]:
        """The hyperparameters of the prior mean, as `mean` takes them."""
        return tuple(scales[name] for name in self.grid if name not in _SCALES)


class _Evidence:
    """Marginal likelihood of trials about one point; what no hyperparameter changes is computed once."""

    def __init__(self, family: Family, seen: Observations, point: Floats, alike: Floats) -> None:
        about = Linearized(family.members, point, seen.design)
        own, shared = about.weights * family.own, about.weights * family.shared
        self._own, self._shared = own @ own.T, shared @ shared.T
        self._process = alike * about.sums[:, None] * about.sums
        self._variance = seen.spread**2
        self._error = cache(lambda *chosen: about.error(seen.values, family.mean(*chosen)))
        self._location = family.location

    def of(self, scales: Mapping[str, float]) -> float:
        """Its logarithm, up to a constant."""
        covariance = scales["spread"] ** 2 * self._own + self._shared + scales["residual"] ** 2 * self._process
        covariance[np.diag_indices_from(covariance)] += scales["noise"] ** 2 * self._variance + 1e-12
        return log_marginal_likelihood(covariance, self._error(*self._location(scales)))


def fit(family: Family, seen: Observations) -> tuple[Posterior, dict[str, float], float]:
    """Fits the effects and the hyperparameters in turn.

    Args:
        family: The priors to choose among.
        seen: The trials.

    Returns:
        The posterior, the hyperparameters, and the logarithm of their marginal likelihood up to a constant that only
        the trials decide.
    """
    recent = seen.last(_RECENT)
    alike = process(recent.schemes, recent.schemes)
    scales, point = dict(family.start), family.located(family.start)
    for _ in range(_STEPS):
        evidence = _Evidence(family, recent, point, alike)
        scales, score = climbed(family.grid, scales, evidence.of)
        point = Posterior(family.prior(scales), recent, point).step()
    prior = family.prior(scales)
    if len(seen.values) > _RECENT:
        point = Posterior(prior, seen, point).step()
    return Posterior(prior, seen, point), scales, score


def climbed(
    grid: Mapping[str, Sequence[float]],
    start: Mapping[str, float],
    log_likelihood: Callable[[Mapping[str, float]], float],
) -> tuple[dict[str, float], float]:
    """Climbs the grid once, one hyperparameter at a time.

    Args:
        grid: ``{hyperparameter: values to try}``.
        start: Where to begin.
        log_likelihood: Logarithm of their marginal likelihood.

    Returns:
        The best hyperparameters found, and their `log_likelihood`.
    """
    best = dict(start)
    score = log_likelihood(best)
    for name, values in grid.items():
        for value in values:
            other = log_likelihood({**best, name: value}) if value != best[name] else score
            if other > score:
                best, score = {**best, name: value}, other
    return best, score
