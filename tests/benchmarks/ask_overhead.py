"""Seconds from ask to tell without any evaluation, on SQLite: what a study's book-keeping and sampler cost a trial.

python tests/benchmarks/ask_overhead.py --layers 100 --trials 100 --trials 500 --trials 1000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from synthetic_family import FORMATS, Instance, make_instance

from tuner.samplers import make_sampler
from tuner.samplers.knapsack import knapsack_points
from tuner.samplers.problem import Problem
from tuner.study.samplers import SAMPLERS
from tuner.study.storage import close_storage, open_storage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument(
        "--trials", type=int, action="append", help="trials that the study holds; default 100, 500, 1000"
    )
    parser.add_argument("--sampler", choices=SAMPLERS.names(), default="model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall time: for a machine under load")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    instance = make_instance(0, options.layers)
    problem = instance.problem
    print("| trials | ask, suggests, tell: median s | of them the sampler |\n| --- | --- | --- |")
    for count in options.trials or [100, 500, 1000]:
        with tempfile.TemporaryDirectory() as folder:
            storage = open_storage(Path(folder) / "study.db", pooled=True)
            study = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
            study.add_trials([trial_of(instance, scheme) for scheme in schemes(problem, count)])
            study.sampler = make_sampler(options.sampler, problem, 0)
            totals, samplers = [], []
            for _ in range(options.repeats):
                started = clock()
                trial = study.ask()
                assert isinstance(trial.relative_params, dict)
                samplers.append(clock() - started)
                choices = {name: trial.suggest_categorical(name, names) for name, names in problem.parameters.items()}
                study.tell(trial, instance.measure(problem.encode(choices)).tolist())
                totals.append(clock() - started)
            close_storage(storage)
        print(f"| {count} | {statistics.median(totals):.2f} | {statistics.median(samplers):.2f} |", flush=True)


def schemes(problem: Problem, count: int) -> np.ndarray:
    """Schemes near the knapsack's, as a study holds them, shape ``(count, groups)``."""
    draw = np.random.default_rng(0)
    base = np.array(knapsack_points(problem, 13))
    found = base[draw.integers(len(base), size=count)]
    return np.where(draw.random(found.shape) < 0.05, draw.integers(0, len(FORMATS), found.shape), found)


def trial_of(instance: Instance, scheme: np.ndarray) -> optuna.trial.FrozenTrial:
    choices = instance.problem.decode(scheme)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        n: optuna.distributions.CategoricalDistribution(f) for n, f in instance.problem.parameters.items()
    }
    return optuna.trial.create_trial(params=choices, distributions=space, values=instance.measure(scheme).tolist())


if __name__ == "__main__":
    main()
