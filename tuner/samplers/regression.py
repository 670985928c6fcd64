"""Bayesian linear regression on features of a scheme, with a Gaussian process over schemes for what they miss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse import csr_array

from tuner.samplers.problem import Floats, Ints

#: Differing groups at which the correlation of the process over schemes has fallen to 1 / e.
LENGTH = 10.0


@dataclass(frozen=True)
class Features:
    """Features that add up over the choices of a scheme and over its reformats.

    Attributes:
        choices: What one (group, format) adds, shape ``(groups, formats, features)``.
        edges: What a reformat on one edge adds, shape ``(edges, features)``; None where reformats do not count.
    """

    choices: Floats
    edges: Floats | None = None

    @cached_property
    def _sparse(self) -> csr_array:
        return csr_array(self.choices.reshape(-1, self.choices.shape[2]))  # a choice touches a handful of features

    def design(self, schemes: Ints, mismatches: Floats) -> Floats:
        """Features of schemes, shape ``(schemes, features)``."""
        found = np.asarray(one_hot(schemes, self.choices.shape[1]) @ self._sparse)
        return np.asarray(found if self.edges is None else found + mismatches @ self.edges)


@dataclass(frozen=True)
class Prior:
    """Gaussian prior of one regression.

    Attributes:
        features: Of a scheme.
        mean: Of the coefficients, shape ``(features,)``.
        deviation: Their independent standard deviations, shape ``(features,)``.
        offset: Value of a scheme whose features are all 0.
        noise: Standard deviation of an observation with weight 1.
        residual: Standard deviation of the process over schemes.
    """

    features: Features
    mean: Floats
    deviation: Floats
    offset: float
    noise: float
    residual: float = 0.0


def one_hot(schemes: Ints, formats: int) -> Floats:
    """Choices as 0 and 1, shape ``(schemes, groups * formats)``."""
    count, groups = schemes.shape
    found = np.zeros((count, groups * formats))
    np.put_along_axis(found, schemes + formats * np.arange(groups), 1.0, axis=1)
    return found


def hamming(first: Ints, second: Ints) -> Floats:
    """Number of groups in which two schemes differ, shape ``(len(first), len(second))``."""
    formats = int(max(first.max(initial=0), second.max(initial=0))) + 1
    equal = one_hot(first, formats).astype(np.float32) @ one_hot(second, formats).astype(np.float32).T
    return np.asarray(first.shape[1] - equal, dtype=np.float64)


def process(first: Ints, second: Ints) -> Floats:
    """Correlation of what a sum of features misses: it falls with the number of differing groups."""
    return np.asarray(np.exp(-hamming(first, second) / LENGTH))


def log_marginal_likelihood(covariance: Floats, error: Floats) -> float:
    """Logarithm of the probability of errors under a covariance, up to a constant.

    Args:
        covariance: Shape ``(n, n)``, noise included; overwritten.
        error: Observations less their prior mean, shape ``(n,)``.
    """
    factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
    explained = error @ cho_solve(factor, error, check_finite=False)
    return float(-0.5 * explained - np.log(np.diag(factor[0])).sum())


class Posterior:
    """Prior and observations joined (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, 2.2, 2.7).

    Args:
        prior: Of the coefficients.
        schemes: Observed schemes, shape ``(n, groups)``.
        mismatches: Their reformats, shape ``(n, edges)``.
        values: Observations, shape ``(n,)``.
        spread: Factors of `prior.noise`, shape ``(n,)``.
    """

    def __init__(self, prior: Prior, schemes: Ints, mismatches: Floats, values: Floats, spread: Floats) -> None:
        self._prior = prior
        self._schemes, self._mismatches, self._values, self._spread = schemes, mismatches, values, spread
        design = prior.features.design(schemes, mismatches)
        self._scaled = design * prior.deviation
        self._error = values - prior.offset - design @ prior.mean
        self._noise = (prior.noise * spread) ** 2
        covariance = self._scaled @ self._scaled.T + self._own_process
        covariance[np.diag_indices_from(covariance)] += self._noise + 1e-12
        self._factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._weights = cho_solve(self._factor, self._error, check_finite=False)

    def mean(self, schemes: Ints, mismatches: Floats) -> Floats:
        """Mean of the noise-free value of schemes, shape ``(schemes,)``: a small part of the work of `predict`."""
        prior = self._prior
        design = prior.features.design(schemes, mismatches)
        carried = design @ (prior.deviation * (self._scaled.T @ self._weights))
        return np.asarray(prior.offset + design @ prior.mean + carried + self._process(schemes) @ self._weights)

    def predict(self, schemes: Ints, mismatches: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the noise-free value of schemes, each of shape ``(schemes,)``."""
        prior = self._prior
        design = prior.features.design(schemes, mismatches)
        scaled = design * prior.deviation
        cross = scaled @ self._scaled.T + self._process(schemes)
        mean = prior.offset + design @ prior.mean + cross @ self._weights
        half = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = np.einsum("ij,ij->i", scaled, scaled) + prior.residual**2 - np.einsum("ij,ij->j", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-16))

    def expecting(self, schemes: Ints, mismatches: Floats) -> Posterior:
        """The posterior when these schemes will have shown what is expected of them: equal means, less spread.

        So that several proposals at once do not all ask the same question (Ginsbourger et al., "Kriging is
        well-suited to parallelize optimization", 2010: the believer).
        """
        return Posterior(
            self._prior,
            np.concatenate([self._schemes, schemes]),
            np.concatenate([self._mismatches, mismatches]),
            np.concatenate([self._values, self.mean(schemes, mismatches)]),
            np.concatenate([self._spread, np.ones(len(schemes))]),
        )

    @cached_property
    def coefficients(self) -> Floats:
        """Posterior mean of the coefficients, shape ``(features,)``."""
        return np.asarray(self._prior.mean + self._prior.deviation * (self._scaled.T @ self._weights))

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """Draws coefficients from the posterior, shape ``(count, features)``.

        A draw from the prior is corrected by what it fails to explain (Matheron's rule; Wilson et al., "Efficiently
        sampling functions from Gaussian process posteriors", 2020).
        """
        n, features = self._scaled.shape
        unit = random.standard_normal((count, features))
        rest = random.standard_normal((count, n)) @ self._rest_factor.T
        missed = self._error - unit @ self._scaled.T - rest
        solved = cho_solve(self._factor, missed.T, check_finite=False)
        return np.asarray(self._prior.mean + self._prior.deviation * (unit + solved.T @ self._scaled))

    @cached_property
    def _rest_factor(self) -> Floats:
        """Cholesky factor of the covariance of what the features do not carry: process and noise."""
        if self._prior.residual == 0:
            return np.diag(np.sqrt(self._noise))
        covariance = self._own_process + np.diag(self._noise + 1e-12)
        return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)

    @cached_property
    def _own_process(self) -> Floats:
        return self._process(self._schemes)

    def _process(self, schemes: Ints) -> Floats:
        if self._prior.residual == 0:
            return np.zeros((1, len(self._schemes)))
        return np.asarray(self._prior.residual**2 * process(schemes, self._schemes))
