"""The sampler in anyone's Optuna study, over a plain table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pytest

from search_spaces.errors import InputError
from tuner.samplers import ModelGuidedSampler
from tuner.samplers.optuna_compat import hypervolume

LAYERS = 24
CHOICES = ("whole", 8, 4)  # any of Optuna's kinds
optuna.logging.set_verbosity(optuna.logging.WARNING)


def world(
    seed: int,
) -> tuple[dict[str, dict[object, tuple[float, float]]], Callable[[optuna.Trial], tuple[float, float]]]:
    """A table, and an objective that its figures rank well but do not give."""
    random = np.random.default_rng(seed)
    hurt = np.exp(random.normal(0, 1.5, LAYERS))[:, None] * np.array([0, 0.002, 0.012])
    cost = random.uniform(0.5, 2, LAYERS)[:, None] * np.array([4.0, 2.0, 1.2])
    noisy = hurt * np.exp(random.normal(0, 0.3, hurt.shape))
    names = [f"layer {index}" for index in range(LAYERS)]
    table = {
        name: {choice: (noisy[row, column], cost[row, column]) for column, choice in enumerate(CHOICES)}
        for row, name in enumerate(names)
    }

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        columns = [CHOICES.index(trial.suggest_categorical(name, CHOICES)) for name in names]
        rows = np.arange(LAYERS)
        return float(0.5 * np.exp(-hurt[rows, columns].sum())), float(cost[rows, columns].sum() + 3)

    return table, objective


def searched(sampler: optuna.samplers.BaseSampler, objective: Callable, trials: int) -> float:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.enqueue_trial({f"layer {index}": "whole" for index in range(LAYERS)})
    study.optimize(objective, n_trials=trials)
    whole = study.trials[0].values
    points = [(-t.values[0] / whole[0], t.values[1] / whole[1]) for t in study.trials]
    assert len({tuple(t.params.values()) for t in study.trials}) == trials, "a scheme was proposed twice"
    return float(hypervolume(points, np.array([-0.5, 1.1])))


@pytest.mark.parametrize("known", ["priors", "nothing"])
def test_it_beats_random_search_with_priors_and_without(known: str) -> None:
    table, objective = world(3)
    trials = 24 if known == "priors" else 40
    given = table if known == "priors" else {name: CHOICES for name in table}
    ours = searched(ModelGuidedSampler.from_table(given, seed=1), objective, trials)
    others = [searched(optuna.samplers.RandomSampler(seed), objective, trials) for seed in range(3)]
    assert ours > max(others) + 0.02, (ours, others)


def test_a_study_may_hold_other_parameters_and_several_costs() -> None:
    table, objective = world(1)
    two = {name: {c: (s, (cost, 1.0)) for c, (s, cost) in choices.items()} for name, choices in table.items()}

    def three(trial: optuna.Trial) -> tuple[float, float, float]:
        accuracy, cost = objective(trial)
        return cost, accuracy, trial.suggest_float("width", 1.0, 2.0) + trial.suggest_int("depth", 1, 3)

    sampler = ModelGuidedSampler.from_table(two, accuracy=1, bounds=[None, 0.3, None], seed=2)
    study = optuna.create_study(directions=["minimize", "maximize", "minimize"], sampler=sampler)
    study.optimize(three, n_trials=8)
    assert len({trial.params["width"] for trial in study.trials}) > 1
    kept = [trial.values[1] >= 0.3 for trial in study.trials[2:]]
    assert np.mean(kept) > 0.5


def test_a_data_frame_is_a_table_too() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table, objective = world(2)
    rows = [(n, c, s, k) for n, choices in table.items() for c, (s, k) in choices.items()]
    rows[3] = (*rows[3][:2], float("nan"), rows[3][3])
    frame = pandas.DataFrame(rows, columns=["layer", "choice", "sensitivity", "cost"])
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ModelGuidedSampler.from_table(frame, reference=(0.5, 120.0))
    )
    study.optimize(objective, n_trials=4)
    assert len(study.trials) == 4


@pytest.mark.parametrize(
    ("table", "arguments", "part"),
    [
        ({}, {}, "table: is empty"),
        ({"a": {}}, {}, "'a' has no choice"),
        ({"a": {1: (0.0, 1.0), 2: (-1.0, 1.0)}}, {}, "'a', 2: .* numbers from 0 on"),
        ({"a": {1: (0.0, float("nan"))}}, {}, "numbers from 0 on"),
        ({"a": {1: 0.5}}, {}, r"'a', 1: 0.5; give \(sensitivity, cost\)"),
        ({"a": {1: (0.5, 1.0, 2.0)}}, {}, r"give \(sensitivity, cost\)"),
        ({"a": {1: ("high", 1.0)}}, {}, r"give \(sensitivity, cost\)"),
        ({"a": {1: ((0.1, 0.2), 1.0)}}, {}, r"give \(sensitivity, cost\)"),
        ({"a": {1: (0.0, 1.0), 2: (0.0, (1.0, 2.0))}}, {}, "1 and 2 costs"),
        ({"a": [1, 2]}, {"accuracy": 2}, "accuracy 2: the study has values 0 to 1"),
        ({"a": [1, 2]}, {"reference": [1.0]}, "reference: 1 values; the study has 2"),
        ({"a": [1, 2]}, {"reference": [0.0, 1.0]}, "must be positive"),
        ({"a": [1, 2]}, {"neighbours": [("a", "b")]}, "'b' is no layer"),
    ],
)
def test_mistakes_are_one_line(table: dict, arguments: dict, part: str) -> None:
    with pytest.raises(InputError, match=part):
        ModelGuidedSampler.from_table(table, **arguments)


def test_a_study_of_other_directions_is_refused() -> None:
    study = optuna.create_study(direction="minimize", sampler=ModelGuidedSampler.from_table({"a": [1, 2]}))
    with pytest.raises(InputError, match=r"directions are \['minimize'\].*needs \['maximize', 'minimize'\]"):
        study.optimize(lambda trial: trial.suggest_categorical("a", [1, 2]), n_trials=1)
