"""The schemes that a study runs before its sampler proposes any."""

from __future__ import annotations

import json

from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.formats import UNQUANTIZED
from search_spaces.priors import ladders
from tuner.prepare.prepared import PreparedStudy
from tuner.samplers.knapsack import knapsack_points
from tuner.samplers.problem import Problem
from tuner.study.run_folder import read_json

KNAPSACK_POINTS = 13


def study_seeds(study: PreparedStudy, problem: Problem) -> list[tuple[str, dict[str, str]]]:
    """Returns ``(origin, choices)``: the reference, then what ``search.seeds`` names, each scheme once.

    They are kept in the run folder: the prior holds measured times, so a second look would choose others.

    Args:
        study: What was found out about it beforehand.
        problem: Its search.
    """
    path = study.run.seeds
    if path.exists():
        return read_json(path, list[tuple[str, dict[str, str]]])
    space, wanted = study.inputs.space, study.inputs.config.search.seeds
    found: list[tuple[str, dict[str, str]]] = []
    unquantized = Allocation.uniform(space.layers, UNQUANTIZED)
    if space.contains(unquantized):
        found.append(("reference", space.choices(unquantized)))
    formats = [name for name in problem.formats if name != UNQUANTIZED]
    if "uniform" in wanted:
        found += [(f"uniform:{name}", space.project(name)) for name in formats]
    if "knapsack" in wanted:
        points = knapsack_points(problem, KNAPSACK_POINTS)
        found += [(f"knapsack:{rank}", problem.decode(scheme)) for rank, scheme in enumerate(points)]
    if "ladders" in wanted:
        steps = [seed for name in formats for seed in ladders(space, study.sensitivity, name)]
        found += [(seed.origin, space.choices(seed.allocation)) for seed in steps]
    unique: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
    for origin, choices in found:
        unique.setdefault(tuple(choices.values()), (origin, choices))
    seeds = list(unique.values())
    write_durably(path, json.dumps(seeds))
    return seeds
