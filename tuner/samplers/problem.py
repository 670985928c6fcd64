"""What a sampler knows before the first trial: choices, priors, the layer graph, and what an objective means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from objectives.objective import Objective
from search_spaces.costs import CostTable
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.groups import Group
from search_spaces.sensitivity import SensitivityTable
from search_spaces.space import SearchSpace
from search_spaces.unsupported import Unsupported

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Prior of one reformat, as a share of the reference's latency, where the runtime says nothing else.
REFORMAT_SHARE = 0.008
#: Prior of a broken fusion, as a share of a reformat.
_FUSION_SHARE = 0.1


@dataclass(frozen=True)
class EdgeCosts:
    """What earlier studies on the device found edges to cost, as shares of the reference's cost.

    Attributes:
        reformats: Of a reformat on each edge, shape ``(edges,)``.
        breaks: Of a broken fusion on each edge, likewise.
    """

    reformats: Floats
    breaks: Floats


@dataclass(frozen=True)
class Target:
    """One objective of the study, with what is known of it before the first trial.

    Attributes:
        name: Of the `objectives.objective.Objective`.
        reference: Its value for the unquantized model.
        worst: Its coordinate of the hypervolume's reference point; a value beyond it gains nothing.
        prior: Of a cost, what each (group, format) is expected to cost as a share of `reference`, shape
            ``(groups, formats)``; None for the accuracy.
        fixed: Of a cost, the share that no choice changes.
        reformat: Of a cost, the prior share that a reformat between neighbouring groups of different number formats
            adds; 0 where it is free.
        bound: The value that a scheme must not be worse than; None where there is none.
        optimised: False for a quantity that is only bounded; the study has no value for it, trials carry it.
        exact: Of a cost, whether `prior` is known rather than expected, as sizes are.
        learned: Of a cost whose `prior` earlier studies on the device corrected, what they found edges to cost.
    """

    name: str
    reference: float
    worst: float
    prior: Floats | None = None
    fixed: float = 0.0
    reformat: float = 0.0
    bound: float | None = None
    optimised: bool = True
    exact: bool = False
    learned: EdgeCosts | None = None

    @property
    def accuracy(self) -> bool:
        """Whether it is the one to be maximised."""
        return self.prior is None


@dataclass(frozen=True)
class Measured:
    """A scheme that an earlier search of the same model found good on the same device.

    Attributes:
        scheme: Format numbers, one for each group.
        shares: Its values over the reference's, one for each objective.
    """

    scheme: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """A categorical search over groups.

    Attributes:
        parameters: ``{group: formats it may take}``, in model order.
        objectives: In the order of the study's values; bounded-only quantities last.
        harm: Prior sensitivity of each (group, format), >= 0 in any unit, shape ``(groups, formats)``; all 1 without
            a prior, 0 for the unquantized format.
        edges: Pairs of neighbouring groups, shape ``(edges, 2)``.
        edge_sizes: Elements that cross each edge, relative to their mean, shape ``(edges,)``.
        domains: Number of the arithmetic that each format computes in, shape ``(formats,)``; a reformat lies between
            two different ones.
        blocks: Number of the module that each group belongs to, shape ``(groups,)``.
        blocked: Pairs ``(group, format)`` that the target cannot build.
        taught: Whether earlier studies taught `harm`: it then is the loss ``-ln(accuracy / reference)`` of each choice.
        earlier: The front of an earlier search.
    """

    parameters: Mapping[str, tuple[str, ...]]
    objectives: tuple[Target, ...]
    harm: Floats
    edges: Ints
    edge_sizes: Floats
    domains: Ints
    blocks: Ints
    blocked: frozenset[tuple[str, str]] = frozenset()
    taught: bool = False
    earlier: tuple[Measured, ...] = ()

    @cached_property
    def formats(self) -> tuple[str, ...]:
        """All formats, in order of first use; columns of every ``(groups, formats)`` array."""
        return format_names(self.parameters)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Which (group, format) may be chosen, shape ``(groups, formats)``."""
        return np.array(
            [
                [name in names and (group, name) not in self.blocked for name in self.formats]
                for group, names in self.parameters.items()
            ]
        )

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.parameters)

    @cached_property
    def _numbers(self) -> Mapping[tuple[str, str], int]:
        """Format numbers of the pairs that the space knows."""
        number = {name: index for index, name in enumerate(self.formats)}
        return {(group, name): number[name] for group, names in self.parameters.items() for name in names}

    def encode(self, choices: Mapping[str, str]) -> Ints:
        """Format numbers of a scheme, shape ``(groups,)``.

        Raises:
            KeyError: A group has no choice, or one that the space does not know.
        """
        numbers = self._numbers
        return np.array([numbers[group, choices[group]] for group in self.parameters], dtype=np.int64)

    def decode(self, scheme: Ints) -> dict[str, str]:
        """``{group: format}`` of format numbers."""
        return {group: self.formats[int(index)] for group, index in zip(self.parameters, scheme, strict=True)}

    def mismatches(self, schemes: Ints) -> Floats:
        """1 where a reformat lies on an edge, shape ``(schemes, edges)``."""
        return self._on_edges(self.reformatted, schemes)

    def breaks(self, schemes: Ints) -> Floats:
        """1 where two different formats of one domain meet on an edge, shape ``(schemes, edges)``."""
        return self._on_edges(self.broken, schemes)

    @cached_property
    def reformatted(self) -> Floats:
        """1 where two formats need a reformat between them, shape ``(formats, formats)``."""
        return np.asarray(self.domains[:, None] != self.domains[None, :], dtype=np.float64)

    @cached_property
    def broken(self) -> Floats:
        """1 where two formats need none, and yet may keep a runtime from fusing, shape ``(formats, formats)``."""
        found: Floats = 1.0 - self.reformatted - np.eye(len(self.domains))
        return found

    def _on_edges(self, table: Floats, schemes: Ints) -> Floats:
        return np.asarray(table[schemes[:, self.edges[:, 0]], schemes[:, self.edges[:, 1]]])


def edge_costs(problem: Problem, objective: Target) -> EdgeCosts:
    """What edges are expected to cost before the first trial.

    A reformat has a part that is equal everywhere (a launch) and one that grows with the tensor.
    """
    if objective.learned is not None:
        return objective.learned
    reformats = objective.reformat * (1 + problem.edge_sizes) / 2
    return EdgeCosts(reformats, _FUSION_SHARE * reformats)


def summed(table: Floats, schemes: Ints) -> Floats:
    """Sum of a table's entries over the choices of each scheme.

    Args:
        table: Shape ``(groups, formats)``.
        schemes: Shape ``(n, groups)``, the format of each group.

    Returns:
        Shape ``(n,)``.
    """
    return np.asarray(table[np.arange(len(table)), schemes].sum(axis=1), np.float64)


def format_names(parameters: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Formats of all groups, in order of first use."""
    return tuple(dict.fromkeys(name for names in parameters.values() for name in names))


def build_problem(
    space: SearchSpace,
    objectives: Sequence[tuple[Objective, float, CostTable | None]],
    *,
    sensitivity: SensitivityTable | None = None,
    edges: Sequence[tuple[str, str]] = (),
    elements: Mapping[str, int] | None = None,
    blocks: Mapping[str, str] | None = None,
    bounds: Mapping[Objective, float] | None = None,
    bounded: Sequence[Objective] = (),
    reformat: float = REFORMAT_SHARE,
    blocked: Unsupported | None = None,
) -> Problem:
    """Brings a study's tables into the shape of a problem.

    Args:
        space: Groups and formats.
        objectives: ``(objective, value of the unquantized model, cost table)``, those that are only bounded last; the
            accuracy has no table.
        sensitivity: The prior of the accuracy; without one every choice counts alike.
        edges: Pairs of neighbouring layers.
        elements: ``{layer: elements of its output}``, which cross its outgoing edges; without it all edges are equal.
        blocks: ``{layer: module}``; without it every group is a block of its own.
        bounds: ``{objective: value that no scheme may be worse than}``.
        bounded: Those of the objectives that are only bounded.
        reformat: Prior share of the latency that one reformat costs.
        blocked: Pairs that the target cannot build.
    """
    parameters = space.parameters()
    names = format_names(parameters)
    group_of = {layer: index for index, group in enumerate(space.groups) for layer in group.layers}
    pairs: dict[tuple[int, int], int] = {}
    for source, target in edges:
        if source in group_of and target in group_of and group_of[source] != group_of[target]:
            key = (group_of[source], group_of[target])
            pairs[key] = pairs.get(key, 0) + (elements or {}).get(source, 1)
    sizes = np.array(list(pairs.values()), dtype=np.float64)
    modules = [(blocks or {}).get(group.layers[0], group.name) for group in space.groups]
    numbers = {module: index for index, module in enumerate(dict.fromkeys(modules))}
    domains = {number: index for index, number in enumerate(dict.fromkeys(_domain(name) for name in names))}
    return Problem(
        parameters,
        tuple(
            replace(
                _target(space, names, objective, reference, table),
                reformat=reformat if objective.prior == "latency" else 0.0,
                bound=(bounds or {}).get(objective),
                optimised=objective not in bounded,
                exact=objective.prior == "weights",
            )
            for objective, reference, table in objectives
        ),
        _harm(space.groups, names, sensitivity),
        np.array(list(pairs), dtype=np.int64).reshape(-1, 2),
        sizes / sizes.mean() if len(sizes) else sizes,
        np.array([domains[_domain(name)] for name in names], dtype=np.int64),
        np.array([numbers[module] for module in modules], dtype=np.int64),
        frozenset((g.name, name) for g in space.groups for name in names if blocked and blocked.blocks(g, name)),
    )


def _domain(name: str) -> str:
    return FORMATS[name].activation.name if name in FORMATS else name


def _target(
    space: SearchSpace, names: Sequence[str], objective: Objective, reference: float, table: CostTable | None
) -> Target:
    worst = reference * objective.worst
    if table is None:
        return Target(objective.name, reference, worst)
    prior, fixed = _shares(space.groups, names, table)
    return Target(objective.name, reference, worst, prior, fixed)


def _shares(groups: Sequence[Group], names: Sequence[str], table: CostTable) -> tuple[Floats, float]:
    """Costs of choices, and of what no choice changes, as shares of the unquantized model's."""
    costs = np.array([[sum(table.cost(layer, name) for layer in g.layers) for name in names] for g in groups])
    plain = table.whole or sum(table.cost(layer, UNQUANTIZED) for g in groups for layer in g.layers) + table.fixed
    return np.asarray(costs / plain), table.fixed / plain


def _harm(groups: Sequence[Group], names: Sequence[str], table: SensitivityTable | None) -> Floats:
    harm = np.array([[0.0 if name == UNQUANTIZED else 1.0 for name in names] for _ in groups])
    if table is None or not table.entries:
        return harm
    known = np.array([[sum(table.score(layer, name) for layer in g.layers) for name in names] for g in groups])
    return np.asarray(np.where(harm > 0, known, 0.0))
