"""Compares samplers on the synthetic family: share of a strong reference's hypervolume after N trials.

python tests/benchmarks/samplers.py --sampler model --sampler nsga2 --trials 200 --instances 5

All samplers start from the seeds of a study: the unquantized scheme, each uniform one, 13 knapsack points. The
hypervolume is that of the noise-free outcomes of the schemes that were evaluated; samplers see noisy ones.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume
from optuna.study import StudyDirection
from synthetic_family import FORMATS, REFERENCE_MAP, WORST, Instance, make_instance

from tuner.samplers import make_sampler
from tuner.samplers.acquisition import nondominated
from tuner.samplers.knapsack import knapsack_points
from tuner.samplers.solver import solve
from tuner.study.samplers import SAMPLERS

BUDGETS = (50, 100, 200)


def losses(values: np.ndarray) -> np.ndarray:
    """Outcomes as shares of the reference's, all minimised."""
    found = values.copy()
    found[:, 0] = -found[:, 0] / REFERENCE_MAP
    return found


def volume(values: np.ndarray) -> float:
    """Hypervolume of outcomes of shape ``(n, objectives)``."""
    worst = np.array(WORST[: values.shape[1]])
    worst[0] = -worst[0] / REFERENCE_MAP
    points = losses(values)
    inside = points[(points < worst).all(axis=1)]
    return float(compute_hypervolume(inside, worst)) if len(inside) else 0.0


def strong_reference(instance: Instance, seed: int = 0) -> np.ndarray:
    """Outcomes of a search that sees the truth itself: local search for hundreds of prices, with restarts."""
    draw = np.random.default_rng(seed)
    layers, formats = instance.problem.groups, len(FORMATS)
    costs = len(instance.linear) - 1
    count = 240 if costs == 1 else 500
    prices = np.exp(draw.uniform(np.log(0.01), np.log(10.0), (count, costs)))
    if costs == 2:  # ends of the front: one of the costs alone
        prices[: count // 5, 0], prices[count // 5 : 2 * count // 5, 1] = 1e-4, 1e-4
    unary = (instance.linear[0] + prices @ instance.linear[1:]).reshape(count, layers, formats)
    reformats = prices[:, :1] * instance.reformats
    best = descend(instance, unary, prices[:, 0], solve(instance.problem, unary, reformats))
    kept = [best]
    score = energy(instance, prices, best)
    for _ in range(12):
        # A kick moves a run of neighbours together, for they pay for differing, and a few layers on their own.
        start, length = draw.integers(0, layers, (count, 1)), draw.integers(1, 13, (count, 1))
        position = np.arange(layers)
        run = (position >= start) & (position < start + length)
        kicked = np.where(run, draw.integers(0, formats, (count, 1)), best)
        kicked = np.where(draw.random(best.shape) < 0.02, draw.integers(0, formats, best.shape), kicked)
        tried = descend(instance, unary, prices[:, 0], kicked)
        found = energy(instance, prices, tried)
        best = np.where((found < score)[:, None], tried, best)
        score = np.minimum(found, score)
        kept.append(tried)
    outcomes = instance.truth(np.unique(np.concatenate(kept), axis=0))
    return outcomes[nondominated(losses(outcomes))]


def energy(instance: Instance, prices: np.ndarray, schemes: np.ndarray) -> np.ndarray:
    outcomes = instance.truth(schemes)
    return -np.log(np.maximum(outcomes[:, 0] / REFERENCE_MAP, 1e-9)) + (prices * outcomes[:, 1:]).sum(axis=1)


def descend(instance: Instance, unary: np.ndarray, price: np.ndarray, schemes: np.ndarray) -> np.ndarray:
    """Moves single layers to their best format until nothing gains, for all prices at once."""
    found, rows = schemes.copy(), np.arange(len(schemes))
    formats = len(FORMATS)
    onehot = instance.onehot(found)
    fields = [onehot @ pairs for pairs in instance.pairs]
    for _ in range(20):
        before = found.copy()
        for layer in range(found.shape[1]):
            part = slice(layer * formats, (layer + 1) * formats)
            total = unary[:, layer] + fields[0][:, part] + price[:, None] * fields[1][:, part]
            new = total.argmin(axis=1)
            moved = rows[new != found[:, layer]]
            old_columns, new_columns = layer * formats + found[moved, layer], layer * formats + new[moved]
            for field, pairs in zip(fields, instance.pairs, strict=True):
                field[moved] += pairs[new_columns] - pairs[old_columns]
            found[moved, layer] = new[moved]
        if (found == before).all():
            break
    return found


def run(name: str, instance: Instance, trials: int, seed: int, seeded: bool = True) -> tuple[np.ndarray, float]:
    """Noise-free outcomes of the evaluated schemes, in order, and the seconds of all asks together."""
    problem = instance.problem
    study = optuna.create_study(
        directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(problem.objectives) - 1)],
        sampler=make_sampler(name, problem, seed),
    )
    if seeded:
        groups = problem.groups
        uniform = [np.full(groups, index) for index in range(len(FORMATS))]
        for scheme in [*uniform, *knapsack_points(problem, 13)]:
            study.enqueue_trial(problem.decode(scheme))
    schemes, seconds = [], 0.0
    for _ in range(trials):
        started = time.perf_counter()
        trial = study.ask()
        assert isinstance(trial.relative_params, dict)
        choices = {group: trial.suggest_categorical(group, names) for group, names in problem.parameters.items()}
        scheme = problem.encode(choices)
        study.tell(trial, instance.measure(scheme).tolist())
        seconds += time.perf_counter() - started
        schemes.append(scheme)
    return instance.truth(np.array(schemes)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", action="append", choices=SAMPLERS.names(), help="default: all")
    parser.add_argument("--trials", type=int, default=max(BUDGETS))
    parser.add_argument("--instances", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first instance")
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--correlation", type=float, default=0.8, help="Spearman of the prior")
    parser.add_argument("--objectives", type=int, default=2, choices=(2, 3))
    parser.add_argument("--unseeded", action="store_true", help="without the seeds of a study")
    parser.add_argument("--out", type=Path, help="writes the curves as JSON")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    budgets = [budget for budget in BUDGETS if budget <= options.trials] or [options.trials]
    curves: dict[str, list[list[float]]] = {}
    for seed in range(options.first, options.first + options.instances):
        instance = make_instance(seed, options.layers, options.correlation, options.objectives)
        best = strong_reference(instance)
        print(f"instance {seed}: prior Spearman {instance.correlation:.2f}, reference {volume(best):.4f}", flush=True)
        for name in options.sampler or SAMPLERS.names():
            outcomes, seconds = run(name, instance, options.trials, seed, not options.unseeded)
            full = volume(best)
            curve = [volume(outcomes[: n + 1]) / full for n in range(0, options.trials)]
            curves.setdefault(name, []).append(curve)
            shares = " ".join(f"{budget}: {curve[budget - 1]:.3f}" for budget in budgets)
            print(f"  {name:12} {shares}   {seconds / options.trials:.2f} s a trial", flush=True)
    print("\n| sampler | " + " | ".join(f"{budget} trials" for budget in budgets) + " |")
    print("| --- |" + " --- |" * len(budgets))
    for name, found in curves.items():
        columns = np.array(found)[:, [budget - 1 for budget in budgets]]
        cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(columns.mean(0), columns.std(0), strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if options.out:
        options.out.write_text(json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, "curves": curves}))


if __name__ == "__main__":
    main()
