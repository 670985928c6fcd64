"""Chooses the hyperparameters of a model: type II maximum likelihood of the trials, on a small grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.samplers.problem import Floats, Ints
from tuner.samplers.regression import Features, Prior, log_marginal_likelihood

SWEEPS = 2


@dataclass(frozen=True)
class Shape:
    """A prior but for its scales.

    Attributes:
        features: Of a scheme.
        mean: Of the coefficients, shape ``(features,)``.
        own: Deviations that the hyperparameter ``spread`` multiplies, shape ``(features,)``.
        shared: Deviations that it does not, shape ``(features,)``.
        offset: Value of a scheme whose features are all 0.
    """

    features: Features
    mean: Floats
    own: Floats
    shared: Floats
    offset: float = 0.0

    def prior(self, scales: Mapping[str, float]) -> Prior:
        """The prior with the scales ``spread``, ``noise`` and ``residual``."""
        deviation = scales["spread"] * self.own + self.shared
        return Prior(self.features, self.mean, deviation, self.offset, scales["noise"], scales["residual"])


class MarginalLikelihood:
    """Marginal likelihood of trials under the scales of one shape; what no scale changes is computed once.

    Args:
        shape: The prior but for its scales.
        schemes: Observed schemes, shape ``(n, groups)``.
        mismatches: Their reformats, shape ``(n, edges)``.
        values: Observations, shape ``(n,)``.
        spread: Factors of the noise, shape ``(n,)``.
        alike: `regression.process` of the schemes, which all shapes share, shape ``(n, n)``.
    """

    def __init__(
        self, shape: Shape, schemes: Ints, mismatches: Floats, values: Floats, spread: Floats, alike: Floats
    ) -> None:
        design = shape.features.design(schemes, mismatches)
        own, shared = design * shape.own, design * shape.shared
        self._own, self._shared = own @ own.T, shared @ shared.T
        self._process = alike
        self._error = values - shape.offset - design @ shape.mean
        self._variance = spread**2

    def of(self, scales: Mapping[str, float]) -> float:
        """Logarithm of the marginal likelihood of ``spread``, ``noise`` and ``residual``."""
        covariance = scales["spread"] ** 2 * self._own + self._shared + scales["residual"] ** 2 * self._process
        covariance[np.diag_indices_from(covariance)] += scales["noise"] ** 2 * self._variance + 1e-12
        return log_marginal_likelihood(covariance, self._error)


def fitted(
    grid: Mapping[str, Sequence[float]],
    start: Mapping[str, float],
    log_likelihood: Callable[[Mapping[str, float]], float],
) -> tuple[dict[str, float], float]:
    """Climbs the grid one hyperparameter at a time.

    Args:
        grid: ``{hyperparameter: values to try}``.
        start: Where to begin: plausible ones, which win where the trials say nothing.
        log_likelihood: Logarithm of their marginal likelihood, plus their log prior where they have one.

    Returns:
        The best hyperparameters found, and their `log_likelihood`.
    """
    best = dict(start)
    score = log_likelihood(best)
    for _ in range(SWEEPS):
        before = dict(best)
        for name, values in grid.items():
            for value in values:
                if value == best[name]:
                    continue
                other = log_likelihood({**best, name: value})
                if other > score:
                    best, score = {**best, name: value}, other
        if best == before:
            break
    return best, score
