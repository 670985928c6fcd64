"""A study as its sampler sees it: priors, layer graph, and the objectives with their bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from objectives.objective import Objective
from objectives.scores import Scores
from search_spaces.costs import CostTable
from search_spaces.unsupported import Unsupported
from tuner.prepare.prepared import PreparedStudy
from tuner.samplers.problem import Problem, build_problem
from tuner.transfer.keys import GroupKeys
from tuner.transfer.prior import transferred


def study_problem(study: PreparedStudy, reference: Scores, blocked: Unsupported | None = None) -> Problem:
    """Returns the problem of a run, with the priors that earlier studies taught.

    Args:
        study: What was found out about it beforehand.
        reference: Scores of the unquantized model.
        blocked: Pairs that the target cannot build; by default those that probing found.
    """
    own = own_problem(study, reference, blocked)
    return transferred(own, study.knowledge, GroupKeys.of(study.inputs.graph, study.inputs.space))


def own_problem(study: PreparedStudy, reference: Scores, blocked: Unsupported | None = None) -> Problem:
    """`study_problem` by the study's own preparations alone."""
    config, graph = study.inputs.config, study.inputs.graph
    wanted = config.objective_set.against(reference)
    layers = {layer.name: layer for layer in graph.quantizable}
    return build_problem(
        study.inputs.space,
        [(o, o.value(reference), _prior(o, study, reference)) for o in (*wanted.objectives, *wanted.bounded)],
        sensitivity=study.sensitivity,
        edges=graph.edges,
        elements={name: int(np.prod(layer.output_shape)) for name, layer in layers.items()},
        blocks={name: layer.block for name, layer in layers.items()},
        bounds=wanted.bounds,
        bounded=wanted.bounded,
        reformat=study.inputs.runtime.reformat_share,
        blocked=study.unsupported if blocked is None else blocked,
    )


def _prior(objective: Objective, study: PreparedStudy, reference: Scores) -> CostTable | None:
    """The prior of a cost; the accuracy's are the sensitivities."""
    if objective.accuracy:
        return None
    table = study.costs[objective.prior]
    return replace(table, whole=float(reference.size.weight_bytes)) if objective.prior == "weights" else table
