"""The Pareto front of a run: members with their marks, and hypervolume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from objectives.objective import Objective
from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from tuner.samplers import optuna_compat
from tuner.samplers.acquisition import nondominated
from tuner.search.recommendation import Recommendation, recommend
from tuner.search.records import FrontMember, Rescore, TrialRecord
from tuner.search.telling_apart import Contender, fold


def feasible(records: Sequence[TrialRecord], objectives: ObjectiveSet) -> list[TrialRecord]:
    """Complete trials that keep the constraints and are not broken, each scheme once."""
    kept: dict[str, TrialRecord] = {}
    for record in records:
        if record.scores is not None and objectives.feasible(record.scores):
            kept.setdefault(record.allocation.digest, record)
    return list(kept.values())


def pareto(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Marks the non-dominated rows; of equal rows, all.

    Args:
        points: Shape ``(n, objectives)``, all minimised.

    Returns:
        Shape ``(n,)``.
    """
    kept = np.zeros(len(points), dtype=np.bool_)
    kept[nondominated(points)] = True
    return kept


def front_of(
    records: Sequence[TrialRecord],
    objectives: ObjectiveSet,
    reference: Scores,
    *,
    rescores: Mapping[str, Rescore] | None = None,
) -> list[FrontMember]:
    """Returns the front, fastest (or smallest) first, with its marks: recommended, folded, knee.

    Args:
        records: All trials.
        objectives: Of the study; a scheme that breaks one of their bounds is left out. Where no quantized scheme keeps
            `max_drop`, the one that comes nearest to it stands in the front too.
        reference: Scores of the unquantized model.
        rescores: ``{allocation digest: rescore}``, as far as there are any: these figures then decide, among the
            schemes that have them and those of the measured front that do not yet.
    """
    unquantized = objectives.maximised.value(reference)
    contenders = _contenders(records, objectives.against(reference), reference, rescores or {})
    answer = recommend(contenders, objectives, unquantized)
    if answer is None and objectives.max_drop is not None:  # nothing keeps the drop: who comes nearest?
        others = _contenders(records, objectives, reference, rescores or {})
        answer = recommend(others, objectives, unquantized)
        kept = {each.trial for each in contenders} | ({answer.trial} if answer is not None else set())
        contenders = [each for each in others if each.trial in kept]
    named = next((each for each in contenders if answer is not None and each.trial == answer.trial), None)
    folded = fold(contenders, objectives, named)
    shown = [each for each in contenders if each.trial not in folded]
    bend = _bend(shown, objectives, reference)
    return [
        replace(
            each.member,
            recommended=each is named and answer is not None and answer.kept,
            nearest=each is named and answer is not None and not answer.kept,
            folded_under=folded.get(each.trial),
            knee=each is bend,
        )
        for each in contenders
    ]


def _contenders(
    records: Sequence[TrialRecord], objectives: ObjectiveSet, reference: Scores, rescores: Mapping[str, Rescore]
) -> list[Contender]:
    """The schemes that keep all bounds and that no other dominates, by their latest figures, the cheapest first."""
    candidates = feasible(records, objectives)
    if not candidates:
        return []
    measured = _points([r.scores for r in candidates if r.scores], objectives, reference)
    # A scheme that only its luck keeps apart from the front must not take the place of one that was measured again.
    eligible = [
        FrontMember(record, rescores.get(record.allocation.digest))
        for record, best in zip(candidates, pareto(measured), strict=True)
        if best or record.allocation.digest in rescores
    ]
    latest = [Contender(member, settled(member, reference, objectives.maximised)) for member in eligible]
    kept = [each for each in latest if objectives.feasible(each.scores)]
    if not kept:
        return []
    points = _points([each.scores for each in kept], objectives, reference)
    best = pareto(points)
    order = np.argsort(points[:, objectives.objectives.index(objectives.axis)], kind="stable")
    return [kept[row] for row in order if best[row]]


def _bend(shown: Sequence[Contender], objectives: ObjectiveSet, reference: Scores) -> Contender | None:
    """The contender at the knee, if there is one."""
    if not shown:
        return None
    points = _points([each.scores for each in shown], objectives, reference)
    row = knee(points[:, [objectives.objectives.index(objectives.axis), objectives.accuracy]])
    return None if row is None else shown[row]


def recommendation(
    members: Sequence[FrontMember], reference: Scores, objectives: ObjectiveSet
) -> Recommendation | None:
    """The answer of a front; None of one without quantized schemes.

    Args:
        members: Of the front, as `front_of` gives them.
        reference: Scores of the unquantized model.
        objectives: Of the study; they hold the budget.
    """
    contenders = [Contender(member, settled(member, reference, objectives.maximised)) for member in members]
    return recommend(contenders, objectives, objectives.maximised.value(reference))


def knee(points: NDArray[np.float64]) -> int | None:
    """The point farthest below the line between the front's ends, each axis scaled to [0, 1] between them.

    The rule of Das, "On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection" (1999):
    beyond it, a little more of one objective costs much of the other.

    Args:
        points: Shape ``(n, 2)``: cost and loss, both minimised.

    Returns:
        Its row; None where no point lies below the line.
    """
    if len(points) < 3:
        return None
    ends = points[[np.argmin(points[:, 0]), np.argmin(points[:, 1])]]
    low, span = ends.min(axis=0), np.ptp(ends, axis=0)
    if not (span > 0).all():
        return None
    # Scaled, the line joins (0, 1) and (1, 0): the distance below it grows with 1 - x - y.
    depth = 1 - ((points - low) / span).sum(axis=1)
    best = int(np.argmax(depth))
    return best if depth[best] > 1e-9 else None


def _points(scores: Sequence[Scores], objectives: ObjectiveSet, reference: Scores) -> NDArray[np.float64]:
    return np.array([objectives.losses(entry, reference) for entry in scores], dtype=np.float64)


def settled(member: FrontMember, reference: Scores, accuracy: Objective) -> Scores:
    """A member's scores by what was measured last, on the scales of the search.

    The accuracy is the reference's on the search images plus the difference on all images, so that it compares with
    schemes that were not measured again and with the constraints; the latency is that of the repeated rounds.
    """
    scores, again = member.record.scores, member.rescore
    assert scores is not None
    if again is None:
        return scores
    shifted = accuracy.value(reference) + again.difference
    ratio = again.latency_ratio
    return replace(
        scores,
        accuracy=replace(scores.accuracy, metrics={**scores.metrics, accuracy.name: shifted}),
        latency_ms=scores.latency_ms if ratio is None else reference.latency_ms * ratio,
    )


def drop(member: FrontMember, reference: Scores, accuracy: Objective) -> float:
    """Loss of accuracy against the reference, on all images where re-scored; negative is a gain."""
    if member.rescore is not None:
        return -member.rescore.difference
    assert member.record.scores is not None
    return accuracy.value(reference) - accuracy.value(member.record.scores)


def hypervolume(records: Sequence[TrialRecord], objectives: ObjectiveSet, reference: Scores) -> float:
    """Volume that the front dominates beyond the reference point, in accuracy x shares of the reference's costs."""
    kept = feasible(records, objectives.against(reference))
    points = [objectives.losses(record.scores, reference) for record in kept if record.scores]
    return optuna_compat.hypervolume(points, objectives.worst_point(reference))


def hypervolume_history(
    records: Sequence[TrialRecord], objectives: ObjectiveSet, reference: Scores
) -> tuple[float, ...]:
    """Hypervolume after each complete trial."""
    complete = [record for record in records if record.scores is not None]
    return tuple(hypervolume(complete[: count + 1], objectives, reference) for count in range(len(complete)))
