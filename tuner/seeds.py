"""The schemes that a study runs before its sampler proposes any."""

from __future__ import annotations

from search_spaces.allocation import Allocation
from search_spaces.formats import UNQUANTIZED
from tuner.workbench import Workbench


def study_seeds(workbench: Workbench) -> list[tuple[str, dict[str, str]]]:
    """Returns ``(origin, choices)``: the reference, each uniform format, then what the prior suggests.

    Args:
        workbench: Measures the prior where that was not done yet.
    """
    space = workbench.inputs.space
    found: list[tuple[str, dict[str, str]]] = []
    unquantized = Allocation.uniform(space.layers, UNQUANTIZED)
    if space.contains(unquantized):
        found.append(("reference", space.choices(unquantized)))
    formats = dict.fromkeys(name for names in space.formats for name in names)
    found += [(f"uniform:{name}", space.project(name)) for name in formats if name != UNQUANTIZED]
    found += [(seed.origin, space.choices(seed.allocation)) for seed in prior_seeds(workbench)]
    return found
