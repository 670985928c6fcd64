"""Ladders: allocations that a sensitivity table alone suggests."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.allocation import Allocation
from search_spaces.groups import Group
from search_spaces.sensitivity import SensitivityTable
from search_spaces.space import SearchSpace

LADDER_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5)


@dataclass(frozen=True)
class Seed:
    """An allocation and where it comes from.

    Attributes:
        origin: ``ladder:int8:20``.
        allocation: The scheme.
    """

    origin: str
    allocation: Allocation


def ladders(space: SearchSpace, table: SensitivityTable, fmt: str) -> list[Seed]:
    """Top-K ladders: everything in `fmt`, but the K most sensitive groups in the best format each may take.

    Args:
        space: What may be chosen.
        table: Ranks the groups by their score in `fmt`.
        fmt: The format of all other groups.
    """
    base = space.project(fmt)
    score = {group.name: _group_score(table, group, base[group.name]) for group in space.groups}
    order = sorted(score, key=lambda name: -score[name])
    best = {
        group.name: min(names, key=lambda name, g=group: _group_score(table, g, name))  # type: ignore[misc]
        for group, names in zip(space.groups, space.formats, strict=True)
    }
    found = []
    for share in LADDER_SHARES:
        count = max(1, round(share * len(order)))
        choices = {**base, **{name: best[name] for name in order[:count]}}
        found.append(Seed(f"ladder:{fmt}:{count}", space.allocation(choices)))
    return found


def _group_score(table: SensitivityTable, group: Group, fmt: str) -> float:
    return sum(table.score(layer, fmt) for layer in group.layers)
