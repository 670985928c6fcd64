"""A study as its sampler sees it: priors, layer graph, and the objectives with their bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from objectives.scores import Scores
from search_spaces.costs import CostTable, weight_costs
from search_spaces.formats import UNQUANTIZED
from search_spaces.unsupported import Blocked
from tuner.prepare.workbench import Workbench
from tuner.samplers.problem import Problem, build_problem, reformat_share
from tuner.search.front import reference_point
from tuner.search.trials import objective_values
from tuner.study.config import ConstraintsSection


def study_problem(workbench: Workbench, reference: Scores, blocked: Blocked | None = None) -> Problem:
    """Returns the problem of a run.

    Args:
        workbench: Measures the priors where that was not done yet.
        reference: Scores of the unquantized model.
        blocked: Pairs that the target cannot build.
    """
    config, graph = workbench.inputs.config, workbench.inputs.graph
    names = list(config.objectives)
    # Of what is no objective only the size is known of every trial.
    bounds = _bounds(config.constraints)
    bounded = [name for name in bounds if name not in names and name == "weight_mib"]
    layers = {layer.name: layer for layer in graph.quantizable}
    return build_problem(
        workbench.inputs.space,
        [_objective(name, workbench, reference) for name in [*names, *bounded]],
        sensitivity=workbench.sensitivity,
        edges=graph.edges,
        elements={name: int(np.prod(layer.output_shape)) for name, layer in layers.items()},
        blocks={name: layer.block for name, layer in layers.items()},
        bounds=bounds,
        bounded=bounded,
        reformat=reformat_share(config.runtime.name),
        blocked=blocked,
    )


def _objective(name: str, workbench: Workbench, reference: Scores) -> tuple[str, float, float, CostTable | None]:
    """Name, the reference's value, the worst value that counts, and the prior of a cost."""
    value = objective_values(reference, [name])[0]
    worst = value * reference_point([name])[0]
    if name == "map_50_95":
        return name, value, worst, None
    return name, value, worst, workbench.costs if name == "latency_ms" else _weights(workbench, reference)


def _weights(workbench: Workbench, reference: Scores) -> CostTable:
    """Bytes of every choice; of the artifacts where there are any, so that nothing is left to learn."""
    graph, space = workbench.inputs.graph, workbench.inputs.space
    table = replace(weight_costs(graph.layers), whole=float(reference.size.weight_bytes))
    if workbench.inputs.config.replayed:
        return table
    bytes_of, layers = workbench.materializer.layer_bytes, {layer.name: layer for layer in graph.layers}
    exact = {
        (layer, name): float(bytes_of(layers[layer], name))
        for group, names in zip(space.groups, space.formats, strict=True)
        for layer in group.layers
        for name in names
    }
    fixed = sum(bytes_of(layer, UNQUANTIZED) for layer in graph.layers if not layer.quantizable)
    return replace(table, costs={**table.costs, **exact}, source="artifacts", fixed=fixed)


def _bounds(constraints: ConstraintsSection) -> dict[str, float]:
    found = {
        "map_50_95": constraints.min_map,
        "latency_ms": constraints.max_latency_ms,
        "weight_mib": constraints.max_weight_mib,
    }
    return {name: value for name, value in found.items() if value is not None}
