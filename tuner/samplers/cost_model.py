"""The cost model: what each choice and each reformat adds to the latency (or to the size), learned from trials."""

from __future__ import annotations

import numpy as np

from tuner.samplers.accuracy_model import effect_shape
from tuner.samplers.hyperparameters import MarginalLikelihood, Shape, fitted
from tuner.samplers.problem import Floats, Ints, Problem, Target
from tuner.samplers.regression import Features, Posterior, process

_RECENT = 250
_GRID = {"spread": (0.05, 0.15, 0.4), "noise": (0.0005, 0.003, 0.01, 0.03), "residual": (0.0, 0.003, 0.01)}
_START = {"spread": 0.15, "noise": 0.003, "residual": 0.0}


class CostModel:
    """Posterior of a cost as a share of the reference's.

    Args:
        problem: The search.
        objective: The cost.
        schemes: Observed schemes, shape ``(n, groups)``.
        shares: Their costs as shares of the reference's, shape ``(n,)``.
        running: Schemes that are being evaluated, shape ``(m, groups)``: they will show what is expected of them.
    """

    def __init__(
        self, problem: Problem, objective: Target, schemes: Ints, shares: Floats, running: Ints | None = None
    ) -> None:
        assert objective.prior is not None
        self._problem, self._objective = problem, objective
        mismatches = self._mismatches(schemes)
        ones = np.ones(len(schemes))
        recent = slice(-_RECENT, None)

        shape = self._shape()
        alike = process(schemes[recent], schemes[recent])
        trials = MarginalLikelihood(shape, schemes[recent], mismatches[recent], shares[recent], ones[recent], alike)
        self.hyperparameters, _ = fitted(_GRID, _START, trials.of)
        prior = shape.prior(self.hyperparameters)
        self._features = prior.features
        self._posterior = Posterior(prior, schemes, mismatches, shares, ones)
        if running is not None and len(running):
            self._posterior = self._posterior.expecting(running, self._mismatches(running))

    @property
    def reformat_cost(self) -> Floats:
        """Posterior mean of a reformat on each edge, as a share of the reference's cost, shape ``(edges,)``."""
        edges = self._features.edges
        return np.zeros(0) if edges is None else np.asarray(edges @ self._posterior.coefficients)

    @property
    def effects(self) -> Floats:
        """Posterior mean of every choice, shape ``(groups, formats)``."""
        return np.asarray(self._features.choices @ self._posterior.coefficients)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        """Draws costs of choices and of reformats, shapes ``(count, groups, formats)`` and ``(count, edges)``."""
        drawn = self._posterior.draw(random, count)
        choices = np.einsum("gfk,ck->cgf", self._features.choices, drawn)
        edges = self._features.edges
        return choices, np.zeros((count, len(self._problem.edges))) if edges is None else drawn @ edges.T

    def mean(self, schemes: Ints) -> Floats:
        """Mean of the share, shape ``(schemes,)``."""
        return self._posterior.mean(schemes, self._mismatches(schemes))

    def predict(self, schemes: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the share, each of shape ``(schemes,)``."""
        return self._posterior.predict(schemes, self._mismatches(schemes))

    def _mismatches(self, schemes: Ints) -> Floats:
        if not self._objective.reformat:
            return np.zeros((len(schemes), 0))
        return self._problem.mismatches(schemes)

    def _shape(self) -> Shape:
        problem, costs = self._problem, self._objective.prior
        assert costs is not None
        base = effect_shape(problem, costs, self._objective.fixed)
        if not self._objective.reformat:
            return base
        # A reformat has a part that is equal everywhere (a launch) and one that grows with the tensor.
        count, half = len(problem.edges), self._objective.reformat / 2
        parts = [np.ones((count, 1)), problem.edge_sizes[:, None], np.diag(1.0 + problem.edge_sizes) / 2]
        edges = np.concatenate([np.zeros((count, len(base.mean))), *parts], axis=1)
        choices = np.concatenate([base.features.choices, np.zeros((*costs.shape, 2 + count))], axis=2)
        return Shape(
            Features(choices, edges),
            np.concatenate([base.mean, [half, half], np.zeros(count)]),
            np.concatenate([base.own, np.zeros(2 + count)]),
            np.concatenate([base.shared, [2 * half, 2 * half], np.full(count, half)]),
            base.offset,
        )
