"""What the sampler's models learned from the trials of a study, whatever proposed them: ``learned.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from optuna.study import Study
from scipy.stats import kendalltau, spearmanr

from objectives.objective import OBJECTIVES
from search_spaces.formats import UNQUANTIZED
from tuner.samplers.accuracy_model import loss
from tuner.samplers.history import History, read_history
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Floats, Problem, Target, summed

#: Complete trials below which the models say little more than their priors.
MIN_TRIALS = 8
_DRAWS = 400


@dataclass(frozen=True)
class Effect:
    """What one format in one group does, all else unquantized.

    Attributes:
        group: The group.
        format: The format.
        prior: Loss that the scaled prior expects, in points of the accuracy.
        posterior: Loss that the trials leave believed, in points of the accuracy.
        deviation: Its standard deviation over draws of the posterior, in points of the accuracy.
        latency_ms: Change against the unquantized format; None without latency or without that format.
    """

    group: str
    format: str
    prior: float
    posterior: float
    deviation: float
    latency_ms: float | None


@dataclass(frozen=True)
class Reformat:
    """Posterior mean of a reformat between two neighbouring groups, in ms."""

    source: str
    target: str
    ms: float


@dataclass(frozen=True)
class Ranks:
    """Rank correlations over `count` pairs; None where one side is constant."""

    spearman: float | None
    kendall: float | None
    count: int


@dataclass(frozen=True)
class Learned:
    """The models fitted on all complete trials.

    Attributes:
        trials: Number of complete trials.
        reason: Why nothing was fitted; empty where it was.
        settings: Hyperparameters of the accuracy model, as the marginal likelihood of the trials chose them.
        effects: Of every allowed quantized (group, format), the worst posterior first.
        reformats: The dearest first.
        observed: Prior against observed losses over schemes that quantize anything. The prior's order is free of the
            trials but for ``shrink``, which the same trials chose: in-sample.
        believed: Prior against posterior over `effects`.
    """

    trials: int
    reason: str = ""
    settings: Mapping[str, float] | None = None
    effects: tuple[Effect, ...] = ()
    reformats: tuple[Reformat, ...] = ()
    observed: Ranks | None = None
    believed: Ranks | None = None

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1)


def learn(study: Study, problem: Problem) -> Learned:
    """Fits the models on the trials of a study."""
    history = read_history(study, problem)
    count = len(history.schemes)
    if count < MIN_TRIALS:
        return Learned(count, f"{count} complete trials, and the models are shown from {MIN_TRIALS} on")
    models = JointPosterior(problem, history)
    accuracy = models.accuracy
    reference = next(o.reference for o in problem.objectives if o.accuracy)
    drawn = _points(accuracy.draw(np.random.default_rng(0), np.ones(_DRAWS)), reference).std(axis=0)
    prior, posterior = _points(accuracy.prior_effects, reference), _points(accuracy.effects, reference)
    times = _times(models)
    effects = [
        Effect(
            group,
            name,
            float(prior[row, column]),
            float(posterior[row, column]),
            float(drawn[row, column]),
            None if times is None else float(times[row, column]),
        )
        for row, group in enumerate(problem.parameters)
        for column, name in enumerate(problem.formats)
        if problem.allowed[row, column] and name != UNQUANTIZED
    ]
    effects.sort(key=lambda effect: -effect.posterior)
    return Learned(
        count,
        settings=accuracy.hyperparameters,
        effects=tuple(effects),
        reformats=_reformats(models),
        observed=_observed(problem, history, accuracy.prior_effects, reference),
        believed=rank(np.array([e.prior for e in effects]), np.array([e.posterior for e in effects])),
    )


def rank(first: Floats, second: Floats) -> Ranks:
    """Rank correlations of two samples."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Ranks(None, None, len(first))
    spearman, kendall = (float(method(first, second).statistic) for method in (spearmanr, kendalltau))
    return Ranks(None if math.isnan(spearman) else spearman, None if math.isnan(kendall) else kendall, len(first))


def _points(effects: Floats, reference: float) -> Floats:
    """Losses of the logarithm as points of the accuracy, shape as given."""
    return np.asarray(100 * reference * -np.expm1(-effects))


def _observed(problem: Problem, history: History, effects: Floats, reference: float) -> Ranks:
    index = next(i for i, o in enumerate(problem.objectives) if o.accuracy)
    expected = summed(effects, history.schemes)
    quantized = expected > 0
    return rank(expected[quantized], loss(history.values[:, index], reference)[quantized])


def _latency(problem: Problem) -> Target | None:
    """The objective that is timed; None where none is."""
    return next((target for target in problem.objectives if OBJECTIVES.get(target.name).timed), None)


def _times(models: JointPosterior) -> Floats | None:
    problem = models.problem
    latency = _latency(problem)
    if latency is None or UNQUANTIZED not in problem.formats:
        return None
    shares = models.costs[latency.name].effects
    plain = problem.formats.index(UNQUANTIZED)
    return np.asarray(latency.reference * (shares - shares[:, plain : plain + 1]))


def _reformats(models: JointPosterior) -> tuple[Reformat, ...]:
    problem, names = models.problem, list(models.problem.parameters)
    latency = _latency(problem)
    if latency is None:
        return ()
    costs = latency.reference * models.costs[latency.name].reformat_cost
    found = [Reformat(names[a], names[b], float(ms)) for (a, b), ms in zip(problem.edges, costs, strict=True)]
    return tuple(sorted(found, key=lambda each: -each.ms))
