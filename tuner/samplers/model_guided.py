"""The model-guided sampler: proposes the scheme that is expected to add most to the front.

At every ask it fits an accuracy model and a cost model to the study's trials, solves draws of them on the layer graph,
and takes the candidate with the largest expected hypervolume improvement. It keeps no state between asks: a resumed
study and any number of workers propose as if one process had run from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial
from threadpoolctl import threadpool_limits

from tuner.samplers.acquisition import expected_improvement, nondominated
from tuner.samplers.candidates import changed, drawn
from tuner.samplers.history import History, read_history
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Ints, Problem
from tuner.samplers.scheme_sampler import SchemeSampler
from tuner.samplers.solver import solve
from tuner.samplers.table import Table, anchored, check_directions, table_problem

#: Draws of each candidate's outcome.
SAMPLES = 32


class ModelGuidedSampler(SchemeSampler):
    """Proposes by models of accuracy and cost; works without priors, trials or a layer graph too.

    Attributes:
        learns_from_priors: So that a study begins with few seeds.
    """

    learns_from_priors = True
    _anchored = True  # whether the reference's values are known; else the best that the study saw stands in
    _fixed_worst = False

    @classmethod
    def from_table(
        cls,
        table: Table | Any,
        *,
        accuracy: int = 0,
        reference: Sequence[float] | None = None,
        worst: Sequence[float] | None = None,
        bounds: Sequence[float | None] | None = None,
        neighbours: Iterable[tuple[str, str]] = (),
        reformat: float = 0.0,
        seed: int = 0,
    ) -> ModelGuidedSampler:
        """A sampler for any Optuna study that chooses, layer by layer, among a few ways to do it.

        The objective function suggests each layer of the table by `suggest_categorical` with the table's choices, in
        their order, and returns one accuracy, positive and maximised, and one or more costs, positive and minimised.

        Args:
            table: ``{layer: {choice: (sensitivity, cost)}}``, either None where it is not known, or
                ``{layer: [choice, ...]}``, or a data frame with columns ``layer``, ``choice``, ``sensitivity``,
                ``cost``. A sensitivity says how much a choice hurts the accuracy, 0 not at all, in any unit; a cost
                what it adds to the cost, in any unit; of several costs a choice has a tuple.
            accuracy: Which of the study's values is the accuracy.
            reference: The study's values of the scheme that loses nothing; None: the best accuracy and the highest
                costs that the study has seen, so that the sampler does well to see that scheme first
                (`Study.enqueue_trial`).
            worst: What still counts, as values of the study; None: half of the reference's accuracy, 1.1 of its costs.
            bounds: What no scheme may be worse than, as values of the study; None where nothing is bounded.
            neighbours: Pairs of layers between which two different choices cost `reformat`.
            reformat: Share of the reference's cost.
            seed: Of all random choices.

        Raises:
            InputError: The table or an argument contradicts itself.
        """
        problem = table_problem(
            table,
            accuracy=accuracy,
            reference=reference,
            worst=worst,
            bounds=bounds,
            neighbours=neighbours,
            reformat=reformat,
        )
        sampler = cls(problem, seed)
        sampler._anchored, sampler._fixed_worst = reference is not None, worst is not None
        return sampler

    def propose(self, study: Study, trial: FrozenTrial) -> Ints:
        """The candidate of largest expected hypervolume improvement that the study does not hold."""
        with threadpool_limits(1):  # the matrices are small: more threads would only wait for each other
            return self._propose(study, trial)

    def _propose(self, study: Study, trial: FrozenTrial) -> Ints:
        problem = self._problem
        check_directions(study, problem)
        random = np.random.default_rng([self._seed, trial.number])
        history = read_history(study, problem, trial.number)
        if not len(history.schemes):
            return _first(problem, random)
        if not self._anchored:
            problem = anchored(problem, history.values, fixed_worst=self._fixed_worst)
        return _choose(problem, history, random)


def _choose(problem: Problem, history: History, random: np.random.Generator) -> Ints:
    posterior = JointPosterior(problem, history)
    known = np.concatenate([history.schemes, history.running])
    # Evaluated schemes count as the models expect them, not as noise showed them; running ones as they are expected.
    expected = posterior.outcomes(posterior.mean(known))
    parents = known[nondominated(expected)]
    found = np.unique(np.concatenate([drawn(posterior, random), changed(posterior, parents, random)]), axis=0)
    new = np.array([scheme.tobytes() not in history.held for scheme in found], dtype=np.bool_)
    candidates = found[new] if new.any() else found
    samples = posterior.sample(candidates, random, SAMPLES)
    optimised = np.array([objective.optimised for objective in problem.objectives])
    gains = expected_improvement(samples, expected, posterior.worst, posterior.bounds, optimised)
    if gains.max() <= 0:  # nothing reaches the region that counts: towards it
        wanted = np.minimum(posterior.worst, posterior.bounds)
        gains = -np.maximum(samples.mean(axis=1) - wanted, 0.0).sum(axis=1)
    return np.asarray(candidates[int(gains.argmax())])


def _first(problem: Problem, random: np.random.Generator) -> Ints:
    """Without any trial: a random price on the priors."""
    harm = problem.harm / max(float(problem.harm.mean()), 1e-12)
    price = np.exp(random.uniform(-2, 2))
    total = harm
    for objective in problem.objectives:
        if objective.prior is not None:
            total = total + price * objective.prior / max(float(objective.prior.mean()), 1e-12)
    found: Ints = solve(problem, total[None], np.zeros((1, len(problem.edges))))[0]
    return found
