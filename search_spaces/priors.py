"""Seeds: allocations that a sensitivity table and a cost table suggest before anything was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable
from search_spaces.formats import UNQUANTIZED
from search_spaces.groups import Group
from search_spaces.sensitivity import SensitivityTable
from search_spaces.space import SearchSpace

KNAPSACK_POINTS = 13
LADDER_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5)


@dataclass(frozen=True)
class Seed:
    """An allocation and where it comes from.

    Attributes:
        origin: ``ladder:int8:20`` or ``knapsack:3``.
        allocation: The scheme.
    """

    origin: str
    allocation: Allocation


def seeds(
    space: SearchSpace, table: SensitivityTable, costs: CostTable, extra_costs: Sequence[CostTable] = ()
) -> list[Seed]:
    """Returns knapsack points, then ladders, without duplicates, in the order to run.

    Args:
        space: What may be chosen.
        table: How much each choice hurts.
        costs: What each choice costs on the target.
        extra_costs: Further cost tables, e.g. bytes; each adds a knapsack frontier of its own.
    """
    found = knapsack(space, table, costs)
    for index, other in enumerate(extra_costs):
        prefix = f"knapsack-{other.unit}" if other.unit != costs.unit else f"knapsack-{index}"
        found += [
            Seed(seed.origin.replace("knapsack", prefix), seed.allocation) for seed in knapsack(space, table, other)
        ]
    formats = dict.fromkeys(name for names in space.formats for name in names if name != UNQUANTIZED)
    for fmt in formats:
        found += ladders(space, table, fmt)
    unique: dict[str, Seed] = {}
    for seed in found:
        unique.setdefault(seed.allocation.digest, seed)
    return list(unique.values())


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


def knapsack(
    space: SearchSpace, table: SensitivityTable, costs: CostTable, points: int = KNAPSACK_POINTS
) -> list[Seed]:
    """Points of the predicted frontier of total score against total cost, evenly spaced in cost.

    Both totals are sums over groups, so the frontier's convex hull is found exactly by Lagrange multipliers: each
    group takes the format with the least ``score + price x cost``, for prices from 0 to infinity (Everett, 1963).

    Args:
        space: What may be chosen.
        table: Scores.
        costs: Costs.
        points: Number of points wanted; fewer come back where the hull has fewer.
    """
    score = [[_group_score(table, g, f) for f in names] for g, names in _choices(space)]
    price_of = [[sum(costs.cost(layer, f) for layer in g.layers) for f in names] for g, names in _choices(space)]
    hull: dict[tuple[int, ...], float] = {}
    for price in _prices(score, price_of):
        chosen = tuple(
            min(range(len(s)), key=lambda i, s=s, c=c: (s[i] + price * c[i], c[i]))  # type: ignore[misc]
            for s, c in zip(score, price_of, strict=True)
        )
        hull[chosen] = sum(c[i] for c, i in zip(price_of, chosen, strict=True))
    ordered = sorted(hull, key=lambda chosen: hull[chosen])
    totals = np.array([hull[chosen] for chosen in ordered])
    targets = np.linspace(totals[0], totals[-1], points)
    picked = dict.fromkeys(int(np.abs(totals - target).argmin()) for target in targets)
    found = []
    for rank, index in enumerate(picked):
        named = zip(_choices(space), ordered[index], strict=True)
        allocation = space.allocation({group.name: names[i] for (group, names), i in named})
        found.append(Seed(f"knapsack:{rank}", allocation))
    return found


def _choices(space: SearchSpace) -> list[tuple[Group, tuple[str, ...]]]:
    return list(zip(space.groups, space.formats, strict=True))


def _group_score(table: SensitivityTable, group: Group, fmt: str) -> float:
    return sum(table.score(layer, fmt) for layer in group.layers)


def _prices(score: list[list[float]], cost: list[list[float]]) -> list[float]:
    """All prices at which some group changes its format, and one below and above them."""
    ratios = {
        (s[i] - s[j]) / (c[j] - c[i])
        for s, c in zip(score, cost, strict=True)
        for i in range(len(s))
        for j in range(len(s))
        if c[j] > c[i] and s[i] > s[j]
    }
    ordered = sorted(ratios)
    if not ordered:
        return [0.0, 1.0]
    middles = [(low * high) ** 0.5 for low, high in zip(ordered, ordered[1:], strict=False)]
    return [0.0, ordered[0] / 2, *middles, 2 * ordered[-1]]
