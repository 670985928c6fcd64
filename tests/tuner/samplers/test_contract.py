"""What every sampler of the table promises, those of other packages included."""

from __future__ import annotations

from itertools import pairwise

import optuna
import pytest
from optuna.trial import TrialState

from objectives.objective import LATENCY_MS, MAP_50_95, WEIGHT_MIB
from objectives.scores import FirstLook, Screened, Size
from search_spaces.costs import CostTable
from search_spaces.groups import Group
from search_spaces.space import SearchSpace
from search_spaces.unsupported import Unsupported
from tuner.samplers import make_sampler
from tuner.samplers.optuna_compat import propose
from tuner.samplers.problem import Problem, build_problem
from tuner.study.samplers import SAMPLERS

FORMATS = ("fp16", "int8", "w4a16")
NAMES = tuple(f"layer{index}" for index in range(8))
#: The last layer has no choice.
SPACE = SearchSpace(tuple(Group(n, (n,)) for n in NAMES), (FORMATS,) * 7 + (("int8",),), NAMES)
TIMES = CostTable("ms", {(n, f): 1.0 if f == "fp16" else 0.0 for n in NAMES for f in FORMATS}, "test", 2.0)
BITS = {"fp16": 16.0, "int8": 8.0, "w4a16": 4.0}
BYTES = CostTable("bytes", {(n, f): BITS[f] for n in NAMES for f in FORMATS}, "test")
OBJECTIVES = ((MAP_50_95, 1.0, None), (LATENCY_MS, 10.0, TIMES), (WEIGHT_MIB, 16.0 * len(NAMES), BYTES))
BLOCKED = Unsupported({}).with_pair("layer2", "int8", "no kernel").with_pair("layer5", "w4a16", "no kernel")

every_sampler = pytest.mark.parametrize("name", SAMPLERS.names())
two_or_three = pytest.mark.parametrize("objectives", [2, 3])


def problem(objectives: int = 2, blocked: Unsupported | None = None) -> Problem:
    return build_problem(SPACE, OBJECTIVES[:objectives], edges=list(pairwise(NAMES)), blocked=blocked)


def new_study(name: str, objectives: int = 2, seed: int = 0, blocked: Unsupported | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pairs = blocked or Unsupported({})
    known = problem(objectives, blocked)
    sampler = make_sampler(name, known, seed, repair=lambda choices: pairs.repair(SPACE, choices))
    study = optuna.create_study(directions=["maximize", *["minimize"] * (objectives - 1)], sampler=sampler)
    for pinned in range(4):
        study.enqueue_trial({n: "int8" if i >= 7 - pinned else "fp16" for i, n in enumerate(NAMES)})
    return study


def ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, str]]:
    trial = study.ask()
    propose(trial)
    return trial, {n: trial.suggest_categorical(n, f) for n, f in SPACE.parameters().items()}


def values(params: dict[str, str], objectives: int) -> list[float]:
    cheap = sum(fmt != "fp16" for fmt in params.values())
    harm = sum((index + 1) * (fmt != "fp16") for index, fmt in enumerate(params.values()))
    return [1 - 0.01 * harm, 10.0 - cheap, sum(BITS[fmt] for fmt in params.values())][:objectives]


def run(study: optuna.Study, count: int) -> list[dict[str, str]]:
    """Asks for `count` schemes and tells their values; returns the schemes."""
    found = []
    for _ in range(count):
        trial, params = ask(study)
        study.tell(trial, values(params, len(study.directions)))
        found.append(params)
    return found


def screened() -> Screened:
    look = FirstLook("leader", 16, 32, -0.1, -0.05, 0.99, 0.4)
    return Screened(look=look, latency=None, size=Size(100, 8.0, 100), latency_ms=5.0, agreement=0.9, artifact="")


@every_sampler
@two_or_three
def test_proposes_new_schemes_of_allowed_choices_alone(name: str, objectives: int) -> None:
    found = run(new_study(name, objectives), 40)
    assert all(params[n] in names for params in found for n, names in SPACE.parameters().items())
    assert len({tuple(params.values()) for params in found}) == len(found)


@every_sampler
@two_or_three
def test_equal_seeds_propose_equal_schemes(name: str, objectives: int) -> None:
    first, second = (run(new_study(name, objectives, seed=3), 20) for _ in range(2))
    assert first == second
    if name != "knapsack":  # its points are no random choice
        assert run(new_study(name, objectives, seed=4), 20) != first


@every_sampler
@two_or_three
def test_goes_on_beside_failed_screened_running_and_cut_short_trials(name: str, objectives: int) -> None:
    study = new_study(name, objectives)
    held = [tuple(params.values()) for params in run(study, 6)]
    for state in (TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING):
        trial, params = ask(study)
        held.append(tuple(params.values()))
        if state is TrialState.PRUNED:
            trial.set_user_attr("screened", screened().to_json())
        if state.is_finished():
            study.tell(trial, state=state)
    study.ask()  # its worker died before it chose
    held += [tuple(params.values()) for params in run(study, 8)]
    assert len(set(held)) == len(held)


@every_sampler
@two_or_three
def test_proposes_no_pair_that_the_target_cannot_build(name: str, objectives: int) -> None:
    proposed = run(new_study(name, objectives, blocked=BLOCKED), 24)[4:]  # the first were queued
    assert all(params["layer2"] != "int8" and params["layer5"] != "w4a16" for params in proposed)


@every_sampler
def test_needs_no_trial_to_begin(name: str) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, problem(), 0))
    assert len({tuple(params.values()) for params in run(study, 3)}) == 3


@pytest.mark.parametrize("odd", ["x", 7, {}, {"shrink": "x"}, [None]], ids=str)
def test_knobs_of_a_damaged_storage_are_passed_over(odd: object) -> None:
    study = new_study("lowdim-tpe")
    for _ in range(8):
        trial, params = ask(study)
        study.tell(trial, values(params, 2))
    again = new_study("lowdim-tpe")
    for trial in study.trials:
        attrs = {key: odd if key == "lowdim:knobs" else kept for key, kept in trial.system_attrs.items()}
        facts = {"params": trial.params, "distributions": trial.distributions, "system_attrs": attrs}
        again.add_trial(optuna.trial.create_trial(values=trial.values, **facts))
    for _ in range(6):
        trial, params = ask(again)
        again.tell(trial, values(params, 2))
    assert sum("lowdim:knobs" in trial.system_attrs for trial in study.trials) == 4  # those that were drawn
