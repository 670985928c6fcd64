"""The accuracy model: what each (group, format) costs in accuracy, learned from trials and a sensitivity prior.

The loss of a scheme is ``-ln(mAP / reference)``: for small drops the relative drop, and unlike it additive for large
ones. It is a sum of one effect per (group, format), plus a process over schemes for what a sum misses. The prior mean
of an effect is its sensitivity, drawn towards the mean of its format and scaled to the trials; effects of one group,
module and format are correlated. How far the sensitivities are to be believed is a hyperparameter, chosen by the
marginal likelihood of the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from tuner.samplers.hyperparameters import MarginalLikelihood, Shape, fitted
from tuner.samplers.problem import Floats, Ints, Problem
from tuner.samplers.regression import Features, Posterior, process

#: Losses above this (5 % of the reference's mAP is left) say no more than that the scheme is broken.
MAX_LOSS = 3.0
#: Trials that choose the hyperparameters: the last ones, which lie near the front.
_RECENT = 250
_GRID = {
    "shrink": (0.0, 0.3, 0.6, 0.9, 1.0),
    "power": (1.0, 0.6, 0.3),
    "spread": (0.3, 0.7, 1.4),
    "noise": (0.003, 0.006, 0.012, 0.024),
    "residual": (0.0, 0.005, 0.015, 0.04),
}
_START = {"shrink": 0.3, "power": 1.0, "spread": 0.7, "noise": 0.006, "residual": 0.005}


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
        self._problem = problem
        self._harm = problem.harm if harm is None else harm
        none = np.zeros((len(schemes), 0))
        # An mAP's noise is absolute, so that of its logarithm grows as the mAP falls.
        spread = np.exp(np.minimum(losses, MAX_LOSS))
        recent = slice(-_RECENT, None)
        alike = process(schemes[recent], schemes[recent])

        @cache
        def shape(shrink: float, power: float) -> Shape:
            return self._shape(shrink, power, schemes, losses)

        @cache
        def trials(shrink: float, power: float) -> MarginalLikelihood:
            return MarginalLikelihood(
                shape(shrink, power), schemes[recent], none[recent], losses[recent], spread[recent], alike
            )

        found = fitted(_GRID, _START, lambda s: trials(s["shrink"], s["power"]).of(s))
        self.hyperparameters, self.log_likelihood = found
        prior = shape(self.hyperparameters["shrink"], self.hyperparameters["power"]).prior(self.hyperparameters)
        self._features = prior.features
        self.prior_effects: Floats = prior.features.choices @ prior.mean
        self._posterior = Posterior(prior, schemes, none, losses, spread)
        if running is not None and len(running):
            self._posterior = self._posterior.expecting(running, np.zeros((len(running), 0)))

    @property
    def effects(self) -> Floats:
        """Posterior mean of every effect, shape ``(groups, formats)``."""
        return np.asarray(self._features.choices @ self._posterior.coefficients)

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """Draws effects from the posterior, shape ``(count, groups, formats)``."""
        return np.asarray(np.einsum("gfk,ck->cgf", self._features.choices, self._posterior.draw(random, count)))

    def mean(self, schemes: Ints) -> Floats:
        """Mean of the loss of schemes, shape ``(schemes,)``."""
        return self._posterior.mean(schemes, np.zeros((len(schemes), 0)))

    def predict(self, schemes: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the loss of schemes, each of shape ``(schemes,)``."""
        return self._posterior.predict(schemes, np.zeros((len(schemes), 0)))

    def _shape(self, shrink: float, power: float, schemes: Ints, losses: Floats) -> Shape:
        effects = shrunk(self._harm, shrink, power)
        sums = np.take_along_axis(effects[None], schemes[..., None], axis=2)[..., 0].sum(axis=1)
        return effect_shape(self._problem, effects * _scale(sums, losses))


def shrunk(harm: Floats, shrink: float, power: float) -> Floats:
    """Sensitivities to a power, scaled to mean 1 and drawn towards the mean of their format."""
    used = harm > 0
    raised = np.where(used, np.maximum(harm, 1e-12) ** power, 0.0)
    raised /= raised[used].mean() if used.any() else 1.0
    count = np.maximum(used.sum(axis=0), 1)
    return np.asarray(np.where(used, (1 - shrink) * raised + shrink * raised.sum(axis=0) / count, 0.0))


def effect_shape(problem: Problem, effects: Floats, offset: float = 0.0) -> Shape:
    """Prior of effects that scatter about given ones: each on its own, and together by group, module and format.

    Args:
        problem: The search.
        effects: Prior mean of each effect, shape ``(groups, formats)``.
        offset: Value of a scheme without effects.
    """
    groups, formats = effects.shape
    floor = 0.1 * effects.mean(axis=0, keepdims=True) * (effects > 0)
    single = np.zeros((groups, formats, groups * formats))
    rows, columns = np.indices((groups, formats))
    single[rows, columns, rows * formats + columns] = effects + floor
    by_group = np.zeros((groups, formats, groups))
    by_group[np.arange(groups), :, np.arange(groups)] = effects
    by_block = np.zeros((groups, formats, int(problem.blocks.max()) + 1))
    by_block[np.arange(groups), :, problem.blocks] = effects
    by_format = np.zeros((groups, formats, formats))
    by_format[:, np.arange(formats), np.arange(formats)] = effects
    level = np.zeros((groups, formats, formats))
    level[:, np.arange(formats), np.arange(formats)] = np.where(effects > 0, effects.mean(axis=0), 0.0)
    parts = [single, by_group, by_block, by_format, level, effects[:, :, None]]
    own = _repeat(parts, [1.0, 0.5, 0.5, 0.0, 0.0, 0.0])
    shared = _repeat(parts, [0.0, 0.0, 0.0, 0.5, 0.3, 0.0])
    mean = _repeat(parts, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    return Shape(Features(np.concatenate(parts, axis=2)), mean, own, shared, offset)


def _repeat(parts: Sequence[Floats], values: Sequence[float]) -> Floats:
    """One value for all features of each part."""
    return np.concatenate([np.full(part.shape[2], value) for part, value in zip(parts, values, strict=True)])


def _scale(sums: Floats, losses: Floats) -> float:
    """Factor from summed sensitivities to losses: the median over schemes, robust against broken ones."""
    usable = (sums > 0) & (losses > 0) & (losses < MAX_LOSS)
    if not usable.any():
        return 0.05 / max(float(sums.max(initial=0.0)), 1.0)
    return float(np.median(losses[usable] / sums[usable]))
