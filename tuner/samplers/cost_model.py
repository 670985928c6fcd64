"""The cost model: what each choice and each edge adds to the latency (or to the size), learned from trials.

A cost is a sum of positive effects: of choices, of reformats between different number formats, and of fusions that
different formats of one activation domain break. All are log-normal about their priors; how far a prior tells the
gains of single groups apart, beyond the mean gain of a format, is a hyperparameter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.sparse import csr_array, hstack

from tuner.samplers.effects import chosen, indicator, joined, memberships, repeated
from tuner.samplers.hyperparameters import Family, fit
from tuner.samplers.problem import Floats, Ints, Problem, Target, edge_costs
from tuner.samplers.regression import Observations

_GRID = {
    "shrink": (0.0, 0.5, 1.0),
    "spread": (0.05, 0.15, 0.4),
    "noise": (0.0005, 0.002, 0.005, 0.01, 0.02),
    "residual": (0.0, 0.003, 0.01),
}
_START = {"shrink": 0.5, "spread": 0.15, "noise": 0.005, "residual": 0.0}
#: Where earlier studies taught the prior: single gains can be believed, and what all share is nearly known.
_LEARNED_START = {"shrink": 0.0, "spread": 0.05, "noise": 0.005, "residual": 0.0}
_LEARNED_SHARE = 0.3
#: Of what is known: next to nothing is left to learn.
_EXACT_GRID = {"shrink": (0.0,), "spread": (0.001, 0.05), "noise": (0.0005, 0.002), "residual": (0.0,)}
_EXACT_START = {"shrink": 0.0, "spread": 0.001, "noise": 0.0005, "residual": 0.0}
#: Deviations of a choice's own deviate, its group's, its module's, its format's, and the one of all.
_OWN, _SHARED = (1.0, 1.0, 0.5, 0.0, 0.0), (0.0, 0.0, 0.0, 0.3, 0.1)
#: Of what an edge costs: its own, of all reformats, of all broken fusions.
_EDGES = (0.7, 1.0, 1.0)
#: A cost below this share of the mean counts as this: none is too small to be wrong.
_FLOOR = 1e-4


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
        self._used = np.ones_like(objective.prior, dtype=np.bool_)
        seen = Observations(schemes, self._design(schemes), shares - objective.fixed, np.ones(len(schemes)))
        self._posterior, self.hyperparameters, _ = fit(self._family(objective.prior), seen)
        if running is not None and len(running):
            self._posterior = self._posterior.expecting(running, self._design(running))

    @property
    def effects(self) -> Floats:
        """Posterior median of every choice, shape ``(groups, formats)``."""
        return self._parts(self._posterior.log_effects)[0]

    @property
    def reformat_cost(self) -> Floats:
        """Posterior median of a reformat on each edge, as a share of the reference's cost, shape ``(edges,)``."""
        return self._parts(self._posterior.log_effects)[1]

    @property
    def broken_fusion_cost(self) -> Floats:
        """Posterior median of what a broken fusion costs on each edge, likewise."""
        return self._parts(self._posterior.log_effects)[2]

    def draw(self, random: np.random.Generator, heat: Floats) -> tuple[Floats, Floats, Floats]:
        """Draws costs: of choices ``(draws, groups, formats)``, of reformats and of broken fusions ``(draws, edges)``.

        Args:
            random: Chance.
            heat: Factor of each draw's distance from the posterior median, on a logarithmic scale; shape ``(draws,)``.
        """
        return self._parts(self._posterior.draw(random, heat))

    def mean(self, schemes: Ints) -> Floats:
        """Median of the share, shape ``(schemes,)``."""
        return self._objective.fixed + self._posterior.mean(schemes, self._design(schemes))

    def predict(self, schemes: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the share, each of shape ``(schemes,)``."""
        mean, deviation = self._posterior.predict(schemes, self._design(schemes))
        return self._objective.fixed + mean, deviation

    @property
    def _on_edges(self) -> bool:
        return bool(self._objective.reformat and len(self._problem.edges))

    def _design(self, schemes: Ints) -> csr_array:
        parts = [chosen(schemes, self._used)]
        if self._on_edges:
            parts += [csr_array(self._problem.mismatches(schemes)), csr_array(self._problem.breaks(schemes))]
        return csr_array(hstack(parts))

    def _parts(self, logs: Floats) -> tuple[Floats, Floats, Floats]:
        """Effects of choices, reformats and broken fusions, of logarithms of shape ``(..., effects)``."""
        before, size, edges = logs.shape[:-1], self._used.size, len(self._problem.edges)
        values = np.exp(logs)
        choices = values[..., :size].reshape(*before, *self._used.shape)
        if not self._on_edges:
            return choices, np.zeros((*before, edges)), np.zeros((*before, edges))
        return choices, values[..., size : size + edges], values[..., size + edges :]

    def _family(self, costs: Floats) -> Family:
        members, counts = memberships(self._problem)
        own, shared, edges = repeated(counts, _OWN), repeated(counts, _SHARED), np.zeros(0)
        if self._on_edges:
            on_edges = edge_costs(self._problem, self._objective)
            edges = np.log(np.concatenate([on_edges.reformats, on_edges.breaks]))
            count = len(on_edges.reformats)
            members = joined([members, _edge_memberships(count)])
            own = np.concatenate([own, np.zeros(count + 2)])
            shared = np.concatenate([shared, repeated((count, 1, 1), _EDGES)])

        @cache
        def mean(shrink: float) -> Floats:
            return np.concatenate([_shrunk(costs, shrink).ravel(), edges])

        if self._objective.learned is not None:
            return Family(members, own, _LEARNED_SHARE * shared, mean, _GRID, _LEARNED_START)
        if self._objective.exact:
            return Family(members, own, np.zeros_like(shared), mean, _EXACT_GRID, _EXACT_START)
        return Family(members, own, shared, mean, _GRID, _START)


def _edge_memberships(count: int) -> csr_array:
    """Deviates of reformats, then of broken fusions: of the edge, of both kinds on all edges, of broken fusions."""
    edge, kind = np.tile(np.arange(count), 2), np.repeat([0.0, 1.0], count)
    return csr_array(hstack([indicator(edge), indicator(np.zeros_like(edge)), csr_array(kind[:, None])]))


def _shrunk(costs: Floats, shrink: float) -> Floats:
    """Logarithms of costs, the gain of each format in a group drawn towards its mean gain over groups."""
    logs = np.log(np.maximum(costs, max(_FLOOR * costs.mean(), 1e-12)))
    groups, formats = logs.mean(axis=1, keepdims=True), logs.mean(axis=0, keepdims=True)
    return np.asarray((1 - shrink) * logs + shrink * (groups + formats - logs.mean()))
