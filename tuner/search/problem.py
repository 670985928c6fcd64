"""A study as its sampler sees it: priors, layer graph, and the objectives with their bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from objectives.scores import Scores
from search_spaces.costs import CostTable
from search_spaces.unsupported import Unsupported
from tuner.prepare.prepared import PreparedStudy
from tuner.samplers.problem import Problem, build_problem, reformat_share
from tuner.search.front import reference_point
from tuner.search.trials import objective_values
from tuner.study.config import ConstraintsSection


def study_problem(study: PreparedStudy, reference: Scores, blocked: Unsupported | None = None) -> Problem:
    """Returns the problem of a run.

    Args:
        study: What was found out about it beforehand.
        reference: Scores of the unquantized model.
        blocked: Pairs that the target cannot build; by default those that probing found.
    """
    config, graph = study.inputs.config, study.inputs.graph
    names = list(config.objectives)
    # Of what is no objective only the size is known of every trial.
    bounds = _bounds(config.constraints)
    bounded = [name for name in bounds if name not in names and name == "weight_mib"]
    layers = {layer.name: layer for layer in graph.quantizable}
    return build_problem(
        study.inputs.space,
        [_objective(name, study, reference) for name in [*names, *bounded]],
        sensitivity=study.sensitivity,
        edges=graph.edges,
        elements={name: int(np.prod(layer.output_shape)) for name, layer in layers.items()},
        blocks={name: layer.block for name, layer in layers.items()},
        bounds=bounds,
        bounded=bounded,
        reformat=reformat_share(config.runtime.name),
        blocked=study.unsupported if blocked is None else blocked,
    )


def _objective(name: str, study: PreparedStudy, reference: Scores) -> tuple[str, float, float, CostTable | None]:
    """Name, the reference's value, the worst value that counts, and the prior of a cost."""
    value = objective_values(reference, [name])[0]
    worst = value * reference_point([name])[0]
    if name == "map_50_95":
        return name, value, worst, None
    prior = study.costs[name]
    if name == "weight_mib":
        prior = replace(prior, whole=float(reference.size.weight_bytes))
    return name, value, worst, prior


def _bounds(constraints: ConstraintsSection) -> dict[str, float]:
    found = {
        "map_50_95": constraints.min_map,
        "latency_ms": constraints.max_latency_ms,
        "weight_mib": constraints.max_weight_mib,
    }
    return {name: value for name, value in found.items() if value is not None}
