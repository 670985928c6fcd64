"""The schemes that a study runs before its sampler proposes any."""

from __future__ import annotations

import json

from search_spaces.allocation import Allocation
from search_spaces.costs import weight_costs
from search_spaces.formats import UNQUANTIZED
from search_spaces.priors import seeds
from tuner.run_folder import read_json, write_durably
from tuner.workbench import Workbench


def study_seeds(workbench: Workbench) -> list[tuple[str, dict[str, str]]]:
    """Returns ``(origin, choices)``: the reference, each uniform format, then what the prior suggests.

    They are kept in the run folder: the prior holds measured times, so a second look would choose others.

    Args:
        workbench: Measures the prior where that was not done yet.
    """
    path = workbench.run.seeds
    if path.exists():
        return read_json(path, list[tuple[str, dict[str, str]]])
    space = workbench.inputs.space
    found: list[tuple[str, dict[str, str]]] = []
    unquantized = Allocation.uniform(space.layers, UNQUANTIZED)
    if space.contains(unquantized):
        found.append(("reference", space.choices(unquantized)))
    formats = dict.fromkeys(name for names in space.formats for name in names)
    found += [(f"uniform:{name}", space.project(name)) for name in formats if name != UNQUANTIZED]
    config = workbench.inputs.config
    both = {"latency_ms", "weight_mib"} <= set(config.objectives)
    extra = [weight_costs(workbench.inputs.graph.layers)] if both else []
    prior = seeds(space, workbench.sensitivity, workbench.costs, extra)
    found += [(seed.origin, space.choices(seed.allocation)) for seed in prior]
    write_durably(path, json.dumps(found))
    return found
