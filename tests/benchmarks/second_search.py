"""What a first search teaches a second one of the same model and device: trials to 95 % of the first one's hypervolume.

    python tests/benchmarks/second_search.py [--family residual ...] [--prior good ...] [--instances 1] [--first 7]

Both search the same synthetic truth (see `families`) with another seed and other noise. The hypervolume is that of the
noise-free outcomes of all schemes that were evaluated. Beside it the second search without what the first one taught.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optuna
from families import FAMILIES, Instance, make_instance
from search_quality import seeds
from true_front import volume

from tuner.samplers import make_sampler
from tuner.samplers.history import History
from tuner.samplers.optuna_compat import propose
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import EdgeCosts, Problem
from tuner.transfer.teach import believed_front

_SHARE = 0.95
_OTHER_NOISE = 1_000


def search(problem: Problem, instance: Instance, seed: int, trials: int) -> tuple[History, list[float]]:
    """Runs one search; returns its trials, and the hypervolume after each."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler("model", problem, seed))
    for scheme in seeds(problem, "model"):
        study.enqueue_trial(problem.decode(scheme), skip_if_exists=True)
    none = np.zeros((0, problem.groups), dtype=np.int64)
    schemes, values, curve = none, np.zeros((0, 2)), []
    for _ in range(trials):
        trial = study.ask()
        propose(trial)
        scheme = problem.encode({g: trial.suggest_categorical(g, names) for g, names in problem.parameters.items()})
        measured = instance.measure(scheme)
        study.tell(trial, measured.tolist())
        schemes, values = np.concatenate([schemes, scheme[None]]), np.concatenate([values, measured[None]])
        curve.append(volume(instance.truth(schemes)))
    return History(schemes, values, np.full(len(values), np.nan), none, frozenset()), curve


def taught(problem: Problem, history: History) -> Problem:
    """The problem with what the trials of another search taught, as `tuner.transfer` puts it."""
    posterior = JointPosterior(problem, history)
    model = posterior.costs["latency_ms"]
    edges = EdgeCosts(model.reformat_cost, model.broken_fusion_cost)
    accuracy, latency = problem.objectives
    harm = np.where(problem.harm > 0, posterior.accuracy.effects, 0.0)
    objectives = (accuracy, replace(latency, prior=model.effects, learned=edges))
    known = replace(problem, harm=harm, taught=True, objectives=objectives)
    return replace(known, earlier=believed_front(problem, history, posterior))


def reached(curve: Sequence[float], goal: float) -> str:
    """The first trial at which a curve has so much."""
    return next((str(count) for count, found in enumerate(curve, 1) if found >= goal), f"> {len(curve)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=[*FAMILIES], help="default: all")
    parser.add_argument("--prior", action="append", choices=["good", "poor", "none"], help="default: good and poor")
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--first", type=int, default=7, help="seed of the first instance")
    parser.add_argument("--trials", type=int, default=60, help="of the first search")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("| family | prior | instance | first | second | second, untaught |\n| --- | --- | --- | --- | --- | --- |")
    for number in range(options.first, options.first + options.instances):
        for prior in options.prior or ("good", "poor"):
            for family in options.family or FAMILIES:
                instance = make_instance(family, prior, number)
                assert isinstance(instance, Instance)
                history, first = search(instance.problem, instance, 0, options.trials)
                again = replace(instance, seed=instance.seed + _OTHER_NOISE)
                goal, half = _SHARE * first[-1], options.trials // 2
                second = search(taught(instance.problem, history), again, 1, half)[1]
                untaught = search(instance.problem, again, 1, options.trials)[1]
                cells = [reached(curve, goal) for curve in (first, second, untaught)]
                print("| " + " | ".join([family, prior, str(number), *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
