"""The accuracy model: what each (group, format) costs in accuracy, learned from trials and a sensitivity prior.

The loss of a scheme is ``-ln(mAP / reference)``: for small drops the relative drop, and unlike it additive for large
ones. It is a sum of one positive effect per (group, format), plus a process over schemes for what a sum misses. An
effect is log-normal about its sensitivity; the unit of the sensitivities, and that of each format, is learned, and so
are deviates of groups and modules. How far the sensitivities tell groups apart is a hyperparameter, chosen by the
marginal likelihood of the trials.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tuner.samplers.effects import chosen, memberships, repeated
from tuner.samplers.hyperparameters import Family, fit
from tuner.samplers.problem import Floats, Ints, Problem
from tuner.samplers.regression import Observations

#: Losses above this (5 % of the reference's mAP is left) say no more than that the scheme is broken.
MAX_LOSS = 3.0
_GRID = {
    "shrink": (0.0, 0.25, 0.5, 0.75, 1.0),
    "spread": (0.35, 0.7, 1.4),
    "noise": (0.002, 0.004, 0.008, 0.016),
    "residual": (0.0, 0.1, 0.2, 0.4),
}
_START = {"shrink": 0.25, "spread": 0.7, "noise": 0.004, "residual": 0.1}
#: Deviations of a choice's own deviate, its group's, its module's, its format's, and the one of all.
_OWN, _SHARED = (0.7, 0.8, 0.3, 0.0, 0.0), (0.0, 0.0, 0.0, 0.7, 1.0)
#: A sensitivity below this share of its format's mean counts as this: none is too small to be wrong.
_FLOOR = 0.01


def loss(accuracy: Floats, reference: float) -> Floats:
    """Losses of accuracies, shape as given; see the module."""
    shares = np.maximum(np.asarray(accuracy) / reference, np.exp(-MAX_LOSS))
    return np.asarray(-np.log(shares))


class AccuracyModel:
    """Posterior of the loss.

    Args:
        problem: The search.
        schemes: Observed schemes, shape ``(n, groups)``, n >= 1.
        losses: Their losses, shape ``(n,)``.
        harm: In place of the problem's sensitivities, same shape.
        running: Schemes that are being evaluated, shape ``(m, groups)``: they will show what is expected of them.

    Attributes:
        log_likelihood: Logarithm of the trials' marginal likelihood, up to a constant that only the trials decide.
        hyperparameters: As the trials chose them; ``shrink`` near 1 means that the prior's ranking is not believed.
        prior_effects: Prior mean of every effect, scaled to the trials, shape ``(groups, formats)``.
    """

    def __init__(
        self, problem: Problem, schemes: Ints, losses: Floats, harm: Floats | None = None, running: Ints | None = None
    ) -> None:
        known = problem.harm if harm is None else harm
        self._used = np.broadcast_to((known > 0).any(axis=0), known.shape)
        design = chosen(schemes, self._used)

        @cache
        def mean(shrink: float) -> Floats:
            logs = shrunk(known, shrink)
            sums = design @ np.exp(logs).ravel()
            return np.asarray(logs.ravel() + np.log(_scale(sums, losses)))

        members, counts = memberships(problem)
        family = Family(members, repeated(counts, _OWN), repeated(counts, _SHARED), mean, _GRID, _START)
        # An mAP's noise is absolute, so that of its logarithm grows as the mAP falls.
        seen = Observations(schemes, design, losses, np.exp(np.minimum(losses, MAX_LOSS)))
        self._posterior, self.hyperparameters, self.log_likelihood = fit(family, seen)
        self.prior_effects = self._effects(family.located(self.hyperparameters))
        if running is not None and len(running):
            self._posterior = self._posterior.expecting(running, chosen(running, self._used))

    @property
    def effects(self) -> Floats:
        """Posterior median of every effect, shape ``(groups, formats)``."""
        return self._effects(self._posterior.log_effects)

    def draw(self, random: np.random.Generator, heat: Floats) -> Floats:
        """Draws effects from the posterior, shape ``(draws, groups, formats)``.

        Args:
            random: Chance.
            heat: Factor of each draw's distance from the posterior median, on a logarithmic scale; shape ``(draws,)``.
        """
        return self._effects(self._posterior.draw(random, heat))

    def mean(self, schemes: Ints) -> Floats:
        """Median of the loss of schemes, shape ``(schemes,)``."""
        return self._posterior.mean(schemes, chosen(schemes, self._used))

    def predict(self, schemes: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the loss of schemes, each of shape ``(schemes,)``."""
        return self._posterior.predict(schemes, chosen(schemes, self._used))

    def _effects(self, logs: Floats) -> Floats:
        return np.asarray(np.where(self._used, np.exp(logs.reshape(*logs.shape[:-1], *self._used.shape)), 0.0))


def shrunk(harm: Floats, shrink: float) -> Floats:
    """Logarithms of sensitivities, drawn towards the mean of their format; 0 where a format does no harm."""
    used = (harm > 0).any(axis=0)
    floor = np.where(used, _FLOOR * harm.mean(axis=0), 1.0)
    logs = np.log(np.maximum(harm, floor))
    return np.asarray((1 - shrink) * logs + shrink * logs.mean(axis=0))


def _scale(sums: Floats, losses: Floats) -> float:
    """Factor from summed sensitivities to losses: the median over schemes, robust against broken ones."""
    usable = (sums > 0) & (losses > 0) & (losses < MAX_LOSS)
    if not usable.any():
        return 0.05 / max(float(sums.max(initial=0.0)), 1e-12)
    return float(np.median(losses[usable] / sums[usable]))
