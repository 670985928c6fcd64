"""The schemes that a study runs before its sampler proposes any."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.formats import UNQUANTIZED
from search_spaces.priors import ladders
from tuner.prepare.prepared import PreparedStudy
from tuner.samplers.opening import all_uniform, knapsack_opening, learns, taught_opening, uniform_opening
from tuner.samplers.problem import Problem
from tuner.study.inputs import Inputs
from tuner.study.run_folder import read_json

#: ``(origin, {group: format})``.
Seed = tuple[str, dict[str, str]]


def first_seeds(inputs: Inputs) -> list[Seed]:
    """Those with which a study begins whatever is found out about it: they are run before that is.

    Args:
        inputs: The study.

    Returns:
        The reference, and the uniform schemes where priors will not choose among them.
    """
    found = _reference(inputs)
    names = inputs.space.quantized_formats
    if "uniform" in inputs.config.search.seeds and all_uniform(len(names), inputs.config.search.sampler):
        found += _uniforms(inputs, names)
    return _unique(found)


def _unique(seeds: Sequence[Seed]) -> list[Seed]:
    """Each scheme once, by its first origin."""
    unique: dict[tuple[str, ...], Seed] = {}
    for origin, choices in seeds:
        unique.setdefault(tuple(choices.values()), (origin, choices))
    return list(unique.values())


def _reference(inputs: Inputs) -> list[Seed]:
    unquantized = Allocation.uniform(inputs.space.layers, UNQUANTIZED)
    return [("reference", inputs.space.choices(unquantized))] if inputs.space.contains(unquantized) else []


def _uniforms(inputs: Inputs, names: Sequence[str]) -> list[Seed]:
    return [(f"uniform:{name}", inputs.space.project(name)) for name in names]


def _uniform(study: PreparedStudy, problem: Problem) -> list[Seed]:
    """Every quantized format wherever it may stand, but for those that the priors rule out."""
    found = _uniforms(study.inputs, _quantized(problem))
    schemes = [problem.encode(choices) for _, choices in found]
    return [found[index] for index in uniform_opening(problem, study.inputs.config.search.sampler, schemes)]


def _knapsack(study: PreparedStudy, problem: Problem) -> list[Seed]:
    """What the priors alone call optimal."""
    points = knapsack_opening(problem, study.inputs.config.search.sampler)
    return [(f"knapsack:{rank}", problem.decode(scheme)) for rank, scheme in enumerate(points)]


def _ladders(study: PreparedStudy, problem: Problem) -> list[Seed]:
    """Of every quantized format, the K most sensitive layers kept high."""
    space = study.inputs.space
    steps = [seed for name in _quantized(problem) for seed in ladders(space, study.sensitivity, name)]
    return [(seed.origin, space.choices(seed.allocation)) for seed in steps]


def _earlier(problem: Problem) -> list[Seed]:
    """What an earlier study of the same model found good on the same device."""
    return [(f"earlier:{rank}", problem.decode(np.array(each.scheme))) for rank, each in enumerate(problem.earlier)]


def _quantized(problem: Problem) -> list[str]:
    return [name for name in problem.formats if name != UNQUANTIZED]


#: Kinds of seeds that ``search.seeds`` may name, in the order in which they run.
SEEDS: Mapping[str, Callable[[PreparedStudy, Problem], list[Seed]]] = {
    "uniform": _uniform,
    "knapsack": _knapsack,
    "ladders": _ladders,
}


def study_seeds(study: PreparedStudy, problem: Problem) -> list[Seed]:
    """Returns ``(origin, choices)``: the reference, then what ``search.seeds`` names, each scheme once.

    They are kept in the run folder: the prior holds measured times, so a second look would choose others.

    Args:
        study: What was found out about it beforehand.
        problem: Its search.
    """
    path = study.run.seeds
    if path.exists():
        kept = read_json(path, list[Seed])
        for origin, choices in kept:
            study.inputs.space.check(choices, f"{path}: {origin!r}", "delete it: they are chosen anew")
        return kept
    wanted = study.inputs.config.search.seeds
    found = _reference(study.inputs)
    for kind, make in SEEDS.items():
        if kind in wanted:
            found += make(study, problem)
    taught = problem.taught and learns(study.inputs.config.search.sampler)
    if taught:
        found += _earlier(problem)
    seeds = _unique(found)
    if taught:
        order = taught_opening(problem, [problem.encode(choices) for _, choices in seeds])
        seeds = [seeds[index] for index in order]
    write_durably(path, json.dumps(seeds))
    return seeds
