"""A search over a surrogate of real measurements: outcomes of a recorded run, fitted by bounded ridge regression.

The surrogate shares nothing with the sampler's models: losses and latencies are sums of effects that are not negative,
as near to the run's own priors as five-fold cross-validation likes best; latencies have effects of reformats as well.
What the sampler knows are the run's own priors.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from families import NOISE
from scipy.optimize import lsq_linear
from scipy.sparse import csr_array, diags_array, hstack, vstack
from synthetic_family import REFERENCE_MAP, WORST

from tuner.prepare.prepared import prepare_study
from tuner.results.loaded import load_run
from tuner.samplers.accuracy_model import loss
from tuner.samplers.effects import chosen
from tuner.samplers.history import read_history
from tuner.samplers.problem import Floats, Ints, Problem, edge_costs, summed
from tuner.search.problem import own_problem
from tuner.study.inputs import read_inputs

_FOLDS = 5
_WEIGHTS = np.geomspace(1e-3, 1e3, 13)


@dataclass(frozen=True)
class Recorded:
    """One search.

    Attributes:
        problem: As the run described it, of accuracy and latency alone.
        effects: Loss of each choice, shape ``(groups, formats)``.
        latency: Share of each choice, same shape.
        reformats: Share of a reformat on each edge, shape ``(edges,)``.
        seed: Of the noise; a scheme's noise never changes.
        explained: Share of the variance of held-out trials that the surrogate explains: loss, latency.
    """

    problem: Problem
    effects: Floats
    latency: Floats
    reformats: Floats
    seed: int
    explained: tuple[float, float]

    def truth(self, schemes: Ints) -> Floats:
        """Noise-free accuracy and latency, shape ``(schemes, 2)``."""
        accuracy, timed = self.problem.objectives
        shares = timed.fixed + summed(self.latency, schemes) + self.problem.mismatches(schemes) @ self.reformats
        values = accuracy.reference * np.exp(-summed(self.effects, schemes)), timed.reference * shares
        return np.stack(values, axis=1)

    def measure(self, scheme: Ints) -> Floats:
        """What a study would measure, shape ``(2,)``."""
        draw = np.random.default_rng([self.seed, *scheme.tolist()])
        found: Floats = self.truth(scheme[None])[0]
        found[0] = max(float(found[0] + draw.normal(0, NOISE[0])), 0.0)
        found[1] *= 1 + draw.normal(0, NOISE[1])
        return found


def recorded(folders: tuple[Path, ...], seed: int) -> Recorded:
    """Fits the surrogate of runs that share their preparations; prints how well it explains held-out trials."""
    return replace(_fitted(folders), seed=seed)


@cache
def _fitted(folders: tuple[Path, ...]) -> Recorded:
    runs = [load_run(folder) for folder in folders]
    reference = runs[0].reference
    assert reference is not None, f"{folders[0]}: no reference yet"
    whole = own_problem(prepare_study(read_inputs(runs[0].config), runs[0].run), reference)
    histories = [read_history(run.trials.study, whole) for run in runs]
    held = sum(len(history.schemes) for history in histories)
    complete = sum(record.scores is not None for run in runs for record in run.records)
    assert held == complete, f"{folders[0]}: {complete} complete trials, {held} of them in today's space"
    schemes, first = np.unique(np.concatenate([h.schemes for h in histories]), axis=0, return_index=True)
    values = np.concatenate([h.values for h in histories])[first]
    accuracy = next(index for index, target in enumerate(whole.objectives) if target.accuracy)
    timed = next(index for index, target in enumerate(whole.objectives) if target.reformat)
    losses = loss(values[:, accuracy], whole.objectives[accuracy].reference)
    shares = values[:, timed] / whole.objectives[timed].reference - whole.objectives[timed].fixed
    best = replace(whole.objectives[accuracy], reference=REFERENCE_MAP, worst=WORST[0])  # as the other families have it
    target = replace(whole.objectives[timed], reference=1.0, worst=WORST[1])
    problem = replace(whole, objectives=(best, target))
    assert target.prior is not None
    design = chosen(schemes, np.ones_like(problem.allowed))
    sums = summed(problem.harm, schemes)
    unit = float(np.median(losses[sums > 0] / sums[sums > 0]))
    effects, how_loss = _ridge(design, losses, unit * problem.harm.ravel())
    effects[problem.harm.ravel() == 0] = 0.0
    edges = edge_costs(problem, target).reformats
    both = csr_array(hstack([design, csr_array(problem.mismatches(schemes))]))
    costs, how_latency = _ridge(both, shares, np.concatenate([target.prior.ravel(), edges]))
    size = problem.harm.size
    print(f"{folders[0]}: {len(schemes)} schemes, explained {how_loss:.3f}, {how_latency:.3f}", file=sys.stderr)
    if min(how_loss, how_latency) < 0.5:
        sys.exit(f"{folders[0]}: effects of layers explain too little of it; record more images or less noise")
    shape = problem.harm.shape
    return Recorded(
        problem, effects.reshape(shape), costs[:size].reshape(shape), costs[size:], 0, (how_loss, how_latency)
    )


def _ridge(design: csr_array, values: Floats, prior: Floats) -> tuple[Floats, float]:
    """Effects that are not negative, near a prior; and the share of held-out variance that they explain."""
    scale = np.maximum(prior, max(0.05 * float(prior.mean()), 1e-9))
    fold = np.random.default_rng(0).permutation(len(values)) % _FOLDS

    def fit(rows: Ints, weight: float) -> Floats:
        pull = diags_array(weight * np.std(values) / scale)
        system = csr_array(vstack([design[rows], pull]))
        goal = np.concatenate([values[rows], weight * np.std(values) * prior / scale])
        return np.asarray(lsq_linear(system, goal, bounds=(0, np.inf)).x)

    def missed(weight: float) -> float:
        errors = [
            values[fold == k] - design[np.flatnonzero(fold == k)] @ fit(np.flatnonzero(fold != k), weight)
            for k in range(_FOLDS)
        ]
        return float(np.mean(np.concatenate(errors) ** 2))

    scores = [missed(float(weight)) for weight in _WEIGHTS]
    best = float(_WEIGHTS[int(np.argmin(scores))])
    return fit(np.arange(len(values)), best), 1 - min(scores) / float(np.var(values))
