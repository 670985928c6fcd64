"""All models of a study together: the posterior of schemes, in one set of coordinates to be minimised."""

from __future__ import annotations

import numpy as np

from tuner.samplers.accuracy_model import AccuracyModel, loss
from tuner.samplers.cost_model import CostModel
from tuner.samplers.history import History
from tuner.samplers.problem import Floats, Ints, Problem

#: Fewer trials than this say too little of single layers.
MIN_AGREEMENTS = 8


class JointPosterior:
    """Posterior of every objective.

    Coordinates: of the accuracy the loss ``-ln(accuracy / reference)``, of a cost its share of the reference's.

    Args:
        problem: The search.
        history: What was observed, at least one trial.

    Attributes:
        accuracy: The accuracy model.
        costs: ``{objective: cost model}``.
    """

    def __init__(self, problem: Problem, history: History) -> None:
        self.problem = problem
        self.costs: dict[str, CostModel] = {}
        for index, objective in enumerate(problem.objectives):
            values = history.values[:, index]
            if objective.accuracy:
                losses = loss(values, objective.reference)
                self.accuracy = _accuracy_model(problem, history, losses)
            else:
                shares = values / objective.reference
                self.costs[objective.name] = CostModel(problem, objective, history.schemes, shares, history.running)

    def mean(self, schemes: Ints) -> Floats:
        """Mean of the coordinates, shape ``(schemes, objectives)``."""
        models = [self.accuracy if o.accuracy else self.costs[o.name] for o in self.problem.objectives]
        return np.stack([model.mean(schemes) for model in models], axis=1)

    def predict(self, schemes: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the coordinates, each of shape ``(schemes, objectives)``."""
        found = [
            self.accuracy.predict(schemes) if o.accuracy else self.costs[o.name].predict(schemes)
            for o in self.problem.objectives
        ]
        return np.stack([mean for mean, _ in found], axis=1), np.stack([deviation for _, deviation in found], axis=1)

    def draw(self, random: np.random.Generator, heat: Floats) -> list[tuple[Floats, Floats, Floats]]:
        """Draws of every objective: of choices ``(draws, groups, formats)``, reformats and breaks ``(draws, edges)``.

        Args:
            random: Chance.
            heat: Factor of each draw's distance from the posterior median, on a logarithmic scale; shape ``(draws,)``.
        """
        none = np.zeros((len(heat), len(self.problem.edges)))
        return [
            (self.accuracy.draw(random, heat), none, none) if o.accuracy else self.costs[o.name].draw(random, heat)
            for o in self.problem.objectives
        ]

    def sample(self, schemes: Ints, random: np.random.Generator, count: int) -> Floats:
        """Draws outcomes of schemes, shape ``(schemes, count, objectives)``, in the units of `outcomes`.

        All coordinates are log-normal. One set of deviates serves all schemes, in opposite pairs, so that their order
        is not blurred by chance.
        """
        mean, deviation = self.predict(schemes)
        half = random.standard_normal((count // 2, mean.shape[1]))
        unit = np.concatenate([half, -half])
        variance = np.log1p((deviation / np.maximum(mean, 1e-12)) ** 2)[:, None, :]
        return self.outcomes(mean[:, None, :] * np.exp(unit * np.sqrt(variance) - variance / 2))

    def outcomes(self, coordinates: Floats) -> Floats:
        """Coordinates in the units of the hypervolume: ``-accuracy / reference`` and shares of costs, all minimised."""
        accuracy = np.array([objective.accuracy for objective in self.problem.objectives])
        return np.where(accuracy, -np.exp(-coordinates), coordinates)

    @property
    def worst(self) -> Floats:
        """The reference point of the hypervolume in the units of `outcomes`, shape ``(objectives,)``."""
        return np.array([(-1 if o.accuracy else 1) * o.worst / o.reference for o in self.problem.objectives])

    @property
    def bounds(self) -> Floats:
        """What a scheme must not exceed, in the units of `outcomes`; inf where nothing, shape ``(objectives,)``."""
        return np.array(
            [
                np.inf if o.bound is None else (-1 if o.accuracy else 1) * o.bound / o.reference
                for o in self.problem.objectives
            ]
        )


def _accuracy_model(problem: Problem, history: History, losses: Floats) -> AccuracyModel:
    """The accuracy model, with sensitivities that the agreement of the trials corrected where it bears that out.

    The label-free agreement with the reference's detections is far less noisy than an mAP. Its own effects are learned
    like those of the mAP; taken as sensitivities they stand for the prior, unless the marginal likelihood is against
    them.
    """
    schemes, running = history.schemes, history.running
    plain = AccuracyModel(problem, schemes, losses, running=running)
    if len(schemes) < MIN_AGREEMENTS or not np.isfinite(history.agreement).all():
        return plain
    agreement = loss(history.agreement, 1.0)
    if np.array_equal(agreement, losses):  # it is what is searched by, and no second witness
        return plain
    learned = AccuracyModel(problem, schemes, agreement).effects
    # An effect below zero is noise: a layer does not agree better for being quantized.
    floor = 0.02 * np.abs(learned).mean(axis=0)
    harm = np.where(problem.harm > 0, np.maximum(learned, floor), 0.0)
    corrected = AccuracyModel(problem, schemes, losses, harm, running)
    return corrected if corrected.log_likelihood > plain.log_likelihood else plain
