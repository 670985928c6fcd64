"""What a search begins with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from objectives.objective import LATENCY_MS, MAP_50_95
from search_spaces.costs import CostTable
from search_spaces.groups import Group
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable
from search_spaces.space import SearchSpace
from tuner.samplers.opening import knapsack_opening, taught_opening, uniform_opening
from tuner.samplers.problem import Measured, Problem, build_problem

NAMES = tuple(f"layer{index}" for index in range(20))
FORMATS = ("fp16", "int8", "w8a16", "w4a16", "fp8")
HARM = {"fp16": 0.0, "int8": 1.0, "w8a16": 0.5, "w4a16": 4.0, "fp8": 2.0}
TIME = {"fp16": 1.0, "int8": 0.5, "w8a16": 0.9, "w4a16": 0.9, "fp8": 0.5}


def problem() -> Problem:
    space = SearchSpace(tuple(Group(n, (n,)) for n in NAMES), (FORMATS,) * len(NAMES), NAMES)
    times = CostTable("ms", {(n, f): TIME[f] * (1 + i) for i, n in enumerate(NAMES) for f in FORMATS}, "test")
    entries = tuple(SensitivityEntry(n, f, HARM[f] / (1 + i)) for i, n in enumerate(NAMES) for f in FORMATS)
    harm = SensitivityTable("file", "test", "", 1, entries)
    objectives = [(MAP_50_95, 0.5, None), (LATENCY_MS, 210.0, times)]
    return build_problem(space, objectives, sensitivity=harm)


def test_only_a_sampler_that_learns_from_the_priors_begins_with_few() -> None:
    found = problem()
    uniform = [np.full(len(NAMES), index) for index in range(1, len(FORMATS))]
    assert uniform_opening(found, "nsga2", uniform) == [0, 1, 2, 3]
    # w4a16 is as slow as w8a16 and fp8 as fast as int8, and both do more harm.
    assert uniform_opening(found, "model", uniform) == [0, 1]
    assert uniform_opening(found, "model", uniform[:3]) == [0, 1, 2]
    assert len(knapsack_opening(found, "model")) <= 4 < 10 < len(knapsack_opening(found, "tpe"))


def test_what_is_taught_is_begun_with_by_what_it_adds() -> None:
    """Half of the layers lose half the accuracy in int8: the best mix comes first, what adds nothing is left out."""
    fragile = np.arange(len(NAMES)) % 2 == 0
    harm = np.zeros((len(NAMES), len(FORMATS)))
    harm[:, 1] = np.where(fragile, 0.07, 0.0005)
    harm[:, 2:] = [0.05, 0.2, 0.2]
    known = replace(problem(), harm=harm, taught=True)
    assert len(knapsack_opening(known, "model")) > 4
    mixed = np.where(fragile, 0, 1)
    schemes = [np.full(len(NAMES), 0), np.full(len(NAMES), 3), np.full(len(NAMES), 1), np.full(len(NAMES), 4), mixed]
    order = taught_opening(known, schemes)
    assert order[:2] == [0, 4]
    assert 1 not in order  # slower and less accurate than the mix


def test_what_an_earlier_search_measured_counts_for_more_than_what_priors_expect() -> None:
    known = replace(problem(), taught=True, harm=np.array([[0.0, 0.01, 0.01, 0.2, 0.2]] * len(NAMES)))
    int8, w8a16 = (np.full(len(NAMES), index) for index in (1, 2))
    schemes = [np.full(len(NAMES), 0), int8, w8a16]
    assert taught_opening(known, schemes)[:2] == [0, 1]
    spoilt = Measured(tuple(int8.tolist()), (0.4, 0.5))  # int8 broke the model
    assert taught_opening(replace(known, earlier=(spoilt,)), schemes) == [0, 2]
