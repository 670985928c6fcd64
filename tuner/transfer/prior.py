"""Puts what earlier studies taught in place of a problem's priors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search_spaces.formats import UNQUANTIZED
from tuner.samplers.problem import EdgeCosts, Floats, Measured, Problem, Target, edge_costs
from tuner.transfer.keys import GroupKeys
from tuner.transfer.knowledge import DeviceCosts, Knowledge, KnownFront, ModelEffects

#: Below this share of known groups, edges and common factors are not taken as known.
_MOST = 0.5


def transferred(problem: Problem, knowledge: Knowledge, keys: GroupKeys) -> Problem:
    """The problem with the priors that earlier studies taught; what they do not know stays as it is.

    Args:
        problem: As the study's own preparations describe it.
        knowledge: What is known.
        keys: Of the problem's groups.
    """
    objectives = problem.objectives
    harm = None if knowledge.effects is None else _harm(problem, knowledge.effects, keys)
    if knowledge.costs is not None:
        known = knowledge.costs
        objectives = tuple(_target(problem, o, known, keys) if o.reformat else o for o in objectives)
    if harm is None:
        return replace(problem, objectives=objectives)
    earlier = () if knowledge.front is None else _earlier(problem, knowledge.front, keys)
    return replace(problem, harm=harm, objectives=objectives, taught=True, earlier=earlier)


def _earlier(problem: Problem, front: KnownFront, keys: GroupKeys) -> tuple[Measured, ...]:
    """Those of its members that the problem allows."""
    numbers = {name: index for index, name in enumerate(problem.formats)}
    found = []
    for known in front.schemes:
        scheme = [numbers.get(known.formats.get(key, ""), -1) for key in keys.names]
        shares = [known.shares.get(target.name) for target in problem.objectives]
        if min(scheme) >= 0 and problem.allowed[range(len(scheme)), scheme].all() and None not in shares:
            found.append(Measured(tuple(scheme), tuple(share for share in shares if share is not None)))
    return tuple(found)


def _harm(problem: Problem, effects: ModelEffects, keys: GroupKeys) -> Floats | None:
    """Losses of choices: the learned ones, and sensitivities brought to their unit; None where too few are known."""
    known = np.array(
        [[effects.groups.get(key, {}).get(name, np.nan) for name in problem.formats] for key in keys.names]
    )
    both = np.isfinite(known) & (known > 0) & (problem.harm > 0)
    if both.sum() < _MOST * (problem.allowed & (problem.harm > 0)).sum():
        return None
    unit = float(np.exp(np.median(np.log(known[both] / problem.harm[both]))))
    return np.asarray(np.where(both, known, unit * problem.harm))


def _target(problem: Problem, target: Target, costs: DeviceCosts, keys: GroupKeys) -> Target:
    """A latency with the learned shares.

    Milliseconds of another day are not those of today: known groups are brought to the sum that they have in the
    problem's own prior while unquantized.
    """
    assert target.prior is not None
    names = problem.formats
    known = np.array([[costs.choices.get(key, {}).get(name, np.nan) for name in names] for key in keys.shapes])
    told = np.isfinite(known)
    whole = (told | ~problem.allowed).all(axis=1)
    factor, prior = 1.0 / target.reference, target.prior
    if UNQUANTIZED in names:
        plain = names.index(UNQUANTIZED)
        both = whole & told[:, plain]
        spent = float(known[both, plain].sum())
        factor = float(prior[both, plain].sum()) / spent if spent > 0 else factor
        logs = [[costs.kinds.get(kind, {}).get(name, 0.0) for name in names] for kind in keys.kinds]
        prior = prior * np.exp(np.array(logs))
    prior = np.where(whole[:, None] & told, factor * known, prior)
    if whole.mean() < _MOST:
        return replace(target, prior=prior)
    return replace(target, prior=prior, learned=_edges(problem, target, costs, keys, factor))


def _edges(problem: Problem, target: Target, costs: DeviceCosts, keys: GroupKeys, factor: float) -> EdgeCosts:
    usual = edge_costs(problem, replace(target, reformat=1.0)).reformats
    found = []
    for (source, end), size in zip(problem.edges, usual, strict=True):
        unknown = (costs.reformat_ms * float(size), costs.break_ms * float(size))
        found.append(costs.edges.get(keys.edge(int(source), int(end)), unknown))
    shares = np.maximum(factor * np.array(found, dtype=np.float64).reshape(-1, 2), 1e-9)
    return EdgeCosts(shares[:, 0], shares[:, 1])
