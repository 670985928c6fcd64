"""Bayesian regression on positive effects that add up, with a Gaussian process over schemes for what a sum misses.

Every effect (of a choice, of a reformat) is log-normal: its logarithm is a known mean plus Gaussian deviates, its own
and some that it shares with others. So no effect is ever believed to be negative, doubts are factors, and what was
never tried may turn out far worse, but not far better, than expected. The posterior is the Laplace approximation, found
by Gauss-Newton steps (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse import csr_array, vstack

from tuner.samplers.problem import Floats, Ints

#: Differing groups at which the correlation of the process over schemes has fallen to 1 / e.
LENGTH = 10.0
#: Most that the logarithm of an effect moves in one step: far from the optimum the linear view of it is wrong.
_STEP = 1.0
#: Beyond it a doubt no longer raises what is expected.
_MAX_DOUBT = 1.2


@dataclass(frozen=True)
class Prior:
    """Prior of positive effects.

    Attributes:
        mean: Logarithm of each effect, shape ``(effects,)``.
        members: Which deviates move each effect, 0 or 1, shape ``(effects, deviates)``.
        deviation: Standard deviation of each deviate, shape ``(deviates,)``.
        noise: Standard deviation of an observation with weight 1.
        residual: Standard deviation of the process over schemes, as a share of a scheme's value.
    """

    mean: Floats
    members: csr_array
    deviation: Floats
    noise: float
    residual: float = 0.0


@dataclass(frozen=True)
class Observations:
    """What was seen of schemes.

    Attributes:
        schemes: Shape ``(n, groups)``.
        design: How often each effect counts, shape ``(n, effects)``.
        values: Shape ``(n,)``.
        spread: Factors of the noise, shape ``(n,)``.
    """

    schemes: Ints
    design: csr_array
    values: Floats
    spread: Floats

    def last(self, count: int) -> Observations:
        """The last so many."""
        part = slice(-count, None)
        return Observations(self.schemes[part], self.design[part], self.values[part], self.spread[part])


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
    """Correlation of what a sum of effects misses: it falls with the number of differing groups."""
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


class Linearized:
    """Schemes' values as linear functions of deviates, about given effects.

    Args:
        members: As in `Prior`.
        point: Logarithms of the effects about which, shape ``(effects,)``.
        design: Of the schemes, as in `Observations`.

    Attributes:
        jacobian: Change of each value with the logarithm of each effect, shape ``(n, effects)``.
        weights: Change of each value with each deviate, shape ``(n, deviates)``.
        sums: The values themselves, shape ``(n,)``.
    """

    def __init__(self, members: csr_array, point: Floats, design: csr_array) -> None:
        self.point = point
        scaled = design.data * np.exp(point)[design.indices]
        self.jacobian = csr_array((scaled, design.indices, design.indptr), shape=design.shape)
        self.weights: Floats = (self.jacobian @ members).toarray()
        self.sums: Floats = self.jacobian @ np.ones(len(point))

    def error(self, values: Floats, mean: Floats) -> Floats:
        """What of values the prior mean of the effects' logarithms does not explain, shape ``(n,)``."""
        return np.asarray(values - self.sums + self.jacobian @ (self.point - mean))


class Posterior:
    """Prior and observations joined, about a point that should be near the posterior's mode.

    Args:
        prior: Of the effects.
        seen: The observations.
        point: Logarithms of the effects about which sums are linearized, shape ``(effects,)``.

    Attributes:
        log_effects: Posterior mean of the effects' logarithms, shape ``(effects,)``.
    """

    def __init__(self, prior: Prior, seen: Observations, point: Floats) -> None:
        self._prior, self._seen = prior, seen
        about = Linearized(prior.members, point, seen.design)
        self._about = about
        self._scaled = about.weights * prior.deviation
        self._error = about.error(seen.values, prior.mean)
        self._noise = (prior.noise * seen.spread) ** 2 + 1e-12
        covariance = self._scaled @ self._scaled.T + self._rest
        self._factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._weights = cho_solve(self._factor, self._error, check_finite=False)
        deviates = prior.deviation * (self._scaled.T @ self._weights)
        self.log_effects: Floats = np.asarray(prior.mean + prior.members @ deviates)

    def step(self) -> Floats:
        """The next point: towards the mode, shape ``(effects,)``."""
        point = self._about.point
        return np.asarray(point + np.clip(self.log_effects - point, -_STEP, _STEP))

    def mean(self, schemes: Ints, design: csr_array) -> Floats:
        """Median of the noise-free value of schemes, shape ``(schemes,)``: a small part of the work of `predict`."""
        sums = np.asarray(design @ np.exp(self.log_effects))
        return np.maximum(sums + self._process(schemes, sums) @ self._weights, 0.0)

    def predict(self, schemes: Ints, design: csr_array) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the noise-free value of schemes, each of shape ``(schemes,)``.

        A value is log-normal as its effects are: where it is doubtful, more is to be expected than its median.
        """
        prior = self._prior
        about = Linearized(prior.members, self.log_effects, design)
        scaled = about.weights * prior.deviation
        cross = scaled @ self._scaled.T
        shared = self._process(schemes, about.sums)
        median = np.maximum(about.sums + shared @ self._weights, 1e-9)
        half = solve_triangular(self._factor[0], (cross + shared).T, lower=True, check_finite=False)
        variance = np.einsum("ij,ij->i", scaled, scaled) + (prior.residual * about.sums) ** 2
        variance = np.maximum(variance - np.einsum("ij,ij->j", half, half), 1e-16)
        doubt = np.minimum(np.sqrt(variance) / median, _MAX_DOUBT)
        mean = median * np.exp(doubt**2 / 2)
        return mean, mean * np.sqrt(np.expm1(doubt**2))

    def expecting(self, schemes: Ints, design: csr_array) -> Posterior:
        """The posterior when these schemes will have shown what is expected of them: their means stay, doubt goes.

        So that several proposals at once do not all ask the same question (Ginsbourger et al., "Kriging is
        well-suited to parallelize optimization", 2010: the believer). Believing medians would make whatever is near a
        running scheme look better than before, and proposals would crowd there.
        """
        seen = self._seen
        about = Linearized(self._prior.members, self._about.point, design)
        values = about.sums + about.jacobian @ (self.log_effects - self._about.point)
        values = values + self._process(schemes, about.sums) @ self._weights
        mean, deviation = self.predict(schemes, design)
        values = values * np.sqrt(1 + (deviation / mean) ** 2)  # the mean of a log-normal value over its median
        joined = Observations(
            np.concatenate([seen.schemes, schemes]),
            csr_array(vstack([seen.design, design])),
            np.concatenate([seen.values, values]),
            np.concatenate([seen.spread, np.ones(len(schemes))]),
        )
        return Posterior(self._prior, joined, self._about.point)

    def draw(self, random: np.random.Generator, heat: Floats) -> Floats:
        """Draws logarithms of effects from the posterior, shape ``(draws, effects)``.

        A draw from the prior is corrected by what it fails to explain (Matheron's rule; Wilson et al., "Efficiently
        sampling functions from Gaussian process posteriors", 2020).

        Args:
            random: Chance.
            heat: Factor of each draw's distance from the posterior mean, shape ``(draws,)``.
        """
        prior = self._prior
        n, deviates = self._scaled.shape
        unit = random.standard_normal((len(heat), deviates))
        rest = random.standard_normal((len(heat), n)) @ self._rest_factor.T
        missed = self._error - unit @ self._scaled.T - rest
        solved = cho_solve(self._factor, missed.T, check_finite=False)
        drawn = prior.deviation * (unit + solved.T @ self._scaled)
        logs = prior.mean + (prior.members @ drawn.T).T
        return np.asarray(self.log_effects + heat[:, None] * (logs - self.log_effects))

    @cached_property
    def _rest(self) -> Floats:
        """Covariance of what the effects do not carry, shape ``(n, n)``: process and noise."""
        return self._process(self._seen.schemes, self._about.sums) + np.diag(self._noise)

    @cached_property
    def _rest_factor(self) -> Floats:
        return np.asarray(np.linalg.cholesky(self._rest), dtype=np.float64)

    def _process(self, schemes: Ints, sums: Floats) -> Floats:
        if self._prior.residual == 0:
            return np.zeros((len(schemes), len(self._seen.schemes)))
        alike = process(schemes, self._seen.schemes)
        return np.asarray(self._prior.residual**2 * sums[:, None] * self._about.sums * alike)
