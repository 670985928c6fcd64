"""What the trials of a study teach, read off the models that were fitted to them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from search_spaces.formats import UNQUANTIZED
from tuner.samplers.acquisition import nondominated
from tuner.samplers.history import History
from tuner.samplers.posterior import JointPosterior
from tuner.samplers.problem import Floats, Measured, Problem, edge_costs
from tuner.transfer.keys import GroupKeys
from tuner.transfer.knowledge import DeviceCosts, Knowledge, KnownFront, KnownScheme, ModelEffects

#: Complete trials below which a study teaches nothing.
MIN_TRIALS = 16
_NOTHING = Knowledge()


def taught(
    name: str, problem: Problem, own: Problem, history: History, keys: GroupKeys, earlier: Knowledge = _NOTHING
) -> Knowledge | None:
    """Reads off costs, effects and the front.

    Args:
        name: Of the study.
        problem: As its sampler saw it, earlier studies' teachings included.
        own: The same by its own preparations alone.
        history: Its trials.
        keys: Of its groups.
        earlier: What it began with.

    Returns:
        None where the trials are too few; no costs where no latency is among the objectives.
    """
    count = len(history.schemes)
    if count < MIN_TRIALS:
        return None
    posterior = JointPosterior(problem, history)
    before = [0 if part is None else part.trials for part in (earlier.costs, earlier.effects, earlier.front)]
    effects = ModelEffects(name, count + before[1], _table(keys.names, problem, posterior.accuracy.effects))
    members = believed_front(problem, history, posterior)
    front = KnownFront(name, count + before[2], tuple(_named(keys, problem, member) for member in members))
    timed = next((index for index, target in enumerate(problem.objectives) if target.reformat), None)
    if timed is None:
        return Knowledge(None, effects, front)
    target, model = problem.objectives[timed], posterior.costs[problem.objectives[timed].name]
    reformats, breaks = target.reference * model.reformat_cost, target.reference * model.broken_fusion_cost
    sizes = (1 + problem.edge_sizes) / 2
    edges: dict[str, tuple[float, float]] = {}
    for (source, end), reformat, broken in zip(problem.edges, reformats, breaks, strict=True):
        edges[keys.edge(int(source), int(end))] = (float(reformat), float(broken))
    usual = edge_costs(own, own.objectives[timed])
    costs = DeviceCosts(
        name,
        count + before[0],
        _table(keys.shapes, problem, target.reference * model.effects),
        _corrections(keys, problem, model.effects, own.objectives[timed].prior),
        edges,
        float(np.median(reformats / sizes)) if len(sizes) else target.reference * float(usual.reformats.sum()),
        float(np.median(breaks / sizes)) if len(sizes) else target.reference * float(usual.breaks.sum()),
    )
    return Knowledge(costs, effects, front)


def believed_front(problem: Problem, history: History, posterior: JointPosterior) -> tuple[Measured, ...]:
    """What no other scheme dominates, by measured accuracy and by costs as the models believe them.

    An accuracy repeats on the same images; what a single timing says of a latency, all others know better.
    """
    targets = problem.objectives
    references = np.array([target.reference for target in targets])
    accuracy = np.array([target.accuracy for target in targets])
    shares = np.where(accuracy, history.values / references, posterior.mean(history.schemes))
    optimised = np.array([target.optimised for target in targets])
    kept = nondominated(np.where(accuracy, -shares, shares)[:, optimised])
    return tuple(Measured(tuple(history.schemes[row].tolist()), tuple(shares[row].tolist())) for row in kept)


def _named(keys: GroupKeys, problem: Problem, member: Measured) -> KnownScheme:
    names, targets = problem.formats, problem.objectives
    return KnownScheme(
        {key: names[index] for key, index in zip(keys.names, member.scheme, strict=True)},
        {target.name: share for target, share in zip(targets, member.shares, strict=True)},
    )


def _table(keys: tuple[str, ...], problem: Problem, values: Floats) -> dict[str, dict[str, float]]:
    """``{key: {format: mean over the groups of that key}}`` of what the space allows."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, row, allowed in zip(keys, values, problem.allowed, strict=True):
        for name, value, usable in zip(problem.formats, row, allowed, strict=True):
            if usable:
                found[key][name].append(float(value))
    return {key: {name: float(np.mean(each)) for name, each in row.items()} for key, row in found.items()}


def _corrections(
    keys: GroupKeys, problem: Problem, learned: Floats, estimated: Floats | None
) -> dict[str, dict[str, float]]:
    """How much faster or slower formats are than estimated, relative to the unquantized one, by kind of group."""
    if estimated is None or UNQUANTIZED not in problem.formats:
        return {}
    plain = problem.formats.index(UNQUANTIZED)
    logs = np.log(np.maximum(learned, 1e-12)) - np.log(np.maximum(estimated, 1e-12))
    table = np.clip(logs - logs[:, plain : plain + 1], -3.0, 3.0)
    return _table(keys.kinds, problem, table)
