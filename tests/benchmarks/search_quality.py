"""Compares samplers over families of searches: share of the true front's hypervolume that the returned schemes have.

    python tests/benchmarks/search_quality.py --out DIR [--sampler model ...] [--family residual ...] [--prior good ...]

What a study returns after N trials is the front that the models believe in; its hypervolume is that of the noise-free
outcomes. Every search is a line of DIR/searches.jsonl and is run once: interrupted, the command goes on, and with
nothing left to run it prints the table alone. Further instances: ``--first 100``. What parallel workers cost: the same
with ``--parallel 4`` and another DIR. ``--recorded RUN [--recorded RUN ...]`` takes in place of the families a
surrogate of real runs of one study, as `real_samplers` leaves them.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import synthetic_family
from families import FAMILIES, make_instance
from family_priors import PRIORS
from quality_table import tables
from recorded_family import recorded
from samplers import strong_reference
from true_front import true_front, volume

from tuner.samplers import make_sampler
from tuner.samplers.acquisition import nondominated
from tuner.samplers.history import History
from tuner.samplers.opening import knapsack_opening, learns, taught_opening, uniform_opening
from tuner.samplers.optuna_compat import propose
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Floats, Ints, Problem
from tuner.study.samplers import SAMPLERS

BUDGETS = (25, 50, 100, 200)


def seeds(problem: Problem, sampler: str) -> list[Ints]:
    """What a study of that sampler runs first; the first format is the unquantized one."""
    reference, *uniform = (np.full(problem.groups, index) for index in range(len(problem.formats)))
    kept = uniform_opening(problem, sampler, uniform)
    found = [reference, *(uniform[index] for index in kept), *knapsack_opening(problem, sampler)]
    if problem.taught and learns(sampler):
        found += [np.array(each.scheme) for each in problem.earlier]
        return [found[index] for index in taught_opening(problem, found)]
    return found


def search(
    name: str, family: str, prior: str, seed: int, trials: int, parallel: int, out: Path, runs: tuple[Path, ...]
) -> dict[str, Any]:
    """Runs one search; returns its key, and the share of the returned schemes for every budget that it reached.

    With ``parallel`` trials at once, the oldest is told before the next is asked for; all have been told at the end.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    instance = recorded(runs, seed) if runs else make_instance(family, prior, seed)
    problem = instance.problem
    if isinstance(instance, synthetic_family.Instance):
        full = volume(strong_reference(instance))
    else:
        full = volume(true_front(instance.truth, problem.groups, len(problem.formats), out / "fronts"))
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, problem, seed))
    for scheme in seeds(problem, name):
        study.enqueue_trial(problem.decode(scheme), skip_if_exists=True)
    schemes, values = np.zeros((0, problem.groups), dtype=np.int64), np.zeros((0, 2))
    shares, running = {}, deque[tuple[optuna.Trial, Ints]]()
    asked = 0
    for count in range(1, trials + 1):
        while asked < trials and len(running) < parallel:
            trial = study.ask()
            propose(trial)
            choices = {group: trial.suggest_categorical(group, names) for group, names in problem.parameters.items()}
            running.append((trial, problem.encode(choices)))
            asked += 1
        trial, scheme = running.popleft()
        measured = instance.measure(scheme)
        study.tell(trial, measured.tolist())
        schemes, values = np.concatenate([schemes, scheme[None]]), np.concatenate([values, measured[None]])
        if count in BUDGETS or count == trials:
            shares[str(count)] = volume(instance.truth(returned(problem, schemes, values))) / full
    return {"sampler": name, "family": family, "prior": prior, "seed": seed, "shares": shares}


def returned(problem: Problem, schemes: Ints, values: Floats) -> Ints:
    """Schemes that no other dominates as the models expect them, shape ``(n, groups)``."""
    none = np.zeros((0, problem.groups), dtype=np.int64)
    posterior = JointPosterior(problem, History(schemes, values, np.full(len(values), np.nan), none, frozenset()))
    return schemes[nondominated(posterior.outcomes(posterior.mean(schemes)))]


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """Searches that were asked for, in an order in which all families advance together."""
    chosen = range(options.first, options.first + options.instances)
    if options.recorded:
        yield from (
            (name, "recorded", "its own", seed) for seed in chosen for name in options.sampler or SAMPLERS.names()
        )
        return
    families = options.family or [*FAMILIES, "blocks"]
    for seed, prior, family, name in product(
        chosen, options.prior or [*PRIORS], families, options.sampler or SAMPLERS.names()
    ):
        if family != "blocks" or prior in ("good", "poor"):
            yield name, family, prior, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sampler", action="append", choices=SAMPLERS.names(), help="default: all")
    parser.add_argument("--family", action="append", choices=[*FAMILIES, "blocks"], help="default: all")
    parser.add_argument("--prior", action="append", choices=[*PRIORS], help="default: all")
    parser.add_argument("--recorded", action="append", type=Path, default=[], help="run folder of a real study")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first instance")
    parser.add_argument("--parallel", type=int, default=1, help="trials of a search that run at once")
    parser.add_argument("--workers", type=int, default=1, help="searches that run at once")
    options = parser.parse_args()
    path = options.out / "searches.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    searches = list(wanted(options))
    done = {key(row) for row in rows if str(options.trials) in row["shares"]}
    with ProcessPoolExecutor(options.workers) as pool, path.open("a") as file:
        same = (options.trials, options.parallel, options.out, tuple(options.recorded))
        arguments = [(*each, *same) for each in searches if each not in done]
        for row in pool.map(search, *zip(*arguments, strict=True)) if arguments else ():
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    print(tables([row for row in rows if key(row) in set(searches)]))


def key(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["sampler"], row["family"], row["prior"], row["seed"]


if __name__ == "__main__":
    main()
