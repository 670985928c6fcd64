from __future__ import annotations

from itertools import pairwise

import optuna
import pytest
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState

from objectives.objective import LATENCY_MS, MAP_50_95
from search_spaces.costs import CostTable
from search_spaces.groups import Group
from search_spaces.space import SearchSpace
from tuner.samplers import make_sampler, optuna_samplers
from tuner.samplers.history import read_history
from tuner.samplers.problem import build_problem

FORMATS = ("fp16", "int8", "w4a16")
NAMES = tuple(f"layer{index}" for index in range(8))
SPACE = SearchSpace(tuple(Group(n, (n,)) for n in NAMES), (FORMATS,) * 7 + (("int8",),), NAMES)
PRIOR = CostTable("ms", {(n, f): 1.0 if f == "fp16" else 0.0 for n in NAMES for f in FORMATS}, "test", 2.0)
PROBLEM = build_problem(
    SPACE,
    [(MAP_50_95, 1.0, None), (LATENCY_MS, 10.0, PRIOR)],
    edges=list(pairwise(NAMES)),
)


def ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, str]]:
    trial = study.ask()
    assert trial.relative_params is not None
    return trial, {n: trial.suggest_categorical(n, f) for n, f in SPACE.parameters().items()}


def values(params: dict[str, str]) -> tuple[float, float]:
    cheap = sum(fmt != "fp16" for fmt in params.values())
    return 1 - 0.01 * sum((i + 1) * (fmt != "fp16") for i, fmt in enumerate(params.values())), 10 - cheap


def run(name: str, count: int, seeds: int = 4, seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, PROBLEM, seed))
    for k in range(seeds):
        study.enqueue_trial({n: "int8" if i >= 7 - k else "fp16" for i, n in enumerate(NAMES)})
    for _ in range(count):
        trial, params = ask(study)
        study.tell(trial, values(params))
    return study


def test_enqueued_schemes_become_parents_of_nsga2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_samplers, "_POPULATION", 4)
    study = run("nsga2", 4)
    key = NSGAIISampler._get_generation_key()
    assert [trial.system_attrs[key] for trial in study.trials] == [0, 0, 0, 0]
    trial, params = ask(study)
    assert study.trials[trial.number].system_attrs[key] == 1
    # A child of ladders that only ever used int8 in the last layers: most genes come from them.
    assert sum(fmt == "w4a16" for fmt in params.values()) <= 3


def test_a_trial_of_too_few_values_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    study = run("random", 5)
    trials = study.get_trials()
    trials[2].values = [0.9]  # what a damaged database may hold
    monkeypatch.setattr(study, "get_trials", lambda deepcopy: trials)
    history = read_history(study, PROBLEM)
    assert len(history.schemes) == len(trials) - 1 and len(history.held) == len(trials)


def test_failed_and_queued_schemes_count_as_held() -> None:
    study = run("random", 3, seeds=2)
    trial, params = ask(study)
    study.tell(trial, state=TrialState.FAIL)
    for _ in range(30):
        other, again = ask(study)
        assert again != params
        study.tell(other, values(again))
